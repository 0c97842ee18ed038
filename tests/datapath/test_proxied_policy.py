"""Which entries send to a proxy, only try, or want proof; and what is reported of that. Without a network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest
from bench_node import PASS, REDIRECT, SHOT, Node
from fragmented import fragment
from places import CLIENT, DROP, END, NEW, OUR, POD, REMOTE, SERVER, VERSIONS, WORLD

from axoneme.policy.table import EVERY_PEER
from oracle.packets import ACK, ETHERNET, ICMP, ICMPV6, RST, SYN, TCP, UDP, dissect, frame, with_checksum

NONE, ALLOW, DENY = 0, 1, 2
COMPLETE, AUTHENTICATE, AUDIT = 1, 2, 4
PROXY, OTHER_PROXY = 10000, 10001
TO_PROXY, PROXY_ANSWERS, EGRESS_PROXY = 0x0200, 0x0900, 0x0B00  # enum mark
PROXIED, TRIED = 1 << 4, 1 << 6  # enum event_flag
NOT_BY_PROXY = 240


@pytest.fixture(autouse=True)
def proxies(kernel: Node) -> Iterator[None]:
    """Somebody listens at both ports, in both families, for TCP and UDP."""
    made = []
    for port in (PROXY, OTHER_PROXY):
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                each = socket.socket(family, kind)
                made.append(each)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_ANSWERS)
                each.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    each.listen()
    yield
    for each in made:
        each.close()


def put(
    kernel: Node, peer: int, verdict: int, *, port: int = 0, flags: int = 0, rule: int = 0, direction: int = 0
) -> None:
    """What holds for all that a peer sends to the client, or (1) that this sends to the peer."""
    policies = kernel.plane.policies
    key, value = np.zeros((), policies.key), np.zeros((), policies.value)
    key["prefix_length"], key["subject"], key["peer"], key["direction"] = 72, CLIENT, peer, direction
    value["verdict"], value["proxy_port"], value["flags"], value["rule"] = verdict, port, flags, rule
    policies.put(key, value)
    kernel.plane.raise_all()


def fate(kernel: Node, version: int = 4, protocol: int = TCP) -> tuple[str, int]:
    """What becomes of a first packet to the client, and by which rule."""
    kernel.forget_flows()
    kernel.events()
    run = kernel.send("to_pod", frame(REMOTE[version], POD[version], protocol, 40000, 80))
    (event,) = kernel.events()
    rule = int(event["ingress_rule"])
    if event["kind"] == DROP:
        assert run.value == SHOT
        return f"dropped {int(event['reason'])}", rule
    if int(event["flags"]) & PROXIED:
        assert (run.value, int(run.context["mark"])) == (REDIRECT, TO_PROXY | int(event["nat_port"]) << 16)
        return f"proxy {int(event['nat_port'])}", rule
    assert run.value == PASS
    return "tried" if int(event["flags"]) & TRIED else "passed", rule


#: The peer's own entry, the one for every peer, what becomes of it: each entry as verdict, port and flags.
Entry = tuple[int, int, int]
TABLE: list[tuple[Entry | None, Entry | None, str]] = [
    ((ALLOW, PROXY, 0), None, f"proxy {PROXY}"),
    (None, (ALLOW, PROXY, 0), f"proxy {PROXY}"),
    ((ALLOW, PROXY, 0), (ALLOW, 0, 0), "passed"),
    ((ALLOW, PROXY, COMPLETE), (ALLOW, 0, 0), f"proxy {PROXY}"),
    ((ALLOW, 0, 0), (ALLOW, PROXY, 0), "passed"),
    ((ALLOW, PROXY, 0), (ALLOW, OTHER_PROXY, 0), f"proxy {PROXY}"),
    ((ALLOW, PROXY, 0), (DENY, 0, 0), "dropped 181"),
    ((ALLOW, PROXY, COMPLETE), (DENY, 0, 0), f"proxy {PROXY}"),
    ((DENY, 0, 0), (ALLOW, PROXY, 0), "dropped 181"),
    ((DENY, 0, COMPLETE), (ALLOW, 0, 0), "dropped 181"),
    ((NONE, 0, 0), (ALLOW, PROXY, 0), f"proxy {PROXY}"),
    ((NONE, 0, COMPLETE), (ALLOW, PROXY, 0), "dropped 133"),
    ((NONE, 0, 0), (NONE, 0, 0), "dropped 133"),
    ((ALLOW, PROXY, 0), (NONE, 0, 0), f"proxy {PROXY}"),
    ((ALLOW, 0, AUDIT), None, "tried"),
    ((ALLOW, 0, AUDIT), (ALLOW, 0, 0), "passed"),
    ((ALLOW, 0, AUDIT | COMPLETE), (ALLOW, 0, 0), "tried"),
    ((ALLOW, 0, AUTHENTICATE), None, "dropped 189"),
    ((ALLOW, 0, AUTHENTICATE), (ALLOW, 0, 0), "passed"),
    ((ALLOW, 0, AUTHENTICATE | COMPLETE), (ALLOW, 0, 0), "dropped 189"),
    ((ALLOW, PROXY, AUDIT), None, f"proxy {PROXY}"),
    ((ALLOW, PROXY + 2, 0), None, "dropped 178"),
]


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_two_entries_give_one_outcome(kernel: Node, version: int, protocol: int) -> None:
    for own, every, wanted in TABLE:
        kernel.policies({})
        for peer, entry, rule in ((SERVER, own, 7), (EVERY_PEER, every, 8)):
            if entry is not None:
                put(kernel, peer, entry[0], port=entry[1], flags=entry[2], rule=rule)
        found, rule = fate(kernel, version, protocol)
        assert found == wanted, (own, every)
        assert rule in ((7, 8) if wanted != "dropped 133" else (0,)), (own, every)


def test_only_tcp_and_udp_go_to_proxies(kernel: Node) -> None:
    put(kernel, EVERY_PEER, ALLOW, port=PROXY)
    for protocol in (ICMP, 47, 132):
        assert fate(kernel, 4, protocol)[0] == "dropped 178"


@VERSIONS
def test_an_answer_that_does_not_come_by_the_proxy_is_refused(kernel: Node, version: int) -> None:
    put(kernel, EVERY_PEER, ALLOW, port=PROXY)
    kernel.send("to_pod", frame(REMOTE[version], POD[version], TCP, 40000, 80))
    kernel.events()
    run = kernel.send("from_pod", frame(POD[version], REMOTE[version], TCP, 80, 40000, flags=SYN | ACK))
    (event,) = kernel.events()
    assert (event["kind"], event["reason"], run.value) == (DROP, NOT_BY_PROXY, REDIRECT)
    answer = dissect(run.data)
    assert answer.l4[13] & RST
    assert (answer.source, answer.destination) == (REMOTE[version], POD[version])
    assert answer.checksum_right


@VERSIONS
@pytest.mark.parametrize("speaks", ["caller", "called"])
def test_a_connection_without_the_proxy_that_policy_wants_now_is_ended(
    kernel: Node, version: int, speaks: str
) -> None:
    there, back = (REMOTE[version], POD[version]), (POD[version], REMOTE[version])
    put(kernel, EVERY_PEER, ALLOW)
    kernel.send("to_pod", frame(*there, TCP, 40000, 80))
    kernel.send("from_pod", frame(*back, TCP, 80, 40000, flags=SYN | ACK))
    kernel.send("to_pod", frame(*there, TCP, 40000, 80, flags=ACK))
    put(kernel, EVERY_PEER, ALLOW, port=PROXY)
    kernel.events()
    if speaks == "caller":
        run = kernel.send("to_pod", frame(*there, TCP, 40000, 80, flags=ACK, payload=b"word"))
    else:
        run = kernel.send("from_pod", frame(*back, TCP, 80, 40000, flags=ACK, payload=b"word"))
    ended, dropped = sorted(kernel.events(), key=lambda event: int(event["kind"]))
    assert (ended["kind"], dropped["kind"], dropped["reason"]) == (END, DROP, NOT_BY_PROXY)
    forwarded = dissect(run.data)
    assert forwarded.l4[13] & RST
    assert forwarded.checksum_right
    assert forwarded.ip_checksum_right
    assert (forwarded.source, forwarded.destination) == (there if speaks == "caller" else back)
    kernel.send(*(("to_pod", frame(*there, TCP, 40000, 80)) if speaks == "caller" else
                  ("from_pod", frame(*back, TCP, 80, 40000, flags=ACK))))  # fmt: skip
    again = kernel.events()[-1]
    assert (again["kind"], again["flags"] & PROXIED) == (
        (NEW, PROXIED) if speaks == "caller" else (DROP, 0)
    ), "another one begins with a SYN"


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_who_has_the_port_and_is_no_proxy_gets_nothing(kernel: Node, version: int, protocol: int) -> None:
    """Such as the kubelet, which listens at 10250 of all addresses."""
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6, kind) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind(("::", 10250))
        if protocol == TCP:
            other.listen()
        put(kernel, EVERY_PEER, ALLOW, port=10250)
        assert fate(kernel, version, protocol)[0] == "dropped 178"


@VERSIONS
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_what_begins_in_fragments_goes_nowhere(kernel: Node, version: int, protocol: int) -> None:
    """Put together by the node's stack, it would be for whoever listens there for all addresses."""
    put(kernel, EVERY_PEER, ALLOW, port=PROXY)
    whole = frame(REMOTE[version], POD[version], protocol, 40000, 80, payload=bytes(64))
    # Later ones of a SYN are nothing without the first.
    for ends in ((0, 32), (32, 64), (64, 72))[: 1 if protocol == TCP else 3]:
        run = kernel.send("to_pod", fragment(whole, *ends))
        assert run.value == SHOT
    assert {int(event["reason"]) for event in kernel.events() if event["kind"] == DROP} == {178}


