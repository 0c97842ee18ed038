"""A rule set that does not fit the kernel's tables is refused as a whole; what fits after growth is not."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest

from axoneme.datapath.bpf import BpfError, failure

from .conftest import World


def policy(name: str, ports: int, cidrs: int = 1, first: int = 2000) -> dict[str, Any]:
    """So many entries for each of the prefixes, and so many prefixes."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"ipBlock": {"cidr": f"198.51.{n}.0/24"}} for n in range(cidrs)],
                    "ports": [{"port": first + 2 * n} for n in range(ports)],
                }
            ],
        },
    }


def limit(world: World, **entries: int) -> None:
    """As a configuration that lets tables grow so far."""
    world.control._room._limits = entries


async def prepared(world: World) -> dict[bytes, bytes]:
    await world.pod("web", app="web")
    await world.attach("web")
    await world.tell("NetworkPolicy", "small", policy("small", 1))
    world.plane.policies.room = len(world.plane.policies.entries) + 10
    world.plane.addresses.room = len(world.plane.addresses.entries) + 10
    return dict(world.plane.policies.entries)


async def test_what_does_not_fit_changes_nothing_and_the_numbers_are_told(world: World) -> None:
    before = await prepared(world)
    await world.tell("NetworkPolicy", "large", policy("large", 40))
    assert world.plane.policies.entries == before
    assert not world.control.broken
    (key, why), *others = world.control.refused.items()
    assert (key, others) == ("objects/NetworkPolicy/default/large", [])
    assert f"{world.plane.policies.room} entries at most" in why.replace(",", "")
    assert "tables.policies" in why


async def test_what_fits_is_put_in_force_beside_it(world: World) -> None:
    await prepared(world)
    await world.tell("NetworkPolicy", "large", policy("large", 40))
    before = len(world.plane.policies.entries)
    await world.tell("NetworkPolicy", "other", policy("other", 4))
    assert len(world.plane.policies.entries) > before
    assert list(world.control.refused) == ["objects/NetworkPolicy/default/large"]


async def test_a_change_that_does_not_fit_leaves_the_policy_as_it_was(world: World) -> None:
    before = await prepared(world)
    await world.tell("NetworkPolicy", "small", policy("small", 40))
    assert world.plane.policies.entries == before
    await world.tell("NetworkPolicy", "small", policy("small", 1))
    assert world.control.refused == {}
    assert world.plane.policies.entries == before


async def test_prefixes_that_do_not_fit_are_refused_too(world: World) -> None:
    before, addresses = await prepared(world), dict(world.plane.addresses.entries)
    await world.tell("NetworkPolicy", "wide", policy("wide", 1, cidrs=30))
    assert world.plane.policies.entries == before
    assert world.plane.addresses.entries == addresses
    assert "addresses: " in world.control.refused["objects/NetworkPolicy/default/wide"]


async def test_it_is_tried_again_when_another_goes(world: World) -> None:
    await prepared(world)
    await world.tell("NetworkPolicy", "first", policy("first", 8))
    await world.tell("NetworkPolicy", "second", policy("second", 9, first=3000))
    assert list(world.control.refused) == ["objects/NetworkPolicy/default/second"]
    await world.tell("NetworkPolicy", "first", None)
    await world.tell("NetworkPolicy", "small", None)
    assert world.control.refused == {}


async def test_tables_grow_first(world: World) -> None:
    await prepared(world)
    limit(world, policies=1000, addresses=1000)
    await world.tell("NetworkPolicy", "large", policy("large", 40, cidrs=12))
    assert world.control.refused == {}
    assert sorted(set(world.plane.grown)) == ["addresses", "policies"]
    assert len(world.plane.policies.entries) > 40


def large(world: World, ports: int, cidrs: int = 1) -> list[tuple[str, int, bool]]:
    """What would be needed of each table, and whether there is so much."""
    needs = world.listener.tried({"objects/NetworkPolicy/default/large": policy("large", ports, cidrs)})
    return [(need.table, need.needed, not need.problem) for need in needs]


