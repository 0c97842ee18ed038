"""Least-privilege policies from what was recorded: they let every recorded edge pass, and nothing else.

One policy for each workload of a namespace (for each distinct set of labels), closed in both directions.
Peers are workloads by their labels, the parts of the cluster by their names, and the outside by DNS name
where the workload was told the address by the DNS proxy, else by address. Where requests were seen on a port,
they are what it may ask for: methods and paths, names, Kafka's calls and topics.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from axoneme.edges.edge import Edge, Party, Request, Seen, Whereabouts
from axoneme.edges.recorded import Recorded
from axoneme.edges.selecting import choose, own
from axoneme.model.kafkaapis import ALWAYS, API_KEYS, ROLES, number_of
from axoneme.model.l7 import L7Kind
from axoneme.model.labels import K8S, NAMESPACE, SERVICE_ACCOUNT, Labels
from axoneme.model.policy import Direction
from axoneme.model.redaction import HIDDEN

#: An object as YAML has it.
Document = dict[str, object]

_PORTS = {6: "TCP", 17: "UDP", 132: "SCTP"}
_FAMILIES = {1: "IPv4", 58: "IPv6"}
#: Characters that mean something in a regular expression.
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_API_NAMES = {number: name for name, number in API_KEYS.items()}
_NAMED = f"{K8S}:{NAMESPACE}"


@dataclass(frozen=True, slots=True)
class Names:
    """An outside party by DNS names."""

    names: tuple[str, ...]


Peer = Party | Names


@dataclass(slots=True)
class Service:
    """A port at which a peer is called, or calls, and the requests there; any, where none was looked at."""

    requests: set[Request] = field(default_factory=set)
    looked_at: bool = False


@dataclass(slots=True)
class Workload:
    """``calls``: by direction and peer, by protocol and port."""

    party: Party
    calls: dict[tuple[Direction, Peer], dict[tuple[int, int], Service]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Service))
    )


@dataclass(slots=True)
class Suggestion:
    """``subjects``: whom the policies are for. ``unsaid``: edges that no policy can allow by themselves,
    since it has no word for their protocol."""

    policies: list[Document] = field(default_factory=list)
    subjects: list[Party] = field(default_factory=list)
    unsaid: list[Edge] = field(default_factory=list)


def suggest(
    recorded: Recorded, namespace: str, known: Iterable[Labels] = (), *, cilium_only: bool = False
) -> Suggestion:
    """``known``: the labels of all pods that there are, which selectors must not mean by accident. A
    NetworkPolicy is made where it can say it all, else (or always, with ``cilium_only``) Cilium's kind."""
    found = Suggestion()
    workloads: dict[object, Workload] = {}
    for edge, seen in recorded.edges.items():
        if not seen.passed:
            continue
        if edge.protocol not in (*_PORTS, *_FAMILIES):
            found.unsaid.append(edge)
            continue
        for direction in Direction:
            subject = edge.subject(direction)
            if subject.whereabouts is Whereabouts.POD and subject.namespace == namespace:
                workload = workloads.setdefault(_alike(subject), Workload(subject))
                if not _add(workload, edge, seen, direction, recorded):
                    found.unsaid.append(edge)
    parties = (party for edge in recorded.edges for party in (edge.source, edge.destination))
    every = {Labels.parse(party.labels) for party in parties if party.whereabouts is Whereabouts.POD}
    every |= {labels for labels in known if labels.get(K8S, NAMESPACE)}
    taken: set[str] = set()
    for workload in sorted(workloads.values(), key=lambda each: (each.party.workload, each.party.labels)):
        name = _name(workload.party, taken)
        plain = None if cilium_only else _network_policy(workload, name, every)
        found.policies.append(plain or _cilium_policy(workload, name, every))
        found.subjects.append(workload.party)
    return found


def _alike(party: Party) -> object:
    """Equal for parties that no selector could tell apart."""
    labels = Labels.parse(party.labels)
    return tuple(sorted(own(labels).items())), labels.get(K8S, SERVICE_ACCOUNT)


