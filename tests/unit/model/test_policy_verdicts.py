"""From the text of manifests to verdicts: applications with their policies, all pairs of their pods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from axoneme.identity.labels import LabelFilter, pod_labels
from axoneme.model.manifests import read
from axoneme.model.metadata import Metadata
from axoneme.model.pods import PodSpec, parse_pod
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.policy import Direction, Protocol
from axoneme.model.workloads import parse_deployment
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.policy.lookup import Decision, evaluate
from axoneme.policy.table import Key, Value

from .given import MANIFESTS, ROOT, needs_manifests

CLUSTER = "default"


@dataclass
class Cluster:
    """What an agent makes of manifests: one identity for each pod or deployment, all on this node."""

    engine: PolicyEngine = field(default_factory=PolicyEngine)
    identities: dict[str, int] = field(default_factory=dict)
    ports: set[int] = field(default_factory=set)
    table: dict[Key, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Cluster:
        made = cls()
        for path in paths:
            for manifest in read(path.read_text(), path.name).objects:
                if manifest.kind in POLICY_KINDS:
                    key = PolicyKey(manifest.kind, manifest.namespace, manifest.name)
                    made.engine.upsert_policy(key, parse_policy(manifest.object, CLUSTER))
                elif manifest.kind == "Pod":
                    pod = parse_pod(manifest.object)
                    made.add(pod.metadata, pod.metadata.labels, pod.spec)
                elif manifest.kind == "Deployment":
                    deployment = parse_deployment(manifest.object)
                    made.add(deployment.metadata, deployment.template.labels, deployment.template.spec)
        for number, network in enumerate(sorted(made.engine.needed_prefixes(), key=str), 1 << 24):
            made.identities[str(network)] = number
            made.engine.upsert_cidr_identity(number, network)
        made.engine.changes()
        made.table = dict(made.engine.table)
        return made

    def add(self, metadata: Metadata, labels: dict[str, str] | object, spec: PodSpec) -> None:
        assert isinstance(labels, dict)
        own = pod_labels(
            labels,
            namespace=metadata.namespace,
            service_account=spec.service_account,
            cluster=CLUSTER,
        )
        number = self.identities[metadata.name] = 256 + len(self.identities)
        self.engine.upsert_identity(number, LabelFilter().apply(own))
        self.engine.add_subject(number)
        listening = [port for each in spec.containers for port in each.ports]
        self.ports.update(port.port for port in listening)
        self.engine.set_named_ports(
            number, {(p.name, Protocol[p.protocol]): frozenset({p.port}) for p in listening if p.name}
        )

    def decide(self, direction: Direction, subject: str, peer: str, port: int) -> Decision:
        return evaluate(
            self.table, self.identities[subject], direction, self.identities[peer], Protocol.TCP, port
        )

    def connects(self, source: str, target: str, port: int) -> bool:
        return (
            self.decide(Direction.EGRESS, source, target, port).allowed
            and self.decide(Direction.INGRESS, target, source, port).allowed
        )

    def edges(
        self, names: Iterable[str], ports: Iterable[int], targets: Iterable[str] = ()
    ) -> set[tuple[str, str, int]]:
        """Who reaches whom on which of the ports; ``targets`` none: all of ``names``."""
        names, ports = list(names), list(ports)
        targets = list(targets) or names
        return {
            (source, target, port)
            for source in names
            for target in targets
            for port in ports
            if source != target and self.connects(source, target, port)
        }


# ---- star wars ---------------------------------------------------------------------------------


@needs_manifests
def test_the_empire_lands_and_the_alliance_does_not() -> None:
    folder = MANIFESTS / "star-wars"
    cluster = Cluster.of([folder / "http-sw-app.yaml", folder / "sw_l3_l4_policy.yaml"])
    assert cluster.connects("tiefighter", "deathstar", 80)
    assert not cluster.connects("tiefighter", "deathstar", 443)
    assert not cluster.connects("xwing", "deathstar", 80)
    assert cluster.connects("deathstar", "xwing", 80)
    (rule,) = cluster.decide(Direction.INGRESS, "deathstar", "tiefighter", 80).rules
    assert list(map(str, cluster.engine.rules(rule))) == ["CiliumNetworkPolicy default/rule1 spec.ingress[0]"]


@needs_manifests
def test_a_rule_about_nobody_closes_the_empire() -> None:
    folder = MANIFESTS / "star-wars"
    cluster = Cluster.of([folder / "http-sw-app.yaml", folder / "sw_deny_policy.yaml"])
    pods = ("deathstar", "tiefighter", "xwing")
    assert cluster.edges(pods, [80]) == {("deathstar", "xwing", 80), ("tiefighter", "xwing", 80)}


# ---- online boutique ---------------------------------------------------------------------------

#: Written by hand from the policies: each workload's port, and who may reach it there.
CALLERS = {
    "adservice": (9555, {"frontend"}),
    "cartservice": (7070, {"frontend", "checkoutservice"}),
    "checkoutservice": (5050, {"frontend"}),
    "currencyservice": (7000, {"frontend", "checkoutservice"}),
    "emailservice": (8080, {"checkoutservice"}),
    "paymentservice": (50051, {"checkoutservice"}),
    "productcatalogservice": (3550, {"frontend", "checkoutservice", "recommendationservice"}),
    "recommendationservice": (8080, {"frontend"}),
    "redis-cart": (6379, {"cartservice"}),
    "shippingservice": (50051, {"frontend", "checkoutservice"}),
    "loadgenerator": (0, set[str]()),
}


@needs_manifests
def test_every_allowed_call_of_the_boutique_passes_and_no_other() -> None:
    folder = MANIFESTS / "online-boutique"
    cluster = Cluster.of([folder / "app.yaml", *sorted((folder / "network-policies").glob("*.yaml"))])
    assert cluster.identities.keys() == {"frontend", *CALLERS}
    ports = {port for port, _ in CALLERS.values() if port}
    assert cluster.ports == ports
    anywhere = {(name, "frontend", port) for name in CALLERS for port in ports}
    calls = {(caller, name, port) for name, (port, callers) in CALLERS.items() for caller in callers}
    assert cluster.edges(cluster.identities, ports) == anywhere | calls


# ---- our own -----------------------------------------------------------------------------------


def test_the_bakery_of_the_examples() -> None:
    folder = ROOT / "examples/bakery"
    cluster = Cluster.of(sorted(folder.glob("*.yaml")))
    bakery = ("shop", "orders", "ledger")
    assert cluster.edges((*bakery, "visitor"), [5432, 8080, 9000], bakery) == {
        ("visitor", "shop", 8080),
        ("shop", "orders", 9000),
        ("orders", "ledger", 5432),
    }
    assert cluster.connects("shop", "visitor", 8080) and not cluster.connects("orders", "visitor", 8080)
    bank, rest = "203.0.113.0/24", "198.51.100.0/24"
    out = Direction.EGRESS
    assert cluster.decide(out, "orders", bank, 443).allowed
    assert not cluster.decide(out, "orders", bank, 80).allowed
    assert not cluster.decide(out, "visitor", rest, 443).allowed
    denied = cluster.decide(out, "visitor", rest, 443)
    assert [str(ref) for rule in denied.rules for ref in cluster.engine.rules(rule)] == [
        "CiliumClusterwideNetworkPolicy no-bad-neighbours spec.egressDeny[0]"
    ]