async def test_what_is_asked_first_is_what_comes_of_it(world: World) -> None:
    before, addresses = await prepared(world), dict(world.plane.addresses.entries)
    small, wide, long = large(world, 5), large(world, 1, cidrs=30), large(world, 40)
    assert [fits for *_, fits in (*small, *wide, *long)] == [True, True, False, False, True, False]
    assert world.plane.policies.entries == before and world.plane.addresses.entries == addresses
    assert world.control.settle() == 0
    await world.tell("NetworkPolicy", "large", policy("large", 40))
    assert f"{long[1][1]} needed" in world.control.refused["objects/NetworkPolicy/default/large"]
    await world.tell("NetworkPolicy", "large", policy("large", 5))
    assert [need for _, need, _ in small] == [
        len(world.plane.addresses.entries),
        len(world.plane.policies.entries),
    ]


async def test_a_group_of_prefixes_is_asked_about_with_the_policy_that_names_it(world: World) -> None:
    await prepared(world)
    group = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "partners"},
        "spec": {"externalCIDRs": [f"198.51.{n}.0/24" for n in range(30)]},
    }
    naming = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "naming", "namespace": "default"},
        "spec": {"endpointSelector": {}, "ingress": [{"fromCIDRSet": [{"cidrGroupRef": "partners"}]}]},
    }
    asked = {"objects/CiliumCIDRGroup/_/partners": group}
    assert not any(need.problem for need in world.listener.tried(asked))
    both = asked | {"objects/CiliumNetworkPolicy/default/naming": naming}
    assert all(need.problem for need in world.listener.tried(both))


async def test_a_policy_in_place_of_another_needs_room_for_both_while_they_change(world: World) -> None:
    await prepared(world)
    await world.tell("NetworkPolicy", "large", policy("large", 8))
    before = dict(world.plane.policies.entries)
    await world.tell("NetworkPolicy", "large", policy("large", 8, first=3000))
    assert not world.control.broken
    assert world.plane.policies.entries == before
    assert "objects/NetworkPolicy/default/large" in world.control.refused


async def test_what_an_earlier_agent_left_takes_no_room_from_what_is_to_be(world: World) -> None:
    await prepared(world)
    await world.tell("NetworkPolicy", "former", policy("former", 8))
    key = "objects/NetworkPolicy/default/"
    await world.store.delete(f"{key}former")
    await world.store.put(f"{key}new", msgspec.json.encode(policy("new", 8, first=3000)))
    await world.start_again()
    assert world.control.refused == {}
    assert not world.listener.problems and world.control.engine.policies == 2


async def test_what_the_kernel_refused_once_is_in_force_when_it_has_been_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepared(world)
    with monkeypatch.context() as patch:

        def fails(*_: object) -> None:
            raise failure(errno.EIO, "writing")

        patch.setattr(world.plane.policies, "write", fails)
        with pytest.raises(BpfError):
            await world.tell("NetworkPolicy", "small", policy("small", 3))
    world.control.reconcile()
    before = dict(world.plane.policies.entries)
    await world.tell("NetworkPolicy", "small", policy("small", 40))
    assert world.plane.policies.entries == before
    assert list(world.control.refused) == ["objects/NetworkPolicy/default/small"]


async def test_the_next_agent_refuses_a_change_and_knows_what_was_before(world: World) -> None:
    before = await prepared(world)
    await world.tell("NetworkPolicy", "small", policy("small", 40))
    for _ in range(2):
        await world.start_again()
        assert world.plane.policies.entries == before
        assert list(world.control.refused) == ["objects/NetworkPolicy/default/small"]
    await world.tell("NetworkPolicy", "small", policy("small", 3))
    assert world.control.refused == {}
    await world.start_again()
    assert len(world.plane.policies.entries) == len(before) + 2
    assert not list((world.folder / "last-good").iterdir())


async def test_a_refused_change_that_is_deleted_is_gone_for_the_next_agent_too(world: World) -> None:
    await prepared(world)
    await world.tell("NetworkPolicy", "small", policy("small", 40))
    await world.start_again()
    await world.tell("NetworkPolicy", "small", None)
    gone = dict(world.plane.policies.entries)
    assert world.control.refused == {}
    await world.start_again()
    assert world.plane.policies.entries == gone
    assert not list((world.folder / "last-good").iterdir())


async def test_the_next_agent_refuses_it_again(world: World) -> None:
    before = await prepared(world)
    await world.tell("NetworkPolicy", "large", policy("large", 40))
    await world.start_again()
    assert world.plane.policies.entries == before
    assert list(world.control.refused) == ["objects/NetworkPolicy/default/large"]
