"""Containers of podman and pods of containerd come, are killed and go, while the agent dies again and again.

Nothing of it may be left: no link, no entry in the kernel, no record, no object in the store, no identity,
no address (the node has few).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from containerd import Containerd
from machine import machine, missing, network, plugin
from one_node import Node, node
from podman import Podman
from test_cni import ONLY_FRIENDS, links

from axoneme.cni.request import ANNOTATIONS
from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.sources.identities import Collector
from axoneme.sources.sqlite import SqliteStore

lacking = missing("podman", "runc", "containerd")
pytestmark = pytest.mark.skipif(bool(lacking), reason=lacking)
ROLES = ("web", "friend", "stranger")
#: Seconds that a container waits for an agent which is killed and started on a busy machine.
PATIENCE = 60


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Node, Podman, Containerd]]:
    pools = [
        {"cidr": "10.244.0.0/16", "node_prefix_length": 28},
        {"cidr": "fd00:10:244::/56", "node_prefix_length": 64},
    ]
    with ExitStack() as stack:
        agent = stack.enter_context(node(cni_socket="FOLDER/cni.sock", cluster_pool=pools))
        agent.start()
        ours = {"socket": agent.folder / "cni.sock", "timeout": PATIENCE}
        networks = {
            "00-axoneme.conflist": network("axoneme", plugin(**ours, capabilities={ANNOTATIONS: True})),
            **{f"{role}.conflist": network(role, plugin(**ours, labels={"app": role})) for role in ROLES},
        }
        place = stack.enter_context(machine(agent.namespace, "churn", networks))
        podman, containerd = Podman(place), Containerd(place)
        stack.callback(podman.close)
        stack.callback(containerd.close)
        yield agent, podman, containerd


Step = Callable[[], None]


def lives_of(chance: random.Random, names: list[str], steps: Callable[[str], list[Step]]) -> list[Step]:
    """The steps of all lives, mixed; at most four containers live at a time."""
    waiting, living, mixed = [steps(name) for name in names], list[list[Step]](), list[Step]()
    while waiting or living:
        if (waiting and len(living) < 4 and chance.random() < 0.6) or not living:
            living.append(waiting.pop(0))
        life = chance.choice(living)
        mixed.append(life.pop(0))
        if not life:
            living.remove(life)
    return mixed


def kernel(agent: Node) -> dict[str, set[bytes]]:
    """What the tables that know pods and identities hold."""
    schema = Schema.load()
    kinds = {
        "endpoints": ("address_key", "endpoint"),
        "addresses": ("prefix_key", "address"),
        "policies": ("policy_key", "policy_value"),
    }
    found = {}
    for name, (key, value) in kinds.items():
        path = agent.folder / "bpf" / "maps" / name
        with Table.pinned(path, schema.struct(key), schema.struct(value)) as table:
            keys, values = table.read_all()
            found[name] = {k.tobytes() + v.tobytes() for k, v in zip(keys, values, strict=True)}
    return found


def stored(path: Path) -> set[str]:
    """Keys of the shared state, once identities that nobody holds have had their time."""

    async def run() -> set[str]:
        store = SqliteStore(path)
        try:
            collector = Collector(store, 1.0)
            for later in (0, 10):
                await collector.collect(time.time() + later)
            return {entry.key for entry in (await store.list("")).entries}
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        (12, 2),
        pytest.param(
            100,
            10,
            marks=pytest.mark.skipif(
                not os.environ.get("AXONEME_TEST_ALL"), reason="takes minutes: make test-all"
            ),
        ),
    ],
)
def test_nothing_is_left_of_containers(
    world: tuple[Node, Podman, Containerd], count: int, kills: int
) -> None:
    agent, podman, containerd = world
    agent.write({"objects/NetworkPolicy/default/only-friends": ONLY_FRIENDS})
    while agent.client.call("status")["policies"] != 1:
        pass
    before, store_before = kernel(agent), stored(agent.store)
    chance = random.Random(count)

    def by_podman(name: str) -> list[Step]:
        role = chance.choice(ROLES)
        die: list[Step] = [lambda: podman.kill(name)] if chance.random() < 0.5 else []
        return [lambda: podman.start(name, role), *die, lambda: podman.remove(name)]

    def by_containerd(name: str) -> list[Step]:
        labels = {"axoneme.io/labels": f"app={chance.choice(ROLES)},number={name[1:]}"}
        die: list[Step] = [lambda: containerd.stop(name)] if chance.random() < 0.5 else []
        return [lambda: containerd.start(name, labels), *die, lambda: containerd.remove(name)]

    half = count // 2
    scripts = (
        lives_of(chance, [f"p{number}" for number in range(half)], by_podman),
        lives_of(chance, [f"c{number}" for number in range(half, count)], by_containerd),
    )
    # The agent dies whenever so many steps have been taken, in the middle of what happens then.
    total, taken = sum(map(len, scripts)), 0
    deaths = sorted(chance.sample(range(1, total), kills))
    moved = threading.Condition()

    def act(script: list[Step]) -> None:
        nonlocal taken
        try:
            for step in script:
                with moved:
                    taken += 1
                    moved.notify_all()
                step()
        except BaseException:
            with moved:
                taken = total  # nobody waits for the rest
                moved.notify_all()
            raise

    def haunt() -> int:
        for number in deaths:
            with moved:
                assert moved.wait_for(lambda number=number: taken >= number, timeout=600)
            time.sleep(chance.uniform(0, 0.3))  # where exactly it hits is left to chance
            agent.kill()
            agent.start()
        return len(deaths)

    with ThreadPoolExecutor() as threads:
        ghost = threads.submit(haunt)
        for actor in [threads.submit(act, script) for script in scripts]:
            actor.result()
        assert ghost.result() == kills

    assert podman.run("ps", "--all", "--quiet") == ""
    assert agent.client.call("endpoint.list") == []
    assert links(agent) == set()
    assert [path.name for path in (agent.folder / "state" / "endpoints").iterdir()] == ["axo_health.json"]
    assert list(podman.machine.path("/run/netns").iterdir()) == []
    assert kernel(agent) == before
    assert stored(agent.store) == store_before
