"""Random little worlds for policy: a few labels, ranges and ports that meet as often as possible.

Everything comes from a `random.Random`, so that a seed makes bulk cases and hypothesis' own Random
makes cases that it can shrink.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from axoneme.model.l7 import L7, HTTPRule, KafkaRule, L7Kind
from axoneme.model.labels import Labels, Operator, Requirement, Selector
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    CIDRGroup,
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    Enforcement,
    EntityPeer,
    LabelPeer,
    NamedPort,
    Network,
    Peer,
    Policy,
    PolicyRef,
    Port,
    PortRange,
    Protocol,
    Rule,
    ServicePeer,
    Tier,
)
from axoneme.policy.engine import Options, PolicyEngine, PolicyKey
from axoneme.policy.identities import NamedPorts
from axoneme.policy.nearest import Miss
from axoneme.policy.peers import ENTITIES, Service
from oracle.policy import Address, Party, World

NAMESPACE = "io.kubernetes.pod.namespace"
CLUSTER = "io.cilium.k8s.policy.cluster"
APPS = ("web", "db", "cache")
TIERS = ("front", "back")
NAMESPACES = ("red", "blue")
PORT_NAMES = ("http", "dns", "metrics")

RANGES = [
    ip_network(text)
    for text in (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.128.0.0/9",
        "192.0.2.0/24",
        "172.31.0.0/24",
        "172.31.0.2/32",
        "::/0",
        "2001:db8::/32",
        "2001:db8:1::/48",
        "2001:db8:1::1/128",
    )
]
ADDRESSES: list[Address] = [
    ip_address(text)
    for text in (
        "10.1.2.3",
        "10.1.2.4",
        "10.1.9.9",
        "10.9.9.9",
        "10.200.0.1",
        "192.0.2.1",
        "203.0.113.9",
        "2001:db8:1::1",
        "2001:db8:1::2",
        "2001:db8:2::1",
        "2001:4860::1",
    )
]
#: The API server, outside the cluster, and two nodes.
API_SERVER = ip_network("192.0.2.7/32")
HOST_ADDRESS, NODE_ADDRESS = ip_address("172.31.0.1"), ip_address("172.31.0.2")
NODE_IDENTITY = (2 << 24) + 1

PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.ICMP, Protocol.ICMPV6)
PORTS = (0, 1, 7, 8, 53, 79, 80, 81, 128, 443, 8079, 8080, 8081, 32768, 65534, 65535)
#: A protocol that no rule can name: it passes only where everything does.
UNNAMED_PROTOCOL = 47


# ---- parts of policies -------------------------------------------------------------------------


def some_requirement(rng: random.Random) -> Requirement:
    key, values = rng.choice(
        [("app", APPS), ("tier", TIERS), (NAMESPACE, NAMESPACES), (CLUSTER, ("default", "other"))]
    )
    operator = rng.choice([Operator.IN, Operator.IN, Operator.IN, *Operator])
    wanted = rng.sample(values, rng.randint(1, 2)) if operator in (Operator.IN, Operator.NOT_IN) else ()
    return Requirement(rng.choice(("any", "k8s")), key, operator, tuple(sorted(wanted)))


def some_selector(rng: random.Random) -> Selector:
    if rng.random() < 0.06:
        name = rng.choice(("world", "host", "init", "health", "kube-apiserver"))
        return Selector(
            (Requirement("reserved", name, rng.choice([Operator.EXISTS, Operator.DOES_NOT_EXIST])),)
        )
    return Selector().and_(*(some_requirement(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3)))))


def some_cidr(rng: random.Random) -> CIDRPeer:
    cidr = rng.choice(RANGES)
    inside = [r for r in RANGES if r != cidr and r.version == cidr.version and r.subnet_of(cidr)]  # type: ignore[arg-type]
    excepts = rng.sample(inside, min(len(inside), rng.choice((0, 0, 1, 2))))
    return CIDRPeer(cidr, tuple(excepts))


def some_peer(rng: random.Random) -> Peer:
    kind = rng.randrange(100)
    if kind < 14:
        return AnyPeer()
    if kind < 50:
        return LabelPeer(some_selector(rng))
    if kind < 66:
        return EntityPeer(rng.choice(sorted(ENTITIES)))
    if kind < 86:
        return some_cidr(rng)
    if kind < 93:
        excepts = tuple(rng.sample(RANGES[3:5], rng.randint(0, 1)))
        if rng.random() < 0.5:
            return CIDRGroupPeer(name=rng.choice(("partners", "offices", "absent")), excepts=excepts)
        wanted = Requirement("any", "kind", rng.choice([Operator.IN, Operator.NOT_IN]), ("partner",))
        return CIDRGroupPeer(selector=Selector((wanted,)), excepts=excepts)
    namespace = rng.choice((None, *NAMESPACES))
    if rng.random() < 0.5:
        return ServicePeer(namespace, name=rng.choice(("one", "two", "three")))
    return ServicePeer(
        namespace, selector=Selector((Requirement("any", "app", Operator.IN, (rng.choice(APPS),)),))
    )


def some_port(rng: random.Random) -> Port:
    kind = rng.random()
    if kind < 0.15:
        return NamedPort(rng.choice((Protocol.ANY, Protocol.TCP, Protocol.UDP)), rng.choice(PORT_NAMES))
    protocol = rng.choice((Protocol.ANY, Protocol.TCP, Protocol.TCP, *PROTOCOLS))
    if kind < 0.25:
        return PortRange(protocol)
    if kind < 0.65:
        port = rng.choice(PORTS)
        return PortRange(protocol, port, port)
    first, last = sorted((rng.choice(PORTS), rng.choice(PORTS)))
    return PortRange(protocol, first, last)


def some_rule(rng: random.Random, path: str) -> Rule:
    peers = tuple(some_peer(rng) for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2, 3))))
    ports = (
        ALL_PORTS if rng.random() < 0.4 else tuple(some_port(rng) for _ in range(rng.choice((1, 1, 2, 3))))
    )
    return Rule(rng.choice(list(Direction)), peers, ports, deny=rng.random() < 0.25, path=path)


def some_l7(rng: random.Random) -> L7:
    kind = rng.random()
    if kind < 0.6:
        methods = rng.sample(("GET", "PUT", "POST"), rng.choice((1, 1, 2)))
        return L7(L7Kind.HTTP, http=tuple(HTTPRule(method) for method in methods))
    if kind < 0.8:
        return L7(L7Kind.KAFKA, kafka=(KafkaRule(topic=rng.choice("ab")),))
    return L7(L7Kind.TLS, server_names=(rng.choice(("a.example", "b.example")),))


def above_l4(rng: random.Random, policy: Policy) -> Policy:
    """The same with rules above L4 in some of its rules; perhaps only tried."""
    rules = []
    for rule in policy.rules:
        if policy.tier is Tier.NORMAL and not rule.deny and rng.random() < 0.4:
            rules.append(replace(rule, l7=some_l7(rng), watch=rng.random() < 0.2))
        else:
            rules.append(rule)
    rules = [replace(rule, audit=(rule.deny or bool(rule.l7)) and rng.random() < 0.2) for rule in rules]
    return replace(policy, rules=tuple(rules), audit=rng.random() < 0.2)


def some_policy(rng: random.Random, key: PolicyKey, index: int = 0) -> Policy:
    rules = tuple(some_rule(rng, f"specs[{index}].rules[{i}]") for i in range(rng.choice((0, 1, 1, 2, 3, 4))))
    ref = PolicyRef(key.kind, key.namespace, key.name)
    if rng.random() < 0.3:
        return some_ordered_policy(rng, ref, rules)
    directions = {rule.direction for rule in rules if rng.random() < 0.8}
    if rng.random() < 0.1:
        directions = set(Direction)
    return Policy(ref, some_selector(rng), rules, frozenset(directions))


def some_ordered_policy(rng: random.Random, ref: PolicyRef, rules: tuple[Rule, ...]) -> Policy:
    """One of the tiers in which the first rule decides."""
    tier = rng.choice((Tier.ADMIN, Tier.ADMIN, Tier.BASELINE))
    actions = ("allow", "deny") if tier is Tier.BASELINE else ("allow", "deny", "pass")
    ordered = []
    for order, rule in enumerate(rules):
        action = rng.choice(actions)
        ordered.append(replace(rule, deny=action == "deny", passes=action == "pass", order=order))
    return Policy(ref, some_selector(rng), tuple(ordered), tier=tier, priority=rng.randrange(3))


def some_policies(rng: random.Random, key: PolicyKey, above: bool = False) -> tuple[Policy, ...]:
    """``above``: with rules above L4, and policies that are only tried."""
    policies = (some_policy(rng, key, index) for index in range(rng.choice((1, 1, 1, 2))))
    return tuple(above_l4(rng, policy) if above else policy for policy in policies)


def some_labels(rng: random.Random) -> Labels:
    texts = [f"k8s:{NAMESPACE}={rng.choice(NAMESPACES)}"]
    if rng.random() < 0.7:
        texts.append(f"k8s:{CLUSTER}={rng.choice(('default', 'default', 'other'))}")
    if rng.random() < 0.9:
        texts.append(f"k8s:app={rng.choice(APPS)}")
    if rng.random() < 0.5:
        texts.append(f"k8s:tier={rng.choice(TIERS)}")
    return Labels.parse(texts)


def some_named_ports(rng: random.Random) -> NamedPorts:
    return {
        (name, rng.choice((Protocol.TCP, Protocol.UDP))): frozenset(rng.sample(PORTS, rng.randint(1, 2)))
        for name in rng.sample(PORT_NAMES, rng.choice((0, 1, 2)))
    }


def some_group(rng: random.Random, name: str) -> CIDRGroup:
    cidrs = tuple(rng.sample(RANGES, rng.randint(0, 3)))
    return CIDRGroup(name, cidrs, (("kind", rng.choice(("partner", "office"))),))


def some_service(rng: random.Random, namespace: str, name: str) -> Service:
    labels = {"app": rng.choice(APPS)}
    selector = {"app": rng.choice(APPS)} if rng.random() < 0.5 else {}
    addresses = frozenset(rng.sample(ADDRESSES, rng.randint(0, 2)))
    return Service(namespace, name, labels, selector, addresses)


# ---- whole worlds ------------------------------------------------------------------------------


@dataclass
class Scenario:
    """All input of an engine as it stands, and how to give it to one."""

    options: Options
    enforcement: Enforcement = Enforcement.DEFAULT
    policies: dict[PolicyKey, tuple[Policy, ...]] = field(default_factory=dict)
    pods: dict[int, Labels] = field(default_factory=dict)
    named_ports: dict[int, NamedPorts] = field(default_factory=dict)
    groups: dict[str, CIDRGroup] = field(default_factory=dict)
    services: dict[tuple[str, str], Service] = field(default_factory=dict)
    subjects: set[int] = field(default_factory=set)
    audited: set[int] = field(default_factory=set)
    above: bool = False

    def world(self) -> World:
        return World(
            [policy for policies in self.policies.values() for policy in policies],
            list(self.services.values()),
            list(self.groups.values()),
            self.enforcement,
            self.options.cluster,
            self.options.host_reaches_pods,
            self.options.cidr_matches_nodes,
        )

    def party(self, number: int) -> Party:
        """A local endpoint as the oracle sees it."""
        labels = self.pods.get(number) or Labels.parse({5: ["reserved:init"], 4: ["reserved:health"]}[number])
        return Party(labels, None, self.named_ports.get(number, {}), number in self.audited)

    def engine(self, rng: random.Random | None = None, rule_bits: int = 32) -> PolicyEngine:
        """An engine that has been given everything, in an order that ``rng`` chooses."""
        engine = PolicyEngine(self.options, self.enforcement, rule_bits=rule_bits)
        steps = [
            *((engine.upsert_policy, (key, policies)) for key, policies in self.policies.items()),
            *((engine.upsert_identity, (number, labels)) for number, labels in self.pods.items()),
            *((engine.set_named_ports, (number, ports)) for number, ports in self.named_ports.items()),
            *((engine.upsert_cidr_group, (group,)) for group in self.groups.values()),
            *((engine.upsert_service, (service,)) for service in self.services.values()),
            *((engine.add_subject, (number,)) for number in self.subjects),
            *((engine.set_audited, (number, True)) for number in self.audited),
        ]
        if rng:
            rng.shuffle(steps)
        for step, arguments in steps:
            step(*arguments)  # type: ignore[operator]
        give_fixed_identities(engine)
        give_prefixes(engine)
        return engine

    def mended(self, miss: Miss) -> Scenario:
        """The same, but the rule of the miss changed as it says (in every spec that has it)."""
        policies = {
            key: tuple(
                replace(
                    policy,
                    rules=tuple(miss.mended if rule.path == miss.ref.rule else rule for rule in policy.rules),
                )
                if policy.ref == replace(miss.ref, rule="")
                else policy
                for policy in policies
            )
            for key, policies in self.policies.items()
        }
        return replace(self, policies=policies)

    def number(self, engine: PolicyEngine, party: Party, otherwise: int) -> int:
        """The identity by which an engine knows whoever is outside; ``otherwise`` for those who are not."""
        if party.address is None:
            return otherwise
        return next(number for number, other in self.peers(engine) if other == party)

    def peers(self, engine: PolicyEngine) -> Iterator[tuple[int, Party]]:
        """Whoever can be at the other end: the identity by which the datapath knows it, and itself."""
        for number in self.pods:
            yield number, self.party(number)
        for number, names in {
            1: ("host",),
            3: ("unmanaged",),
            4: ("health",),
            5: ("init",),
            6: ("remote-node",),
            7: ("remote-node", "kube-apiserver"),
            8: ("ingress",),
            NODE_IDENTITY: ("remote-node",),
        }.items():
            labels = Labels.parse(f"reserved:{name}" for name in names)
            yield number, Party(labels, {1: HOST_ADDRESS, NODE_IDENTITY: NODE_ADDRESS}.get(number))
        for address in ADDRESSES:
            if self.options.ipv4 if address.version == 4 else self.options.ipv6:
                labels = Labels.parse(["reserved:world", f"reserved:world-ipv{address.version}"])
                yield identity_of(engine.needed_prefixes(), self.options, address), Party(labels, address)
        if self.options.ipv4:
            labels = Labels.parse(["reserved:world", "reserved:world-ipv4", "reserved:kube-apiserver"])
            yield number_of(API_SERVER), Party(labels, API_SERVER.network_address)


def some_scenario(rng: random.Random, most_policies: int = 6, above: bool = False) -> Scenario:
    ipv4, ipv6 = rng.choice(((True, True), (True, True), (True, False), (False, True)))
    options = Options(
        ipv4,
        ipv6,
        host_reaches_pods=rng.random() < 0.8,
        cidr_matches_nodes=rng.random() < 0.3,
    )
    enforcement = rng.choice((*[Enforcement.DEFAULT] * 8, Enforcement.ALWAYS, Enforcement.NEVER))
    scenario = Scenario(options, enforcement, above=above)
    for number in range(256, 256 + rng.randint(2, 8)):
        scenario.pods[number] = some_labels(rng)
        scenario.named_ports[number] = some_named_ports(rng)
    scenario.subjects.update(rng.sample(sorted(scenario.pods), rng.randint(1, min(4, len(scenario.pods)))))
    scenario.subjects.update(rng.choice(((), (), (), (5,), (4,))))
    for name in ("partners", "offices"):
        if rng.random() < 0.7:
            scenario.groups[name] = some_group(rng, name)
    for namespace in NAMESPACES:
        for name in ("one", "two"):
            if rng.random() < 0.6:
                scenario.services[namespace, name] = some_service(rng, namespace, name)
    for index in range(rng.randint(1, most_policies)):
        key = some_key(rng, index)
        scenario.policies[key] = some_policies(rng, key, above)
    if above and rng.random() < 0.3:
        scenario.audited.add(rng.choice(sorted(scenario.subjects)))
    return scenario


def some_key(rng: random.Random, index: int) -> PolicyKey:
    return PolicyKey("CiliumNetworkPolicy", NAMESPACES[index % 2], f"p{index}")


def some_packet(rng: random.Random) -> tuple[int, int]:
    protocol = int(rng.choice((Protocol.TCP, Protocol.TCP, *PROTOCOLS, *PROTOCOLS)))
    return (protocol, rng.choice(PORTS)) if rng.random() < 0.97 else (UNNAMED_PROTOCOL, 0)


# ---- identities outside ------------------------------------------------------------------------

_numbers: dict[Network, int] = {}


def number_of(network: Network) -> int:
    """The number of a prefix's identity: the same in every engine of this process."""
    return _numbers.setdefault(network, (1 << 24) + len(_numbers))


