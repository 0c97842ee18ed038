"""The announcer on a real store, with a kernel of Python: which entries there are, and for how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from axoneme.agent import announcer as module
from axoneme.agent.announcer import LEASES, NODE_OBJECTS, POLICIES, SERVICES, SLICES, Announcer
from axoneme.agent.config import AnnouncementConfig
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.plane import Address, unpacked
from axoneme.net.announcing import Device
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Change
from axoneme.sources.tenure import boot_time

QUICK = AnnouncementConfig(lease_duration=1.0, renew=0.2, retry=0.1, release_on_stop=True)
KEY = np.dtype([("address", "u1", (16,)), ("ifindex", "u4")])
VALUE = np.dtype([("until", "u8"), ("mac", "u1", (6,)), ("unused", "u1", (2,))])
LEASE = f"{LEASES}cilium-l2announce-default.web"


class Table:
    """What stands in the kernel: until when (seconds), by address and device."""

    key, value = KEY, VALUE

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int], float] = {}
        self.refuses = False

    def adopt(self) -> tuple[Any, Any]:
        return np.zeros(0, KEY), np.zeros(0, VALUE)

    def write(self, keys: Any, values: Any) -> None:
        if self.refuses:
            raise BpfError(7, "full")
        for key, value in zip(keys, values, strict=True):
            self.entries[self._place(key)] = int(value["until"]) / 1e9

    def delete(self, keys: Any) -> None:
        for key in keys:
            del self.entries[self._place(key)]

    def _place(self, key: Any) -> tuple[str, int]:
        return str(unpacked(bytes(key["address"]))), int(key["ifindex"])

    @property
    def addresses(self) -> set[str]:
        return {address for address, _ in self.entries}


class Plane:
    def __init__(self) -> None:
        self.announced = Table()


class Silent:
    """In the place of sockets: what was said, and which groups were joined."""

    said: list[str]
    joined: set[str]

    def __init__(self) -> None:
        Silent.said, Silent.joined = [], set()

    def send(self, device: str, frame: bytes) -> None:
        Silent.said.append(device)

    def join(self, wanted: Iterable[tuple[Address, int]]) -> list[str]:
        Silent.joined = {str(address) for address, _ in wanted if address.version == 6}
        return []

    def close(self) -> None:
        pass


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(module, "Speaker", Silent)
    monkeypatch.setattr(module, "Groups", Silent)
    monkeypatch.setattr(module, "devices", lambda names: {name: Device(2, bytes(6)) for name in names})
    made = SqliteStore(tmp_path / "store.db")
    yield made
    await made.close()


class Node:
    def __init__(self, name: str, store: SqliteStore, config: AnnouncementConfig = QUICK) -> None:
        self.table = Table()
        self.problems: dict[str, str] = {}
        plane = Plane()
        plane.announced = self.table
        self.announcer = Announcer(name, store, plane, config, ["eth0"], (4, 6), self.problems)  # type: ignore[arg-type]


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(node.announcer.run()) for node in nodes]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(true: Callable[[], object] | Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while True:
            found = true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.02)


async def put(store: SqliteStore, key: str, **fields: object) -> None:
    name = key.rpartition("/")[2]
    document = {"metadata": {"name": name, **fields.pop("metadata", {})}, **fields}  # type: ignore[dict-item]
    await store.put(key, json.dumps(document, separators=(",", ":")).encode())


async def policy(store: SqliteStore, **spec: object) -> None:
    await put(store, f"{POLICIES}_/all", spec={"loadBalancerIPs": True, **spec})


async def service(store: SqliteStore, *addresses: str, **spec: object) -> None:
    ingress = [{"ip": address} for address in addresses]
    about = {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}
    await put(store, f"{SERVICES}default/web", spec=about, status={"loadBalancer": {"ingress": ingress}})


async def endpoint(store: SqliteStore, node: str, **conditions: bool) -> None:
    await put(
        store,
        f"{SLICES}default/web-1",
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.1.1"], "nodeName": node, "conditions": conditions}],
    )


async def test_entries_follow_the_service_and_last_as_long_as_the_lease(store: SqliteStore) -> None:
    node = Node("one", store)
    async with running(node):
        await service(store, "10.0.0.1", "fd00::1")
        await policy(store)
        await until(lambda: node.table.addresses == {"10.0.0.1", "fd00::1"})
        assert Silent.joined == {"fd00::1"}
        first = max(node.table.entries.values())
        assert first <= boot_time() + QUICK.lease_duration
        await until(lambda: min(node.table.entries.values()) > first + 1)
        lease = await store.get(LEASE)
        assert lease is not None
        assert json.loads(lease.value)["spec"]["holderIdentity"] == "one"
        await service(store, "10.0.0.2")
        await until(lambda: node.table.addresses == {"10.0.0.2"})
        assert not Silent.joined
        await store.delete(f"{POLICIES}_/all")
        await until(lambda: not node.table.entries)

        async def given_back() -> bool:
            return await store.get(LEASE) is None

        await until(given_back)


async def test_one_of_many_announces_and_another_when_it_ends(store: SqliteStore) -> None:
    nodes = [Node(name, store) for name in ("one", "two", "three")]
    await service(store, "10.0.0.1")
    await policy(store)
    async with running(*nodes) as tasks:
        await until(lambda: any(node.table.entries for node in nodes))
        (first,) = (number for number, node in enumerate(nodes) if node.table.entries)
        await asyncio.sleep(0.5)
        assert sum(bool(node.table.entries) for node in nodes) == 1
        tasks[first].cancel()
        others = [node for number, node in enumerate(nodes) if number != first]
        await until(lambda: any(node.table.entries for node in others))
        assert not nodes[first].table.entries


async def test_one_that_keeps_its_leases_at_its_end_is_succeeded_by_itself(store: SqliteStore) -> None:
    config = AnnouncementConfig(release_on_stop=False)
    await service(store, "10.0.0.1")
    await policy(store)
    former = Node("one", store, config)
    async with running(former):
        await until(lambda: former.table.entries)
    assert former.table.entries
    before = await store.get(LEASE)
    assert before is not None
    other, successor = Node("two", store, config), Node("one", store, config)
    async with running(other, successor):
        await until(lambda: successor.table.entries)
        assert not other.table.entries


async def test_a_lease_that_somebody_deletes_is_taken_again(store: SqliteStore) -> None:
    node = Node("one", store)
    await service(store, "10.0.0.1")
    await policy(store)
    async with running(node):
        await until(lambda: node.table.entries)
        await store.delete(LEASE)

        async def again() -> bool:
            return await store.get(LEASE) is not None

        await until(again)
        await until(lambda: node.table.entries)


async def test_local_services_go_where_the_endpoint_is(store: SqliteStore) -> None:
    one, two = Node("one", store), Node("two", store)
    await service(store, "10.0.0.1", externalTrafficPolicy="Local")
    await policy(store)
    await endpoint(store, "one")
    async with running(one, two):
        await until(lambda: one.table.entries)
        await endpoint(store, "two", ready=False, serving=True, terminating=True)
        await until(lambda: two.table.entries and not one.table.entries)
        await endpoint(store, "two", ready=False, serving=False)
        await until(lambda: not two.table.entries and not one.table.entries)


async def test_nodes_are_selected_by_the_labels_of_their_objects(store: SqliteStore) -> None:
    one, other = Node("one", store), Node("on", store)
    await put(store, f"{NODE_OBJECTS}one", metadata={"labels": {"role": "edge"}})
    await service(store, "10.0.0.1")
    await policy(store, nodeSelector={"matchLabels": {"role": "edge"}})
    async with running(one, other):
        await until(lambda: one.table.entries)
        await put(store, f"{NODE_OBJECTS}on", metadata={"labels": {"role": "edge"}})
        await put(store, f"{NODE_OBJECTS}one", metadata={"labels": {}})
        await until(lambda: other.table.entries and not one.table.entries)


async def test_what_cannot_be_read_stays_as_it_was_and_is_told(store: SqliteStore) -> None:
    node = Node("one", store)
    await service(store, "10.0.0.1")
    await policy(store)
    async with running(node):
        await until(lambda: node.table.entries)
        await policy(store, interfaces=["eth["])
        await until(lambda: "spec.interfaces[0]" in node.problems.get(f"{POLICIES}_/all", ""))
        assert node.table.entries
        await policy(store, interfaces=["wlan"])
        await until(lambda: not node.table.entries)
        assert not node.problems
    node.announcer.hear([Change(f"{SERVICES}default/web", b'{"LoadBalancer"', 1)])
    assert not node.problems, "who follows services tells of them"


async def test_what_the_kernel_refuses_is_tried_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.1)
    node = Node("one", store)
    node.table.refuses = True
    await service(store, "10.0.0.1")
    await policy(store)
    async with running(node):

        async def held() -> bool:
            return await store.get(LEASE) is not None

        await until(held)
        assert not node.table.entries
        node.table.refuses = False
        await until(lambda: node.table.addresses == {str(ip_address("10.0.0.1"))})