@VERSIONS
def test_no_proxy_speaks_by_an_uplink_for_a_pod_that_is_gone(kernel: Node, version: int) -> None:
    kernel.masquerade(OUR[4], OUR[6])
    kernel.address(OUR[version], 1, None, flags=1)
    kernel.remove_endpoint(POD[version])
    for mark in (PROXY_ANSWERS, EGRESS_PROXY):
        packet = frame(POD[version], WORLD[version], TCP, 61000, 443, flags=ACK)
        assert kernel.send("to_uplink", packet, kernel.uplink, mark=mark).value == SHOT
        own = frame(OUR[version], WORLD[version], UDP, 51820, 51820)
        assert kernel.send("to_uplink", own, kernel.uplink, mark=mark | 0xC06C).value == PASS, "WireGuard's"


def test_a_pod_cannot_speak_as_a_proxy(kernel: Node) -> None:
    """A mark says nothing of what has come in by a device."""
    kernel.policies({})
    for mark in (0x0900, 0x0A00, 0x0B00):
        kernel.events()
        run = kernel.send(
            "to_pod", frame(REMOTE[4], POD[4], TCP, 40000, 80), mark=mark, ingress_ifindex=kernel.uplink
        )
        (event,) = kernel.events()
        assert (run.value, event["zone"]) == (SHOT, 0)


