"""The L3 part of a Cilium rule: whom ``fromEndpoints``, ``toCIDR``, ``toServices`` … mean.

A rule has at most one of these members. One that is there and empty selects nobody: that is how one
writes a rule which only makes its direction default-deny.

Label scoping happens here, once. A selector of endpoints means pods of the policy's own namespace (in a
cluster-wide policy: of all), unless it names a namespace or labels of namespaces itself, and of the local
cluster, unless it names a cluster. Only what asks for a ``reserved:`` label is taken as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from axoneme.model import checks, selectors
from axoneme.model.labels import (
    ANY,
    CLUSTER,
    K8S,
    NAMESPACE,
    NAMESPACE_LABELS,
    NODE,
    RESERVED,
    Operator,
    Requirement,
    Selector,
    equals,
    exists,
)
from axoneme.model.names import parse_name_match
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import (
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    EntityPeer,
    LabelPeer,
    NamePeer,
    NodePeer,
    Peer,
    ServicePeer,
)

ENTITIES = (
    "all",
    "none",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "init",
    "health",
    "unmanaged",
    "world",
    "world-ipv4",
    "world-ipv6",
)


#: Sources of labels that only things other than pods have.
_NO_POD = ("cidr", "cidrgroup", "fqdn", "node")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a policy stands: ``namespace`` None is a cluster-wide one, ``cluster`` None means any cluster.

    ``init``: its subjects are pods that have no labels yet, and so no namespace either.
    """

    namespace: str | None
    cluster: str | None
    init: bool = False

    def endpoints(self, place: Place) -> Selector:
        """A selector of peers, with what it leaves unsaid."""
        requirements = selectors.cilium(place)
        for requirement in requirements:
            if requirement.source in _NO_POD:
                place.refuse(
                    f"no pod has labels of the source {requirement.source}: name addresses, groups of them, "
                    "DNS names and nodes in the fields made for them",
                    f"the requirement {requirement}",
                )
        reserved = [r for r in requirements if r.source == RESERVED]
        if reserved:
            if not any(map(selectors.positive, reserved)):
                place.refuse(
                    "a selector that only rules reserved labels out would reach beyond the policy's pods: "
                    "ask for the reserved label, or name entities",
                    f"the requirement {reserved[0]}",
                )
            return Selector().and_(*requirements)
        named = selectors.about(requirements, NAMESPACE)
        if any(r.operator is Operator.DOES_NOT_EXIST for r in named):
            place.refuse(
                "every pod has a namespace: name nodes, the world and other peers outside as entities",
                f"the requirement {named[0]}",
            )
        return Selector().and_(*requirements, *self._unsaid(requirements, named))

    def _unsaid(
        self, requirements: tuple[Requirement, ...], named: tuple[Requirement, ...]
    ) -> list[Requirement]:
        """``named`` are those of the requirements that are about the namespace."""
        unsaid = []
        if self.namespace is not None and not named and not _about_namespaces(requirements):
            unsaid.append(equals(K8S, NAMESPACE, self.namespace))
        elif not any(map(selectors.positive, named)) and not (self.init and self.namespace is None):
            # Pods have a namespace: "not in production" is about them, not about nodes or the world.
            unsaid.append(exists(K8S, NAMESPACE))
        if self.cluster is not None and not selectors.about(requirements, CLUSTER):
            unsaid.append(equals(K8S, CLUSTER, self.cluster))
        return unsaid


def _about_namespaces(requirements: tuple[Requirement, ...]) -> bool:
    return any(r.source in (ANY, K8S) and r.key.startswith(NAMESPACE_LABELS) for r in requirements)


# ---- the members -------------------------------------------------------------------------------


def _endpoints(place: Place, scope: Scope) -> Peer:
    return LabelPeer(scope.endpoints(place))


def _entity(place: Place, scope: Scope) -> Peer:
    return EntityPeer(place.one_of(ENTITIES))


def _cidr(place: Place, scope: Scope) -> Peer:
    return CIDRPeer(checks.network(place, bare=True))


