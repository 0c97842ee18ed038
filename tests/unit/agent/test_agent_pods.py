"""Pods come, change and go; whatever fails on the way leaves nothing behind and opens nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from axoneme.agent.pods import Attach, Detach
from axoneme.rpc import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE, RpcError
from axoneme.sources.store import Unavailable

from .conftest import World

CLOSED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"app": "web"}}},
}


async def test_a_pod_gets_addresses_identity_policy_and_link(world: World) -> None:
    await world.pod("web", app="web")
    attached = await world.attach("web")
    assert [each.address for each in attached.addresses] == ["10.244.1.2", "fd00:10:244:1::2"]
    assert (
        world.plane.identity_of("10.244.1.2")
        == attached.identity
        == world.plane.identity_of("fd00:10:244:1::2")
    )
    assert world.plane.attached == list(world.links.there.values())
    assert world.links.connected == {attached.host_interface}
    assert "state/endpoints/node1/1" in await world.published()
    assert world.plane.policies.entries, "policy stands before anything passes"


async def test_the_same_labels_have_the_same_identity(world: World) -> None:
    for name, app in (("a", "web"), ("b", "web"), ("c", "db")):
        await world.pod(name, app=app)
    a, b, c = [(await world.attach(name)).identity for name in "abc"]
    assert a == b != c


async def test_what_goes_leaves_nothing(world: World) -> None:
    before = world.traces()
    await world.pod("web", app="web")
    await world.attach("web")
    assert world.traces() != before
    assert await world.pods.detach(Detach("container-web", "eth0"))
    while world.links.there:  # removed in the background
        await asyncio.sleep(0)
    assert world.traces() == before
    assert await world.published() == []
    with pytest.raises(RpcError) as failure:
        await world.pods.detach(Detach("container-web", "eth0"))
    assert failure.value.code == NOT_FOUND


@pytest.mark.parametrize("step", ["create", "connect", "policies full", "store", "labels"])
async def test_a_failure_leaves_nothing(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.pod("web", app="web")
    before = world.traces()
    world.links.fails = step
    if step == "policies full":
        world.plane.policies.room = 0
    if step == "store":

        async def refuse(*_: Any) -> int:
            raise Unavailable("the store is away")

        monkeypatch.setattr(world.store, "put", refuse)
    if step == "labels":
        await world.store.put("objects/Pod/default/web", b'{"metadata": {"labels": {"app": 1}}}')
    with pytest.raises((RpcError, OSError, Unavailable)):
        await world.attach("web")
    monkeypatch.undo()
    after = world.traces()
    assert {**after, "links": {}} == {**before, "links": {}}
    assert await world.published() == []


async def test_no_pod_comes_while_the_kernel_lacks_policies_and_then_it_does(world: World) -> None:
    await world.pod("web", app="web")
    world.plane.policies.room = 0
    with pytest.raises(RpcError) as failure:
        await world.attach("web")
    assert failure.value.code == UNAVAILABLE
    world.plane.policies.room = 1000
    world.control.reconcile()
    assert not world.control.broken
    await world.attach("web")


async def test_who_asks_for_nonsense_is_told(world: World) -> None:
    with pytest.raises(RpcError, match="there is no Pod default/nobody") as failure:
        await world.attach("nobody")
    assert failure.value.code == NOT_FOUND
    with pytest.raises(RpcError, match="netns: /nowhere does not exist") as failure:
        await world.pods.attach(Attach("c", "/nowhere", "eth0", "default", "web"))
    assert failure.value.code == INVALID
    await world.pod("web", app="web")
    await world.attach("web")
    with pytest.raises(RpcError, match="detach it first") as failure:
        await world.attach("web")
    assert failure.value.code == CONFLICT
    netns = str(world.folder / "netns-web")
    with pytest.raises(RpcError, match="it is another"):
        await world.store.put("objects/Pod/default/web", b'{"metadata": {"uid": "new"}}')
        await world.pods.attach(Attach("d", netns, "eth0", "default", "web", "old"))


async def test_new_labels_are_a_new_identity_with_its_policy_first(world: World) -> None:
    await world.pod("web", app="other")
    before = (await world.attach("web")).identity
    await world.tell("NetworkPolicy", "closed", CLOSED)
    await world.pod("web", app="web")
    after = world.plane.identity_of("10.244.1.2")
    assert after not in (None, before)
    assert world.control.engine.enforced(after, 0)  # type: ignore[arg-type]
    assert not any(int.from_bytes(key[4:8], "little") == before for key in world.plane.policies.entries)
    holds = [key for key in await world.published() if "holds" in key]
    assert holds == [f"state/identities/holds/node1/{after}"]


async def test_a_namespaces_labels_are_part_of_the_identity(world: World) -> None:
    await world.pod("web", app="web")
    before = (await world.attach("web")).identity
    namespace = {"metadata": {"name": "default", "labels": {"team": "red"}}}
    await world.tell("Namespace", "default", namespace, namespace="_")
    assert world.plane.identity_of("10.244.1.2") != before


async def test_a_restart_writes_nothing_when_nothing_has_changed(world: World) -> None:
    await world.tell("NetworkPolicy", "closed", CLOSED)
    await world.pod("web", app="web")
    await world.attach("web")
    before, published = world.traces(), await world.published()
    assert await world.start_again() == 0
    assert world.traces() == before
    assert await world.published() == published


async def test_a_restart_sees_what_has_changed_meanwhile(world: World) -> None:
    await world.pod("web", app="other")
    before = (await world.attach("web")).identity
    value = b'{"metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}}}'
    await world.store.put("objects/Pod/default/web", value)
    await world.start_again()
    await world.pods.refresh()
    assert world.plane.identity_of("10.244.1.2") not in (None, before)


async def test_a_pod_is_not_given_another_policy_before_all_are_known(world: World) -> None:
    """At a start objects come in any order; labels must wait until every policy has been heard."""
    await world.pod("web", app="other")
    before = (await world.attach("web")).identity
    world.pods._confirmed = False
    await world.pod("web", app="web")
    assert world.plane.identity_of("10.244.1.2") == before


async def test_what_an_agent_killed_half_way_left_is_swept(world: World) -> None:
    await world.pod("web", app="web")
    before = world.traces()
    attached = await world.attach("web")
    for path in (world.folder / "endpoints").iterdir():
        path.unlink()  # as if killed before it wrote the record
    await world.start_again()
    assert attached.host_interface not in world.links.there
    assert world.traces() == before
    assert await world.published() == []


async def test_many_at_once(world: World) -> None:
    names = [f"pod-{number}" for number in range(30)]
    for name in names:
        await world.pod(name, app=name[-1])
    found = await asyncio.gather(*map(world.attach, names))
    assert len({each.endpoint_id for each in found}) == len({each.host_interface for each in found}) == 30
    assert len({address.address for each in found for address in each.addresses}) == 60
