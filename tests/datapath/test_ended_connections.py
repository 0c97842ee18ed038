"""Connections that policy has ended while they lived: neither end can keep them up."""

from __future__ import annotations

import numpy as np
import pytest
from bench_node import LOOPBACK, SHOT, Node
from places import CLIENT, DROP, END, NEW, OTHER, POD, SERVER, VERSIONS

from axoneme.policy.table import Key, Value
from oracle.packets import ACK, RST, SYN, TCP, frame

PORTS = (40000, 80)
OPEN = {Key(subject, 0, way, 0, 0, 72): Value(1, 0) for subject in (CLIENT, SERVER) for way in (0, 1)}
#: What takes a connection from the client to the server away: a rule of either's.
DENIALS = {"egress": Key(CLIENT, SERVER, 1, 0, 0, 72), "ingress": Key(SERVER, CLIENT, 0, TCP, 80, 96)}


def say(kernel: Node, version: int, who: str, flags: int = ACK) -> int:
    """What becomes of what one end says."""
    if who == "client":
        packet = frame(POD[version], OTHER[version], TCP, *PORTS, flags=flags, payload=b"word")
        return kernel.send("from_pod", packet, LOOPBACK).value
    packet = frame(OTHER[version], POD[version], TCP, *reversed(PORTS), flags=flags, payload=b"word")
    return kernel.send("from_pod", packet, kernel.uplink).value


def begin(kernel: Node, version: int) -> None:
    for who, flags in (("client", SYN), ("server", SYN | ACK), ("client", ACK)):
        assert say(kernel, version, who, flags) != SHOT
    kernel.events()


def enforce(kernel: Node, table: dict[Key, Value]) -> None:
    kernel.policies(table)
    kernel.plane.raise_all()


@VERSIONS
@pytest.mark.parametrize("half", DENIALS)
def test_what_is_sent_again_is_no_connection_the_other_way(kernel: Node, version: int, half: str) -> None:
    """The server may call the client; that does not let it go on with what the client has begun."""
    begin(kernel, version)
    enforce(kernel, OPEN | {DENIALS[half]: Value(2, 7)})
    for who in ("server", "server", "client", "server"):
        assert say(kernel, version, who) == SHOT, who
    assert [int(event["kind"]) for event in kernel.events()] == [END, DROP, DROP, DROP, DROP]
    assert say(kernel, version, "server", SYN) != SHOT, "a call of its own"


@VERSIONS
def test_an_end_that_policy_takes_back_is_the_beginning_of_another(kernel: Node, version: int) -> None:
    begin(kernel, version)
    enforce(kernel, OPEN | {DENIALS["egress"]: Value(2, 7)})
    assert say(kernel, version, "server") == SHOT
    enforce(kernel, OPEN)
    kernel.events()
    assert say(kernel, version, "server") != SHOT
    (event,) = kernel.events()
    assert (event["kind"], event["source_port"], event["started"] > 0) == (NEW, PORTS[0], True)
    assert say(kernel, version, "client") != SHOT
    assert len(kernel.plane.flows.read_all()[0]) == 1


@VERSIONS
@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_that_nobody_heeds_does_not_keep_a_proxy_out(kernel: Node, version: int, who: str) -> None:
    """It passes, for it may be the end; what comes after it is judged."""
    begin(kernel, version)
    enforce(kernel, OPEN)
    policies = kernel.plane.policies
    key, value = np.zeros((), policies.key), np.zeros((), policies.value)
    key["prefix_length"], key["subject"], key["direction"] = 72, CLIENT, 1
    value["verdict"], value["proxy_port"] = 1, 10000
    policies.put(key, value)
    kernel.plane.raise_all()
    assert say(kernel, version, who, RST) != SHOT
    kernel.events()
    for speaks in ("client", "server"):
        say(kernel, version, speaks)
        reasons = [int(event["reason"]) for event in kernel.events() if event["kind"] == DROP]
        assert reasons == [240], "not by the proxy"