def _add(workload: Workload, edge: Edge, seen: Seen, direction: Direction, recorded: Recorded) -> bool:
    """False where no rule could say it."""
    party = edge.peer(direction)
    if direction is Direction.INGRESS and party.reserved == ("host",):
        return True  # a node may always call its own pods
    peer: Peer = party
    if direction is Direction.EGRESS and party.whereabouts is Whereabouts.OUTSIDE:
        names = recorded.names.get((edge.source, party.address))
        peer = Names(tuple(sorted(names))) if names else party
    service = workload.calls[direction, peer][edge.protocol, edge.port]
    if edge.request is None or direction not in seen.looked_at_by:
        return True
    service.looked_at = True
    if edge.request.kind is L7Kind.KAFKA:
        number = number_of(edge.request.api_key)
        if number is None or (number not in _API_NAMES and number in ALWAYS):
            return number is not None  # what always passes needs no rule
    service.requests.add(edge.request)
    return True


def _name(party: Party, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9.-]", "-", party.workload.rpartition("/")[2].lower()).strip("-.") or "pods"
    name, number = f"{base[:240]}-observed", 1
    while name in taken:
        number += 1
        name = f"{base[:240]}-observed-{number}"
    taken.add(name)
    return name


# ---- Cilium's kind -------------------------------------------------------------------------------------


def _cilium_policy(workload: Workload, name: str, every: Iterable[Labels]) -> Document:
    party = workload.party
    every = list(every)
    sections: dict[str, list[Document]] = {"ingress": [], "egress": []}
    for (direction, peer), services in sorted(workload.calls.items(), key=_order):
        rule = _peer(direction, peer, every)
        ports = _to_ports(services)
        icmps = [
            {"fields": [{"family": _FAMILIES[protocol], "type": port}]}
            for protocol, port in sorted(services)
            if protocol in _FAMILIES
        ]
        section = sections[direction.name.lower()]
        # One rule has ports or ICMP types.
        if ports:
            section.append(rule | {"toPorts": ports})
        if icmps:
            section.append(rule | {"icmps": icmps})
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": party.namespace},
        "spec": {
            "endpointSelector": choose(Labels.parse(party.labels), every).selector(),
            # An empty rule allows nobody, and closes the direction.
            **{section: rules or [{}] for section, rules in sections.items()},
        },
    }


def _order(item: tuple[tuple[Direction, Peer], object]) -> tuple[int, str, str]:
    direction, peer = item[0]
    if isinstance(peer, Names):
        return direction, "names", ",".join(peer.names)
    return direction, peer.whereabouts.value, f"{peer} {peer.labels}"


def _peer(direction: Direction, peer: Peer, every: Iterable[Labels]) -> Document:
    way = "from" if direction is Direction.INGRESS else "to"
    if isinstance(peer, Names):
        return {"toFQDNs": [{"matchName": name} for name in peer.names]}
    match peer.whereabouts:
        case Whereabouts.OUTSIDE:
            return {f"{way}CIDR": [_range(peer)]}
        case Whereabouts.NODE:
            return {f"{way}Entities": [_entity(peer)]}
        case Whereabouts.POD:
            chosen = choose(Labels.parse(peer.labels), every)
            return {f"{way}Endpoints": [chosen.selector({_NAMED: peer.namespace})]}


def _range(peer: Party) -> str:
    return f"{peer.address}/{128 if ':' in peer.address else 32}"


def _entity(peer: Party) -> str:
    """The narrowest: an API server is a remote node as well."""
    return "kube-apiserver" if "kube-apiserver" in peer.reserved else peer.reserved[0]


def _to_ports(services: Mapping[tuple[int, int], Service]) -> list[Document]:
    plain = [_port(*service) for service in sorted(services) if _is_plain(service, services[service])]
    entries: list[Document] = [{"ports": plain}] if plain else []
    for service in sorted(services):
        if service[0] in _PORTS and services[service].requests:
            entries.append({"ports": [_port(*service)]} | _rules(services[service].requests))
    return entries


