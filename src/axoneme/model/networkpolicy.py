"""Kubernetes' NetworkPolicy (networking.k8s.io/v1) as a `Policy`.

What is easily got wrong: in a rule, ``from``, ``to`` and ``ports`` mean everybody and every port when they
are absent *or empty* (an empty rule allows everything), while an empty list of rules allows nothing. A
port without a protocol is TCP. Rules of a direction that ``policyTypes`` does not name have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping

from axoneme.model import checks, selectors
from axoneme.model.labels import (
    CLUSTER,
    K8S,
    NAMESPACE,
    NAMESPACE_LABELS,
    Requirement,
    Selector,
    equals,
    exists,
)
from axoneme.model.metadata import naming, parse_metadata
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    CIDRPeer,
    Direction,
    LabelPeer,
    NamedPort,
    Peer,
    Policy,
    PolicyRef,
    Port,
    PortRange,
    Protocol,
    Rule,
)
from axoneme.model.trial import audited

KIND = "NetworkPolicy"
_PROTOCOLS = {protocol.name: protocol for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}
_TYPES = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}

#: The fields in which a direction has its rules, and a rule its peers.
_SECTIONS = {Direction.INGRESS: ("ingress", "from"), Direction.EGRESS: ("egress", "to")}


def parse_network_policy(object: Mapping[str, object], *, cluster_name: str | None = None) -> Policy:
    """The policy of a NetworkPolicy object.

    With a ``cluster_name``, peers are the pods of that cluster only. Raises `ManifestError`.
    """
    with naming(object) as fields:
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, strict=True)
        spec = fields.need("spec").fields(("podSelector", "policyTypes", "ingress", "egress"))
        scope = _Scope(metadata.namespace, cluster_name)
        selected = spec.stated("podSelector")
        directions = _directions(spec)
        rules = [rule for direction in Direction for rule in _rules(spec, direction, scope)]
        policy = Policy(
            PolicyRef(KIND, metadata.namespace, metadata.name),
            scope.subjects(selectors.kubernetes(selected) if selected else ()),
            tuple(rule for rule in rules if rule.direction in directions),
            directions,
        )
        return audited(metadata, [policy])[0]


class _Scope:
    """Whom selectors can mean: pods, of the policy's own namespace unless they say otherwise."""

    def __init__(self, namespace: str, cluster: str | None) -> None:
        self._own = equals(K8S, NAMESPACE, namespace)
        self._cluster = () if cluster is None else (equals(K8S, CLUSTER, cluster),)

    def subjects(self, pods: tuple[Requirement, ...]) -> Selector:
        return Selector().and_(self._own, *pods)

    def own(self, pods: tuple[Requirement, ...]) -> Selector:
        return Selector().and_(self._own, *self._cluster, *pods)

    def across(self, namespaces: tuple[Requirement, ...], pods: tuple[Requirement, ...]) -> Selector:
        """Pods have a namespace, whatever its labels: "not production" is a pod's, not the world's."""
        return Selector().and_(exists(K8S, NAMESPACE), *self._cluster, *namespaces, *pods)


def _directions(spec: Fields) -> frozenset[Direction]:
    """Absent or empty types are Ingress, and Egress if there is an ``egress`` section, be it empty."""
    types = frozenset(_TYPES[item.one_of(_TYPES)] for item in spec.stated_items("policyTypes"))
    if types:
        return types
    return frozenset({Direction.INGRESS} | ({Direction.EGRESS} if spec.stated("egress") else set()))


def _rules(spec: Fields, direction: Direction, scope: _Scope) -> list[Rule]:
    section, peers = _SECTIONS[direction]
    return [_rule(item, direction, peers, scope) for item in spec.items(section)]


def _rule(place: Place, direction: Direction, peers_field: str, scope: _Scope) -> Rule:
    fields = place.fields((peers_field, "ports"))
    peers = tuple(_peer(item, scope) for item in fields.stated_items(peers_field))
    ports = tuple(dict.fromkeys(_port(item) for item in fields.stated_items("ports")))
    return Rule(
        direction,
        peers or (AnyPeer(),),
        ports or ALL_PORTS,
        path=place.path,
    )


# ---- peers -------------------------------------------------------------------------------------


def _peer(place: Place, scope: _Scope) -> Peer:
    fields = place.fields(("podSelector", "namespaceSelector", "ipBlock"))
    pods = fields.stated("podSelector")
    namespaces = fields.stated("namespaceSelector")
    block = fields.stated("ipBlock")
    if block is not None:
        if pods or namespaces:
            block.refuse("ipBlock cannot stand with a selector: make them two items of the list")
        return _block(block)
    selected = selectors.kubernetes(pods) if pods else ()
    if namespaces is not None:
        found = selectors.kubernetes(namespaces, key_prefix=NAMESPACE_LABELS)
        return LabelPeer(scope.across(found, selected))
    if pods is None:
        place.refuse("a peer needs podSelector, namespaceSelector or ipBlock")
    return LabelPeer(scope.own(selected))


def _block(place: Place) -> CIDRPeer:
    fields = place.fields(("cidr", "except"))
    cidr = checks.network(fields.need("cidr"))
    excepts = []
    for item in fields.stated_items("except"):
        except_ = checks.network(item)
        if not checks.inside(except_, cidr) or except_ == cidr:
            item.refuse(f"an except must be a smaller range inside {cidr}")
        excepts.append(except_)
    return CIDRPeer(cidr, tuple(dict.fromkeys(excepts)))


# ---- ports -------------------------------------------------------------------------------------


def _port(place: Place) -> Port:
    fields = place.fields(("port", "endPort", "protocol"))
    stated = fields.stated("protocol")
    protocol = _PROTOCOLS[stated.one_of(_PROTOCOLS)] if stated else Protocol.TCP
    port = fields.stated("port")
    end = fields.stated("endPort")
    if port is None:
        if end is not None:
            end.refuse("endPort needs a port where the range begins")
        return PortRange(protocol)
    if isinstance(port.value, str):
        if port.value.isdecimal():
            port.refuse(f"a port's number is written without quotes: {port.value}")
        if end is not None:
            checks.port_number(end)  # without effect: a range cannot begin at a name
        return NamedPort(protocol, checks.port_name(port))
    first = checks.port_number(port)
    return PortRange(protocol, first, first if end is None else end.number(first, checks.LAST_PORT))
