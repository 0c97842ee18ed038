"""The shared state: what any node, or anybody with access to the store, may have written there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from axoneme.agent.config import LoadBalancingConfig
from axoneme.agent.control import Control
from axoneme.agent.listener import Listener
from axoneme.agent.services import Services
from axoneme.flows import feed
from axoneme.flows.names import Names
from axoneme.model.state import EndpointState, IdentityState, NamedPortState, NodeState, encode
from axoneme.policy.engine import Options, PolicyEngine
from axoneme.services.facts import NodeFacts
from axoneme.sources.store import Change
from fuzz.target import Target
from unit.agent.fakes import FakeBalancer, FakeJournal, FakePlane

_POLICY = {
    "kind": "NetworkPolicy",
    "apiVersion": "networking.k8s.io/v1",
    "metadata": {"name": "p", "namespace": "b"},
    "spec": {
        "podSelector": {},
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]},
            {"from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
        ],
    },
}
_SERVICE = {"kind": "Service", "metadata": {"name": "s", "namespace": "b"}, "spec": {"selector": {"a": "b"}}}
_LABELS = ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=b", "k8s:io.cilium.k8s.policy.cluster=default"]
_NODE = NodeState("n", ["172.31.0.2", "fd00::2"], ["172.31.0.2"], ["10.1.0.0/24", "fd00:1::/64"])
_POD = EndpointState(
    id=1, node="n", identity=300, addresses=["10.1.0.2", "fd00:1::2"], namespace="b", pod="p", labels=_LABELS,
    named_ports=[NamedPortState("http", "TCP", 80)],
)  # fmt: skip
_GROUP = {"kind": "CiliumCIDRGroup", "metadata": {"name": "g"}, "spec": {"externalCIDRs": ["10.2.0.0/16"]}}


def _plain(value: Any) -> Any:
    return json.loads(encode(value))


def _seeds() -> Iterable[bytes]:
    changes = [
        ["state/nodes/n", _plain(_NODE)],
        ["state/identities/by-number/300", _plain(IdentityState(_LABELS))],
        ["state/endpoints/n/1", _plain(_POD)],
        ["objects/NetworkPolicy/b/p", _POLICY],
        ["objects/Service/b/s", _SERVICE],
        ["objects/CiliumCIDRGroup/_/g", _GROUP],
        ["state/endpoints/n/1", None],
        ["state/nodes/n", None],
    ]
    yield json.dumps(changes).encode()
    yield from (json.dumps([change]).encode() for change in changes)


def _changes(data: bytes) -> list[Change]:
    """Pairs of key and value; a value that is a text stands for itself, not for its JSON."""
    try:
        pairs = json.loads(data)
    except (ValueError, RecursionError):
        return [Change("state/endpoints/n/1", data, 1), Change("objects/NetworkPolicy/b/p", data, 1)]
    if not isinstance(pairs, list):
        return []
    found = []
    for pair in pairs:
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
            key, value = pair
            text = value if isinstance(value, str) else json.dumps(value)
            found.append(Change(key, None if value is None else text.encode("utf-8", "surrogatepass"), 1))
    return found


class _Nothing:
    """In place of the machine, its pods and its disk, which do not listen to what is fuzzed here."""

    outdated = False

    def node_changed(self, name: str, state: NodeState | None) -> None: ...

    def read(self, key: str, value: bytes | None) -> None: ...

    def accepted(self, key: str) -> None: ...

    def told(self, key: str, object: object) -> None: ...

    def unreadable(self, key: str) -> bytes | None:
        return None

    def inherited(self, key: str) -> bytes | None:
        return None

    async def namespace_changed(self, name: str, labels: object) -> None: ...

    async def pod_changed(self, namespace: str, name: str, value: bytes) -> None: ...


#: As in the process: of what is not one of these, nobody tells the agent.
_FOLLOWED = ("state/nodes/", "state/identities/by-number/", "state/endpoints/", "objects/")


def check_agent(data: bytes) -> None:
    """The agent takes a value or keeps what it had, and says so; its tables can always be written."""
    changes = [change for change in _changes(data) if change.key.startswith(_FOLLOWED)]
    nothing: Any = _Nothing()
    plane, journal = FakePlane(), FakeJournal()
    control = Control("node1", PolicyEngine(Options()), plane, journal)
    balancer = FakeBalancer()
    services = Services(NodeFacts("node1"), LoadBalancingConfig(), balancer)  # type: ignore[arg-type]
    listener = Listener("node1", "default", control, nothing, nothing, services, nothing, nothing)
    control.local_subject(300, "here", True)
    control.start()
    for change in changes:
        before = (control.counts, len(listener.problems))
        asyncio.run(listener.take([change]))
        if change.key in listener.problems:
            assert control.counts == before[0], f"{change.key}: refused, and yet: {control.counts}"
        control.settle()
        services.settle()
    held = (dict(plane.addresses.entries), dict(plane.policies.entries))
    assert control.reconcile() == 0, "something else was written than what should be there"
    assert held == (plane.addresses.entries, plane.policies.entries)


def check_flows(data: bytes) -> None:
    """The flow server passes over what it cannot take."""
    names = Names({1: "host"}, 1 << 24)
    for change in _changes(data):
        if change.key.startswith(feed.PREFIXES):
            try:
                feed.apply(names, "node1", change.key, change.value)
            except ValueError as error:
                assert str(error)


TARGETS = [
    Target("state-agent", check_agent, _seeds, json=True),
    Target("state-flows", check_flows, _seeds, json=True),
]