@VERSIONS
def test_what_a_proxy_sends_outside_is_masqueraded_and_what_comes_back_is_for_its_socket(
    kernel: Node, version: int
) -> None:
    """Answers, and errors, whether the port is one that the client has as well."""
    put(kernel, EVERY_PEER, ALLOW, direction=1, port=PROXY)
    kernel.masquerade(OUR[4], OUR[6])
    uplink, out = kernel.uplink, (POD[version], WORLD[version])
    kernel.send(
        "from_pod", frame(*out, TCP, 61000, 443, flags=ACK)
    )  # of the client itself, on its way to the proxy
    run = kernel.send("to_uplink", with_checksum(frame(*out, TCP, 61000, 443)), uplink, mark=EGRESS_PROXY)
    sent = dissect(run.data)
    assert (run.value, sent.source, sent.checksum_right) == (PASS, OUR[version], True)
    zones = {int(key["zone"]) for key in kernel.plane.half_open.read_all()[0]}
    assert zones == {0, 1}
    back = (WORLD[version], OUR[version])
    answer = with_checksum(frame(*back, TCP, 443, sent.ports[0], flags=SYN | ACK))
    run = kernel.send("from_uplink", answer, uplink)
    seen = dissect(run.data)
    assert (run.value, int(run.context["mark"])) == (PASS, TO_PROXY)
    assert (seen.destination, seen.ports, seen.checksum_right) == (POD[version], (443, 61000), True)
    router = IPv4Address("192.0.2.77") if version == 4 else IPv6Address("2001:db8:77::1")
    protocol, kind = (ICMP, 3) if version == 4 else (ICMPV6, 1)
    error = with_checksum(frame(router, OUR[version], protocol, 0, kind, payload=sent.packet[14:]))
    run = kernel.send("from_uplink", error, uplink)
    seen = dissect(run.data)
    assert (run.value, int(run.context["mark"])) == (PASS, TO_PROXY)
    assert (seen.destination, seen.checksum_right) == (POD[version], True)
    inner = dissect(ETHERNET + (b"\x08\x00" if version == 4 else b"\x86\xdd") + seen.l4[8:])
    assert (inner.source, inner.ports) == (POD[version], (61000, 443))


def test_who_speaks_by_an_uplink_or_the_overlay_without_a_mark_is_no_proxy(kernel: Node) -> None:
    put(kernel, EVERY_PEER, ALLOW, direction=1, port=PROXY)
    kernel.masquerade(OUR[4], OUR[6])
    packet = frame(POD[4], WORLD[4], TCP, 61000, 443)
    run = kernel.send("to_uplink", packet, kernel.uplink)
    assert (run.value, run.data) == (PASS, packet), "nothing of it is ours"
    assert not kernel.events()
    for mark in (EGRESS_PROXY, TO_PROXY):
        run = kernel.send("to_uplink", packet, kernel.uplink, mark=mark, ingress_ifindex=kernel.elsewhere)
        assert run.value == (PASS if mark == EGRESS_PROXY else SHOT)
        assert run.data == packet
