"""A stand-in for the agent and the flow server of a node: plugs pods in, and does nothing else.

It lets the sandbox be tested alone: every pod reaches every pod, over plain routes.

    fake_agent.py agent --config FILE
    fake_agent.py flows --config FILE
"""

from __future__ import annotations

import asyncio
import re
import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec
import yaml

from axoneme.model.state import NodeState, encode, node_key
from axoneme.net import pods
from axoneme.net.commands import ip
from axoneme.rpc import CONFLICT, NOT_FOUND, NoParams, RpcError, Server
from axoneme.sources.sqlite import SqliteStore


class StoreConfig(msgspec.Struct):
    path: str


class Config(msgspec.Struct):
    """As much of an agent's configuration as is needed here."""

    node: str
    directory: str
    store: StoreConfig
    families: list[str]
    underlay_addresses: list[str]


class Attach(msgspec.Struct):
    container_id: str
    netns: str
    ifname: str
    namespace: str
    pod: str
    uid: str


class Detach(msgspec.Struct):
    container_id: str
    ifname: str


def pod_ranges(number: int) -> tuple[IPv4Network, IPv6Network]:
    return IPv4Network(f"10.244.{number}.0/24"), IPv6Network(f"fd00:10:244:{number}::/64")


class FakeAgent:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._number = int(re.sub(r"\D", "", config.node))
        self._state = Path(config.directory) / "state" / "fake"
        self._state.mkdir(parents=True, exist_ok=True)

    async def publish(self) -> None:
        ranges = [str(each) for each in pod_ranges(self._number) if self._has(each)]
        store = SqliteStore(Path(self._config.store.path))
        addresses = self._config.underlay_addresses
        state = NodeState(
            self._config.node, addresses=addresses, internal_addresses=addresses, pod_cidrs=ranges
        )
        await store.put(node_key(self._config.node), encode(state))
        await store.close()

    def route_other_nodes(self) -> None:
        routes = []
        for other in range(1, 9):
            if other != self._number:
                four, six = pod_ranges(other)
                routes += [f"route replace {four} via 172.31.0.{other}"] if self._has(four) else []
                routes += [f"route replace {six} via fd00:a0::{other}"] if self._has(six) else []
        ip(routes)

    async def attach(self, wish: Attach) -> dict[str, object]:
        host = pods.host_interface(wish.container_id, wish.ifname)
        if pods.existing([host]):
            raise RpcError(CONFLICT, f"{wish.container_id} is attached already")
        used = {int(path.read_text()) for path in self._state.iterdir()}
        place = next(each for each in range(10, 250) if each not in used)
        (self._state / host).write_text(str(place))
        addresses = tuple(each[place] for each in pod_ranges(self._number) if self._has(each))
        mac = pods.mac_of(wish.container_id, wish.ifname)
        link = pods.PodLink(Path(wish.netns), wish.ifname, host, addresses, mac, 1500, 1450)
        pods.create(link)
        pods.connect(link)
        return {
            "addresses": [
                {"address": str(each), "prefix_length": each.max_prefixlen, "gateway": "169.254.1.1"}
                for each in addresses
            ],
            "mac": mac,
            "mtu": 1500,
            "host_interface": host,
            "identity": 256,
            "endpoint_id": place,
        }

    async def detach(self, wish: Detach) -> bool:
        host = pods.host_interface(wish.container_id, wish.ifname)
        (self._state / host).unlink(missing_ok=True)
        if not pods.remove(host):
            raise RpcError(NOT_FOUND, f"{wish.container_id} is not attached")
        return True

    def _has(self, network: IPv4Network | IPv6Network) -> bool:
        return f"ipv{network.version}" in self._config.families


async def _status(_: NoParams) -> dict[str, str]:
    return {"state": "fake"}


async def agent(config: Config) -> None:
    fake = FakeAgent(config)
    await fake.publish()
    fake.route_other_nodes()
    server = Server(Path(config.directory) / "agent.sock")
    server.method("status", NoParams, _status)
    server.method("endpoint.attach", Attach, fake.attach)
    server.method("endpoint.detach", Detach, fake.detach)
    await server.serve()


async def flows(config: Config) -> None:
    server = Server(Path(config.directory) / "flows.sock")
    server.method("status", NoParams, _status)
    await server.serve()


if __name__ == "__main__":
    found = msgspec.convert(yaml.safe_load(Path(sys.argv[3]).read_text()), Config)
    asyncio.run({"agent": agent, "flows": flows}[sys.argv[1]](found))