def give_fixed_identities(engine: PolicyEngine) -> None:
    """The nodes, and the API server outside."""
    engine.upsert_identity(1, Labels.parse(["reserved:host"]), [ip_network(str(HOST_ADDRESS))])
    engine.upsert_identity(
        NODE_IDENTITY, Labels.parse(["reserved:remote-node"]), [ip_network(str(NODE_ADDRESS))]
    )
    if engine.options.ipv4:
        extra = Labels.parse(["reserved:kube-apiserver"])
        engine.upsert_cidr_identity(number_of(API_SERVER), API_SERVER, extra)


def give_prefixes(
    engine: PolicyEngine, had: frozenset[Network] = frozenset(), take: bool = True
) -> frozenset[Network]:
    """What an agent does about `needed_prefixes`; without ``take`` none loses its identity yet."""
    needed = engine.needed_prefixes()
    for network in had - needed - {API_SERVER} if take else ():
        engine.remove_identity(number_of(network))
    for network in needed - had - {API_SERVER}:
        engine.upsert_cidr_identity(number_of(network), network)
    return needed


def identity_of(prefixes: Iterable[Network], options: Options, address: Address) -> int:
    """The identity that the datapath finds for an address outside: that of the longest prefix."""
    around = [network for network in (*prefixes, API_SERVER) if address in network]
    if around:
        return number_of(max(around, key=lambda network: network.prefixlen))
    return 2 if not (options.ipv4 and options.ipv6) else {4: 9, 6: 10}[address.version]
