"""What somebody else does to the kernel's tables, programs and pins behind the agent's back is put right."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_node import Node, node
from two_nodes import inside

from axoneme.datapath import attach, bpf, clsact, links, tcx
from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.datapath.uapi import Command, MapType

#: Seconds until everything has been looked at, as documented, on a machine that does other things too.
PATIENCE = 60
STRUCTS = {
    "addresses": ("prefix_key", "address"),
    "policies": ("policy_key", "policy_value"),
    "endpoints": ("address_key", "endpoint"),
    "uplinks": (None, "uplink"),
}
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": f"203.0.{n}.0/24"}} for n in range(20)]}],
    },
}
POD = {
    "kind": "Pod",
    "metadata": {"name": "one", "namespace": "default", "labels": {"app": "one"}},
    "spec": {"containers": []},
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Node]:
    with node() as made:
        made.start()
        made.write({"objects/NetworkPolicy/default/closed": POLICY, "objects/Pod/default/one": POD})
        made.attach("one", made.namespaces.add("one"))
        made.wait_for_policies(1, 0)
        yield made


def table(agent: Node, name: str) -> Table:
    schema = Schema.load()
    key, value = STRUCTS[name]
    return Table.pinned(
        agent.folder / "bpf/maps" / name,
        schema.struct(key) if key else np.dtype(np.uint32),
        schema.struct(value),
    )


def content(held: Table) -> dict[bytes, bytes]:
    keys, values = held.read_all()
    return {key.tobytes(): value.tobytes() for key, value in zip(keys, values, strict=True)}


def wait(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)


def repairs(agent: Node, what: str) -> int:
    return int(agent.client.call("status")["repairs"].get(what, 0))


@pytest.mark.parametrize("way", ["edited", "deleted", "added", "emptied"])
def test_entries_are_put_right(agent: Node, way: str) -> None:
    counts = {name: repairs(agent, name) for name in STRUCTS}
    wanted = {name: spoil(agent, name, way) for name in STRUCTS}
    for name, before in wanted.items():
        wait(lambda name=name: repairs(agent, name) > counts[name], f"{name} is counted")
        with table(agent, name) as held:
            wait(lambda held=held, before=before: content(held) == before, f"{name} {way}")


def spoil(agent: Node, name: str, way: str) -> dict[bytes, bytes]:
    """What was in the table before."""
    with table(agent, name) as held:
        wanted = content(held)
        keys, values = held.read_all()
        match way:
            case "edited":
                raw = values[:1].copy()
                raw.view(np.uint8)[...] ^= 0x55
                held.write(keys[:1], raw)
            case "deleted":
                held.delete(keys[-1:])
            case "added":
                strange = keys[:1].copy()
                strange.view(np.uint8)[-1] ^= 0x3C
                held.write(strange, values[:1])
            case _:
                held.clear()
    return wanted


def programs(agent: Node) -> dict[tuple[int, int], int]:
    """What is in the places of this node's programs, by interface and direction."""
    found = {}
    with inside(agent.namespace):
        for ifindex, name in socket.if_nameindex():
            for point in (attach.INGRESS, attach.EGRESS):
                pin = agent.folder / "bpf/links" / f"{name}-{point.name.removeprefix('TCX_').lower()}"
                for there in (clsact.attached(ifindex, point), tcx.attached(ifindex, point, pin)):
                    if there:
                        found[ifindex, int(point)] = there
    return found


def test_programs_are_put_back(agent: Node) -> None:
    wanted = programs(agent)
    assert len(wanted) >= 5, "two of each pod, two of the overlay, one of the uplink"
    with inside(agent.namespace):
        pod = next(i for i, n in socket.if_nameindex() if n.startswith("axo") and n != "axo_overlay")
        clsact.detach(pod, attach.INGRESS)
        other = bpf.by_id(Command.PROG_GET_FD_BY_ID, wanted[pod, int(attach.INGRESS)])
        clsact.attach(other, pod, attach.EGRESS)  # the program of the other direction
        os.close(other)
        links.detach(agent.folder / "bpf/links/eth0-ingress")
        (agent.folder / "bpf/links/axo_overlay-egress").unlink()
    wait(lambda: programs(agent) == wanted, "programs")
    wait(lambda: repairs(agent, "programs") >= 4, "they are counted")


def test_pins_are_put_back(agent: Node) -> None:
    maps = agent.folder / "bpf/maps"

    def ids() -> dict[str, int]:
        found = {}
        for pin in maps.iterdir():
            fd = bpf.pinned(pin)
            found[pin.name] = bpf.map_info(fd).id
            os.close(fd)
        return found

    wanted = ids()
    (maps / "flows").unlink()
    (maps / "policies").unlink()
    fake = bpf.map_create(MapType.HASH, 4, 4, 8, name="policies")
    bpf.pin(fake, maps / "policies")
    os.close(fake)
    wait(lambda: ids() == wanted, "pins")


def test_what_was_done_while_no_agent_ran_is_put_right_by_the_next(agent: Node) -> None:
    agent.kill()
    wanted, places = {}, programs(agent).keys()
    for name in ("addresses", "policies", "endpoints"):
        with table(agent, name) as held:
            wanted[name] = content(held)
            keys, values = held.read_all()
            values.view(np.uint8)[...] ^= 0x55
            held.write(keys, values)
            strange = keys[:1].copy()
            strange.view(np.uint8)[-1] ^= 0x2B
            if name == "addresses":
                strange["prefix_length"] = 77  # of an IPv4 address: less than none
            held.write(strange, values[:1])
    (agent.folder / "bpf/maps/flows").unlink()
    link = agent.folder / "bpf/links/eth0-ingress"
    link.unlink()
    fake = bpf.map_create(MapType.HASH, 4, 4, 8, name="nolink")
    bpf.pin(fake, link)
    os.close(fake)
    agent.start()
    for name, before in wanted.items():
        with table(agent, name) as held:
            assert content(held) == before, name
    assert programs(agent).keys() == places
    assert Path(agent.folder / "bpf/maps/flows").exists()
