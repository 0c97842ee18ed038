"""The controller of addresses on a real store: statuses are written, once, by one."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from axoneme.operator.addresses import AddressController
from axoneme.operator.config import OperatorConfig, load
from axoneme.operator.leadership import LEADERS
from axoneme.operator.main import operate
from axoneme.sources.config import ConfigError, StoreConfig
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.tenure import Timing

POOL = "objects/CiliumLoadBalancerIPPool/_/blue"
SERVICE = "objects/Service/default/"
QUICK = Timing(lease_duration=1.0, renew=0.2, retry=0.1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.db")
    yield made
    await made.close()


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.02)


def pool(*cidrs: str, name: str = "blue", **spec: object) -> bytes:
    blocks = [{"cidr": cidr} for cidr in cidrs]
    kind = {"apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool"}
    return json.dumps({**kind, "metadata": {"name": name}, "spec": {"blocks": blocks} | spec}).encode()


def service(name: str, **spec: object) -> bytes:
    wanted = {"type": "LoadBalancer", "ports": [{"port": 80}]} | spec
    return json.dumps(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted},
        separators=(",", ":"),
    ).encode()


async def status(store: SqliteStore, key: str) -> dict[str, Any]:
    entry = await store.get(key)
    assert entry is not None
    found: dict[str, Any] = json.loads(entry.value).get("status", {})
    return found


async def addresses(store: SqliteStore, name: str) -> list[str]:
    balancer = (await status(store, SERVICE + name)).get("loadBalancer", {})
    return [each["ip"] for each in balancer.get("ingress", [])]


async def has(store: SqliteStore, name: str, *wanted: str) -> None:
    async def holds() -> bool:
        return await addresses(store, name) == list(wanted)

    await until(holds)


def controller(store: SqliteStore) -> AddressController:
    return AddressController(store, lambda: "2026-01-01T00:00:00Z")


async def test_services_get_addresses_and_lose_them_with_the_pool(store: SqliteStore) -> None:
    async with running(controller(store).run()):
        await store.put(SERVICE + "web", service("web"))
        await store.put(SERVICE + "inside", service("inside", type="ClusterIP"))
        await store.put(POOL, pool("10.0.0.0/30"))
        await has(store, "web", "10.0.0.0")
        told = await status(store, SERVICE + "web")
        assert told["loadBalancer"]["ingress"] == [{"ip": "10.0.0.0", "ipMode": "VIP"}]
        assert told["conditions"][0]["type"] == "cilium.io/IPAMRequestSatisfied"
        assert await status(store, SERVICE + "inside") == {}
        counts = {
            each["type"]: each["message"]
            for each in (await status(store, POOL))["conditions"]
            if "message" in each
        }
        assert counts["cilium.io/IPsAvailable"] == "3"
        await store.delete(POOL)
        await has(store, "web")
        assert (await status(store, SERVICE + "web"))["conditions"][0]["reason"] == "no_pool"


async def test_nothing_is_written_twice_and_a_successor_changes_nothing(store: SqliteStore) -> None:
    await store.put(POOL, pool("10.0.0.0/28"))
    for name in ("c", "a", "b"):
        await store.put(SERVICE + name, service(name))
    async with running(controller(store).run()):
        await has(store, "c", "10.0.0.2")
        await has(store, "a", "10.0.0.0")
    async with running(controller(store).run()):
        before = (await store.list("objects/")).entries
        await store.put(SERVICE + "d", service("d"))
        await has(store, "d", "10.0.0.3")
        after = {entry.key: entry for entry in (await store.list("objects/")).entries}
        assert all(after[entry.key] == entry for entry in before if entry.key.startswith(SERVICE))


async def test_what_somebody_else_writes_meanwhile_is_not_lost(store: SqliteStore) -> None:
    await store.put(POOL, pool("10.0.0.0/24"))
    async with running(controller(store).run()):
        for number in range(30):  # while statuses are written
            await store.put(
                SERVICE + f"s{number % 10}", service(f"s{number % 10}", sessionAffinity="ClientIP")
            )

        async def all_have() -> bool:
            given = [await addresses(store, f"s{number}") for number in range(10)]
            return all(given) and len({each for one in given for each in one}) == 10

        await until(all_have)
        for number in range(10):
            entry = await store.get(SERVICE + f"s{number}")
            assert entry is not None
            assert json.loads(entry.value)["spec"]["sessionAffinity"] == "ClientIP"


async def test_what_cannot_be_read_takes_nothing_away(store: SqliteStore) -> None:
    await store.put(POOL, pool("10.0.0.0/24"))
    await store.put(SERVICE + "web", service("web"))
    async with running(controller(store).run()):
        await has(store, "web", "10.0.0.0")
        await store.put(POOL, pool("nonsense"))
        await store.put(SERVICE + "new", service("new"))
        await has(store, "new", "10.0.0.1")  # by what the pool said before
    async with running(controller(store).run()):
        await store.put(POOL + "2", pool("10.0.1.0/24", name="blue2"))
        await store.put(SERVICE + "newer", service("newer"))
        await asyncio.sleep(0.3)
        assert await addresses(store, "web") == ["10.0.0.0"]
        await store.put(POOL, pool("10.0.0.0/24"))
        await has(store, "newer", "10.0.0.2")
        assert await addresses(store, "web") == ["10.0.0.0"]


async def test_of_many_operators_one_works_and_another_takes_over(store: SqliteStore) -> None:
    await store.put(POOL, pool("10.0.0.0/24"))
    configs = [OperatorConfig(name, StoreConfig(path="-"), leadership=QUICK) for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(operate(configs[0], store)))
        await until(lambda: store.get(LEADERS + "operator"))
        await stack.enter_async_context(running(operate(configs[1], store)))
        await store.put(SERVICE + "web", service("web"))
        await has(store, "web", "10.0.0.0")
        entry = await store.get(LEADERS + "operator")
        assert entry is not None
        assert json.loads(entry.value) == {"name": "one"}
        first.cancel()
        await store.put(SERVICE + "new", service("new"))
        await has(store, "new", "10.0.0.1")
        entry = await store.get(LEADERS + "operator")
        assert entry is not None
        assert json.loads(entry.value) == {"name": "two"}


async def test_who_has_lost_his_office_writes_nothing(store: SqliteStore) -> None:
    await store.put(POOL, pool("10.0.0.0/24"))
    office = await store.put(LEADERS + "operator", b"me")
    await store.put(LEADERS + "operator", b"another")
    deposed = AddressController(store, lambda: "now", fence={LEADERS + "operator": office})
    async with running(deposed.run()) as work:
        await store.put(SERVICE + "web", service("web"))
        done, _ = await asyncio.wait([work], timeout=20)
        assert done
        assert "Conflict" in repr(work.exception())
    assert await addresses(store, "web") == []


async def test_the_process_runs_until_it_is_told_to_stop(store: SqliteStore, tmp_path: Path) -> None:
    file = tmp_path / "operator.yaml"
    file.write_text(f"name: one\nstore: {{path: {tmp_path / 'store.db'}}}\n")
    await store.put(POOL, pool("10.0.0.0/24"))
    await store.put(SERVICE + "web", service("web"))
    command = ("-m", "axoneme.cli", "operator", "--config", str(file))
    process = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        await has(store, "web", "10.0.0.0")
        process.terminate()
        assert await process.wait() == 0
        assert await store.get(LEADERS + "operator") is None, "another may lead at once"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_the_configuration_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "operator.yaml"
    file.write_text("name: one\nstore: {path: /tmp/x}\nleadership: {renew: 30}\n")
    with pytest.raises(ConfigError, match=r"operator\.yaml.*retry <= renew < lease_duration"):
        load(file)
    file.write_text("name: one\nstore: {}\n")
    with pytest.raises(ConfigError, match=r"store\.path is missing"):
        load(file)
    file.write_text("name: one\nstore: {path: /tmp/x}\nfamilies: [ipv6]\n")
    assert load(file).versions == (6,)