def _cidr_rule(place: Place, scope: Scope) -> Peer:
    fields = place.fields(("cidr", "cidrGroupRef", "cidrGroupSelector", "except"))
    given = [name for name in ("cidr", "cidrGroupRef", "cidrGroupSelector") if fields.stated(name)]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        place.refuse("exactly one of cidr, cidrGroupRef and cidrGroupSelector belongs here", found)
    excepts = fields.stated_items("except")
    if given != ["cidr"]:
        if excepts:
            fields.place("except").refuse("only a cidr can have excepts, not a group")
        return _cidr_group(fields)
    cidr = checks.network(fields.need("cidr"))
    ranges = []
    for item in excepts:
        ranges.append(checks.network(item))
        if not checks.inside(ranges[-1], cidr):
            item.refuse(f"an except must lie inside {cidr}")
    return CIDRPeer(cidr, tuple(dict.fromkeys(ranges)))


def _cidr_group(fields: Fields) -> Peer:
    name = fields.get("cidrGroupRef")
    if name is not None:
        return CIDRGroupPeer(name=checks.dns_subdomain(name))
    selector = fields.need("cidrGroupSelector")
    return CIDRGroupPeer(selector=_selector_of(selector, (ANY, "cidrgroup")))


def _service(place: Place, scope: Scope) -> Peer:
    fields = place.fields(("k8sService", "k8sServiceSelector"))
    by_name, by_labels = fields.stated("k8sService"), fields.stated("k8sServiceSelector")
    if by_name is not None and by_labels is None:
        service = by_name.fields(("serviceName", "namespace"))
        name = checks.dns_subdomain(service.need("serviceName"))
        return ServicePeer(_service_namespace(service, scope), name=name)
    if by_labels is not None and by_name is None:
        service = by_labels.fields(("selector", "namespace"))
        selector = _selector_of(service.need("selector"), (ANY, K8S))
        return ServicePeer(_service_namespace(service, scope), selector=selector)
    return place.refuse("either k8sService or k8sServiceSelector belongs here")


def _service_namespace(fields: Fields, scope: Scope) -> str | None:
    namespace = fields.stated("namespace")
    if namespace is None or namespace.value == "":
        return scope.namespace
    return checks.dns_label(namespace)


def _name(place: Place, scope: Scope) -> Peer:
    return NamePeer(parse_name_match(place))


def _nodes(place: Place, scope: Scope) -> Peer:
    return NodePeer(_selector_of(place, (ANY, NODE)))


def _selector_of(place: Place, sources: tuple[str, ...]) -> Selector:
    """A selector of objects that only have labels of these sources."""
    requirements = selectors.cilium(place)
    for requirement in requirements:
        if requirement.source not in sources:
            place.refuse("only labels of the object itself can be named here", f"the label {requirement}")
    return Selector().and_(*requirements)


def _not_yet(what: str) -> Callable[[Place, Scope], Peer]:
    def refuse(place: Place, scope: Scope) -> Peer:
        return place.refuse(f"{what} are not supported yet: the rule could not be enforced")

    return refuse


#: Each direction's members, and what an item of each means.
MEMBERS: Mapping[Direction, Mapping[str, Callable[[Place, Scope], Peer]]] = {
    Direction.INGRESS: {
        "fromEndpoints": _endpoints,
        "fromEntities": _entity,
        "fromCIDR": _cidr,
        "fromCIDRSet": _cidr_rule,
        "fromNodes": _nodes,
        "fromGroups": _not_yet("groups of cloud providers"),
    },
    Direction.EGRESS: {
        "toEndpoints": _endpoints,
        "toEntities": _entity,
        "toCIDR": _cidr,
        "toCIDRSet": _cidr_rule,
        "toServices": _service,
        "toFQDNs": _name,
        "toNodes": _nodes,
        "toGroups": _not_yet("groups of cloud providers"),
    },
}

#: Part of the older schema without effect, as long as they are empty.
REMOVED: Mapping[Direction, str] = {Direction.INGRESS: "fromRequires", Direction.EGRESS: "toRequires"}


def parse_peers(fields: Fields, direction: Direction, scope: Scope) -> tuple[Peer, ...] | None:
    """The peers of a rule; None when it has no L3 part, no peers when it has one that selects nobody."""
    removed = fields.place(REMOVED[direction])
    if removed.value is not None and removed.items():
        removed.refuse(
            "the field was removed: what it required belongs into the selectors of the rule's peers"
        )
    members = MEMBERS[direction]
    present = [(name, place) for name in members if (place := fields.stated(name)) is not None]
    if not present:
        return None
    name, place = present[0]
    if len(present) > 1:
        present[1][1].refuse(f"a rule has one kind of peers: put this beside {name} as a rule of its own")
    return tuple(dict.fromkeys(members[name](item, scope) for item in place.items()))