def _is_plain(service: tuple[int, int], what: Service) -> bool:
    return service[0] in _PORTS and not what.looked_at


def _port(protocol: int, port: int) -> Document:
    return {"port": str(port), "protocol": _PORTS[protocol]}


def _rules(requests: Iterable[Request]) -> Document:
    """Of the kind that most of them have: a port speaks one language."""
    by_kind: dict[L7Kind, set[Request]] = defaultdict(set)
    for request in requests:
        by_kind[request.kind].add(request)
    kind = max(by_kind, key=lambda each: (len(by_kind[each]), each.value))
    asked = by_kind[kind]
    match kind:
        case L7Kind.HTTP:
            pairs = sorted({(each.method, _path(each)) for each in asked})
            return {"rules": {"http": [{"method": _literal(m), "path": path} for m, path in pairs]}}
        case L7Kind.DNS:
            names = sorted({each.name for each in asked})
            return {"rules": {"dns": [{"matchName": name} for name in names]}}
        case L7Kind.KAFKA:
            return {"rules": {"kafka": _kafka(asked)}}
        case L7Kind.TLS | L7Kind.LISTENER:
            return {"serverNames": sorted({each.name for each in asked})}


def _literal(text: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


def _path(request: Request) -> str:
    """What was hidden in it may be anything within its part of the path, and a query any."""
    path = "[^/?]+".join(map(_literal, request.path.split(HIDDEN)))
    return path + (r"\?.*" if request.query else "")


def _kafka(requests: Iterable[Request]) -> list[Document]:
    """Newer calls have no name in the language: a role stands for them that has them, for one topic, where
    one was seen; calls without topics pass by it all the same."""
    requests = list(requests)
    topics = sorted({request.topic for request in requests if request.topic})
    rules: set[tuple[str, str, str]] = set()
    for request in requests:
        number = number_of(request.api_key)
        assert number is not None, "others have been left out"
        if name := _API_NAMES.get(number):
            rules.add(("apiKey", name, request.topic))
        else:
            role = next(role for role, keys in ROLES.items() if number in keys)
            rules.add(("role", role, request.topic or next(iter(topics), "")))
    return [
        {field: value, "topic": topic} if topic else {field: value} for field, value, topic in sorted(rules)
    ]


# ---- Kubernetes' kind ----------------------------------------------------------------------------------


def _network_policy(workload: Workload, name: str, every: Iterable[Labels]) -> Document | None:
    """None where it cannot say all of it."""
    every = list(every)
    subject = choose(Labels.parse(workload.party.labels), every)
    if subject.account:
        return None
    spec: Document = {"podSelector": subject.selector(), "policyTypes": ["Ingress", "Egress"]}
    rules: dict[Direction, list[Document]] = defaultdict(list)
    for (direction, peer), services in sorted(workload.calls.items(), key=_order):
        what = _plain_peer(peer, every)
        if what is None or not all(_is_plain(*each) for each in services.items()):
            return None
        way = "from" if direction is Direction.INGRESS else "to"
        ports = [{"port": port, "protocol": _PORTS[protocol]} for protocol, port in sorted(services)]
        rules[direction].append({way: [what], "ports": ports})
    for direction, section in rules.items():
        spec[direction.name.lower()] = section
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": workload.party.namespace},
        "spec": spec,
    }


def _plain_peer(peer: Peer, every: Sequence[Labels]) -> Document | None:
    if isinstance(peer, Names) or peer.whereabouts is Whereabouts.NODE:
        return None
    if peer.whereabouts is Whereabouts.OUTSIDE:
        return {"ipBlock": {"cidr": _range(peer)}}
    chosen = choose(Labels.parse(peer.labels), every)
    if chosen.account:
        return None
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace}},
        "podSelector": chosen.selector(),
    }
