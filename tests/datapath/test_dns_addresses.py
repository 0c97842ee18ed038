"""The DNS proxy gives addresses the identities that they should have, in the agent's tables."""

from __future__ import annotations

import multiprocessing
import os
import pwd
from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from bench_node import Node
from places import REMOTE, SERVER, VERSIONS, WORLD

from axoneme.datapath.epochs import Epochs
from axoneme.datapath.plane import packed
from axoneme.model.l7 import NameMatch
from axoneme.proxy.dns.kernel import AddressTable
from axoneme.proxy.names import NameIdentity, Names
from axoneme.rpc import privileges

LOCAL = 1 << 24
RANGE = LOCAL + 1
WORLDS = {4: 9, 6: 10}
FIRST, SECOND, BOTH, IN_RANGE = 10, 11, 12, 13
ROUTED = 4


def names(version: int) -> Names:
    world = WORLDS[version]
    return Names(
        (NameMatch("a.test"), NameMatch("b.test")),
        (
            NameIdentity(LOCAL + FIRST, world, (0,)),
            NameIdentity(LOCAL + SECOND, world, (1,)),
            NameIdentity(LOCAL + BOTH, world, (0, 1)),
            NameIdentity(LOCAL + IN_RANGE, RANGE, (0,)),
        ),
        (9, 10),
    )


def table(kernel: Node, version: int) -> AddressTable:
    made = AddressTable(kernel.root / "maps")
    made.use(names(version))
    return made


def known(kernel: Node, address: object) -> tuple[int, int] | None:
    found = kernel.plane.addresses.get((128, np.frombuffer(packed(address), "u1")))  # type: ignore[arg-type]
    return None if found is None else (int(found["identity"]), int(found["flags"]))


@VERSIONS
def test_an_address_of_the_world_gets_what_its_names_say_together(kernel: Node, version: int) -> None:
    address, made = WORLD[version], table(kernel, version)
    assert made.assign([str(address)], frozenset((0,))) == 1
    assert known(kernel, address) == (LOCAL + FIRST, 0)
    assert made.assign([str(address)], frozenset((0,))) == 1
    assert made.assign([str(address)], frozenset((1,))) == 1
    assert known(kernel, address) == (LOCAL + BOTH, 0)


@VERSIONS
def test_what_is_said_of_its_surroundings_stays(kernel: Node, version: int) -> None:
    bits = 24 if version == 4 else 64
    network = ip_network(f"{WORLD[version]}/{bits}", strict=False)
    kernel.address(network, RANGE, None, ROUTED)
    made = table(kernel, version)
    assert made.assign([str(WORLD[version])], frozenset((0,))) == 1
    assert known(kernel, WORLD[version]) == (LOCAL + IN_RANGE, ROUTED)
    assert made.assign([str(WORLD[version] + 1)], frozenset((1,))) == 0  # there is no such identity yet
    assert known(kernel, WORLD[version] + 1) == (RANGE, ROUTED)


@VERSIONS
def test_addresses_of_the_cluster_are_none_of_its_business(kernel: Node, version: int) -> None:
    assert table(kernel, version).assign([str(REMOTE[version])], frozenset((0,))) == 0
    assert known(kernel, REMOTE[version]) == (SERVER, 0)


def test_what_is_no_machine_in_particular_gets_nothing(kernel: Node) -> None:
    nobody = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "::", "ff02::1"]
    assert table(kernel, 4).assign(nobody, frozenset((0,))) == 0
    assert table(kernel, 6).assign(nobody, frozenset((0,))) == 0


def test_flows_of_the_address_are_decided_anew(kernel: Node) -> None:
    epochs = Epochs.pinned(kernel.root / "maps", kernel.plane.schema)._slot
    before = epochs.copy()
    made = table(kernel, 4)
    made.assign([str(WORLD[4])], frozenset((0,)))
    moved = (epochs != before).sum()
    assert moved == 1
    made.assign([str(WORLD[4])], frozenset((0,)))
    assert (epochs != before).sum() == 1


def test_tables_that_took_the_place_of_others_are_found(kernel: Node) -> None:
    made = table(kernel, 4)
    made.assign([str(WORLD[4])], frozenset((0,)))
    pin = kernel.root / "maps" / "addresses"
    aside = pin.with_name("aside")
    pin.rename(aside)
    try:
        assert made.assign([str(ip_address("203.0.113.77"))], frozenset((0,))) == 0
    finally:
        aside.rename(pin)
    assert made.assign([str(ip_address("203.0.113.77"))], frozenset((0,))) == 1


def test_it_needs_no_more_rights_than_the_agent_gives(kernel: Node) -> None:
    """As `axoneme.agent.names` lends the tables."""
    nobody = pwd.getpwnam("nobody").pw_uid
    maps = kernel.root / "maps"
    for pin in ("addresses", "epochs"):
        os.chown(maps / pin, nobody, -1)
    maps.chmod(0o711)

    def unprivileged() -> None:
        made = table(kernel, 4)
        privileges.become("nobody", (privileges.CAP_NET_RAW,))
        os._exit(made.assign([str(WORLD[4])], frozenset((0,))))

    child = multiprocessing.get_context("fork").Process(target=unprivileged)
    child.start()
    child.join(30)
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (5, 19):
        pytest.skip("this kernel asks for CAP_BPF")
    assert child.exitcode == 1
    assert known(kernel, WORLD[4]) == (LOCAL + FIRST, 0)
