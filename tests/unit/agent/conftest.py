from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from axoneme.agent.config import LoadBalancingConfig
from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointTable
from axoneme.agent.failsafe import failsafe
from axoneme.agent.hostpolicies import HostPolicies
from axoneme.agent.lastgood import LastGood
from axoneme.agent.listener import Listener
from axoneme.agent.names import Names
from axoneme.agent.pods import Attach, Attached, Link, Pods
from axoneme.agent.questions import Questions
from axoneme.agent.services import Services
from axoneme.datapath.schema import OBJECTS
from axoneme.identity.labels import LabelFilter
from axoneme.identity.names import NameCache, NameLimits
from axoneme.ipam.pools import AddressPools
from axoneme.model.state import NodeState, encode, node_key
from axoneme.policy.engine import Options, PolicyEngine
from axoneme.services.facts import NodeFacts
from axoneme.sources.identities import Identities
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Change, Store

from .fakes import FakeBalancer, FakeJournal, FakeLinks, FakePlane

NODE = NodeState("node1", ["172.31.0.1"], ["172.31.0.1"], ["10.244.1.0/24", "fd00:10:244:1::/64"])

FACTS = NodeFacts("node1", addresses=(ip_address("172.31.0.1"),))


class NoMachine:
    def node_changed(self, name: str, state: NodeState | None) -> None: ...


@dataclass
class World:
    """One agent without its process. ``start_again`` is a new one over what the last one left."""

    folder: Path
    store: Store
    plane: FakePlane
    links: FakeLinks
    name_limits: NameLimits = field(default_factory=NameLimits)
    #: The wall clock, and the addresses that have connections.
    now: float = 1e9
    used: frozenset[bytes] = frozenset()
    client: str = ""

    async def start_again(self) -> int:
        """How many entries it writes."""
        known = self.journal.known if hasattr(self, "journal") else {}
        self.journal = FakeJournal()
        self.journal.known.update(known)
        last_good = LastGood(self.folder / "last-good")
        self.cache = NameCache(self.name_limits)
        self.control = Control(
            "node1",
            PolicyEngine(Options()),
            self.plane,  # type: ignore[arg-type]
            self.journal,
            versions=last_good,
            names=self.cache,
        )
        self.endpoints = EndpointTable(self.folder / "endpoints", self.plane)  # type: ignore[arg-type]
        self.endpoints.restore()
        self.pools = AddressPools(map(ip_network, NODE.pod_cidrs))
        self.balancer = FakeBalancer()
        self.services = Services(FACTS, LoadBalancingConfig(), self.balancer)  # type: ignore[arg-type]
        self.pods = Pods(
            "node1",
            "default",
            self.store,
            self.control,
            self.endpoints,
            Identities(self.store, "node1"),
            LabelFilter(),
            Link(1500, 1450),
            self.services,
        )
        self.listener = Listener(
            "node1",
            "default",
            self.control,
            NoMachine(),  # type: ignore[arg-type]
            self.pods,
            self.services,
            last_good,
            HostPolicies(
                self.control,
                self.plane,  # type: ignore[arg-type]
                self.folder / "host-policies.json",
                failsafe([], []),
                60,
                "default",
            ),
        )
        self.names = Names(
            self.control,
            self.endpoints,
            self.cache,
            self.folder,
            (4, 6),
            lambda addresses: [addresses & self.used],
            lambda: self.now,
        )
        self.questions = Questions(self.control, self.endpoints, (4, 6), self.names)
        await self.store.put(node_key("node1"), encode(NODE))
        self.pods.begin(self.pools)
        for prefix in ("objects/", "state/"):
            entries = (await self.store.list(prefix)).entries
            await self.listener.take([Change(e.key, e.value, e.revision) for e in entries])
        self.names.restore()
        written = self.control.start()
        await self.pods.introduce()
        self.services.settle()
        self.endpoints.sweep()
        await self.pods.confirm_restored()
        return written

    async def tell(self, kind: str, name: str, value: Any, namespace: str = "default") -> None:
        """An object appears, changes, or is gone (None): in the store, and at the listener."""
        key = f"objects/{kind}/{namespace}/{name}"
        if value is None:
            await self.store.delete(key)
        else:
            value = msgspec.json.encode(value)
            await self.store.put(key, value)
        await self.listener.take([Change(key, value, 1)])
        self.control.settle()
        self.services.settle()

    async def pod(self, name: str, **labels: str) -> None:
        metadata = {"name": name, "namespace": "default", "labels": labels}
        ports = [{"name": "http", "containerPort": 8080}]
        await self.tell("Pod", name, {"metadata": metadata, "spec": {"containers": [{"ports": ports}]}})

    async def attach(self, name: str) -> Attached:
        netns = self.folder / f"netns-{name}"
        netns.touch()
        return await self.pods.attach(Attach(f"container-{name}", str(netns), "eth0", "default", name))

    def traces(self) -> dict[str, Any]:
        """All that pods leave somewhere."""
        return {
            "links": dict(self.links.there),
            "endpoints": dict(self.plane.endpoints.entries),
            "policies": dict(self.plane.policies.entries),
            "records": sorted(path.name for path in (self.folder / "endpoints").iterdir()),
            "addresses": {version: pool.used for version, pool in self.pools.pools.items()},
        }

    async def published(self) -> list[str]:
        """Keys of the shared state that are there for pods of this node."""
        prefixes = ("state/endpoints/", "state/identities/holds/")
        return [entry.key for prefix in prefixes for entry in (await self.store.list(prefix)).entries]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    if not OBJECTS.is_dir():
        pytest.skip("needs the compiled datapath: make bpf")
    store = SqliteStore(tmp_path / "store.db")
    made = World(tmp_path, store, FakePlane(), FakeLinks(monkeypatch))
    await made.start_again()
    yield made
    await store.close()
