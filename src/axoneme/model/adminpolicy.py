"""AdminNetworkPolicy and BaselineAdminNetworkPolicy (policy.networking.k8s.io/v1alpha1) as a `Policy`.

Both select pods of any namespace, and their rules have an order: the first that covers a packet decides
(KEP-2091, and the published types of network-policy-api). The admin's stand before all other policies, by
priority; his ``Pass`` leaves a packet to those. The baseline's, of which there is one, stand behind them, and
are not asked where a policy between them makes default-deny. Policies of one priority have no order in the
API; here that of their names.

What is easily got wrong: a rule without ``ports`` covers every packet, ICMP included; a policy without rules
does nothing, so neither kind ever makes default-deny by itself; ``networks`` is for what is outside the
cluster (`_networks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from axoneme.model import checks, selectors
from axoneme.model.l7 import NameMatch
from axoneme.model.labels import (
    CLUSTER,
    K8S,
    NAMESPACE,
    NAMESPACE_LABELS,
    NODE,
    RESERVED,
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
    EntityPeer,
    LabelPeer,
    NamedPort,
    NamePeer,
    NodePeer,
    Peer,
    Policy,
    PolicyRef,
    Port,
    PortRange,
    Protocol,
    Rule,
    Tier,
)
from axoneme.model.trial import audited

ADMIN = "AdminNetworkPolicy"
BASELINE = "BaselineAdminNetworkPolicy"
API_VERSION = "policy.networking.k8s.io/v1alpha1"
#: The only name that a baseline policy can have.
BASELINE_NAME = "default"

LAST_PRIORITY = 1000
#: The API's; ``*.`` in front is the only wildcard.
_DOMAIN = re.compile(
    r"(\*\.)?([A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?\.)+[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?\.?\Z"
)
_MOST_ITEMS, _MOST_NETWORKS, _LONGEST_NAME, _LONGEST_DOMAIN = 100, 25, 100, 253
_ACTIONS = {Tier.ADMIN: ("Allow", "Deny", "Pass"), Tier.BASELINE: ("Allow", "Deny")}
_PODS = ("namespaces", "pods")
_SECTIONS = {Direction.INGRESS: ("ingress", "from"), Direction.EGRESS: ("egress", "to")}
_PROTOCOLS = {protocol.name: protocol for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}


def parse_admin_policy(object: Mapping[str, object], *, cluster_name: str | None) -> Policy:
    """The policy of an object of either kind.

    With a ``cluster_name``, peers are the pods of that cluster only. Raises `ManifestError`.
    """
    with naming(object) as fields:
        kind = fields.need("kind").one_of((ADMIN, BASELINE))
        tier = Tier.ADMIN if kind == ADMIN else Tier.BASELINE
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, namespaced=False, strict=True)
        if tier is Tier.BASELINE and metadata.name != BASELINE_NAME:
            Place(metadata.name, "metadata.name").refuse(
                f"a cluster has one {BASELINE}, and its name is {BASELINE_NAME}"
            )
        known = ("subject", "ingress", "egress")
        spec = fields.need("spec").fields(("priority", *known) if tier is Tier.ADMIN else known)
        priority = spec.need("priority").number(0, LAST_PRIORITY) if tier is Tier.ADMIN else 0
        policy = Policy(
            PolicyRef(kind, "", metadata.name),
            _subject(spec.need("subject", "a policy says whom it selects; namespaces: {} selects every pod")),
            tuple(rule for each in Direction for rule in _rules(spec, each, tier, cluster_name)),
            tier=tier,
            priority=priority,
        )
        return audited(metadata, [policy])[0]


def _rules(spec: Fields, direction: Direction, tier: Tier, cluster: str | None) -> list[Rule]:
    section, peers = _SECTIONS[direction]
    items = _few(spec.place(section), spec.stated_items(section), _MOST_ITEMS)
    return [_rule(place, order, direction, peers, tier, cluster) for order, place in enumerate(items)]


def _rule(
    place: Place, order: int, direction: Direction, peers_field: str, tier: Tier, cluster: str | None
) -> Rule:
    fields = place.fields(("name", "action", peers_field, "ports"))
    if len(fields.text("name")) > _LONGEST_NAME:
        fields.place("name").refuse(f"at most {_LONGEST_NAME} characters belong here")
    action = fields.need("action").one_of(_ACTIONS[tier])
    items = _some(fields, peers_field, "whom the rule is about", _MOST_ITEMS)
    peers = [peer for item in items for peer in _peers(item, direction, action == "Deny", cluster)]
    ports = ALL_PORTS
    if fields.stated("ports"):
        named = _some(fields, "ports", "ports; without the field the rule covers all", _MOST_ITEMS)
        ports = tuple(dict.fromkeys(_port(item) for item in named))
    if any(isinstance(port, NamedPort) for port in ports) and not all(
        isinstance(p, LabelPeer) for p in peers
    ):
        fields.place("ports").refuse(
            "only pods name their ports: give numbers, or make two rules",
            "namedPort beside networks or nodes",
        )
    return Rule(
        direction,
        tuple(dict.fromkeys(peers)),
        ports,
        deny=action == "Deny",
        passes=action == "Pass",
        path=place.path,
        order=order,
    )


# ---- peers -------------------------------------------------------------------------------------


def _subject(place: Place) -> Selector:
    return _pods(*_one(place, _PODS))


def _pods(name: str, chosen: Place, *also: Requirement) -> Selector:
    """What ``namespaces`` or ``pods`` select."""
    pods: tuple[Requirement, ...] = ()
    if name == "pods":
        fields = chosen.fields(("namespaceSelector", "podSelector"))
        pods = selectors.kubernetes(fields.need("podSelector", "{} selects every pod"))
        chosen = fields.need("namespaceSelector", "{} selects every namespace")
    namespaces = selectors.kubernetes(chosen, key_prefix=NAMESPACE_LABELS)
    return Selector().and_(exists(K8S, NAMESPACE), *also, *namespaces, *pods)


def _peers(place: Place, direction: Direction, deny: bool, cluster: str | None) -> list[Peer]:
    others = _OTHERS if direction is Direction.EGRESS else {}
    name, chosen = _one(place, (*_PODS, *others))
    if name in others:
        return others[name](chosen, deny)
    also = () if cluster is None else (equals(K8S, CLUSTER, cluster),)
    return [LabelPeer(_pods(name, chosen, *also))]


def _networks(place: Place, deny: bool) -> list[Peer]:
    """Ranges mean what is outside the cluster, as CIDR rules do everywhere here: pods have identities, not
    addresses.

    The API means by a range also the pods in it. That can be told where it is a whole address space: both
    together are every peer, and one of the two in a deny is the cluster as well, in both families. (An allow
    or pass of one of the two is not: it would reach more than it says.)
    """
    found = [checks.network(item) for item in _few(place, place.items(), _MOST_NETWORKS)]
    if not found:
        place.refuse("at least one address range belongs here")
    whole = {network.version for network in found if not network.prefixlen}
    if len(whole) == 2:
        return [AnyPeer()]
    inside: list[Peer] = [EntityPeer("cluster")] if whole and deny else []
    return [*(CIDRPeer(network) for network in found), *inside]


def _nodes(place: Place, deny: bool) -> list[Peer]:
    """This node among them: nodes know themselves by another identity than the others."""
    selector = Selector().and_(*selectors.kubernetes(place, source=NODE))
    return [NodePeer(selector), LabelPeer(selector.and_(exists(RESERVED, "host")))]


def _domain_names(place: Place, deny: bool) -> list[Peer]:
    if deny:
        place.refuse("only an Allow can name domains (the API's rule): deny the rest by networks")
    return [_domain(item) for item in _few(place, place.items(), _MOST_NETWORKS)]


def _domain(place: Place) -> Peer:
    """``*.`` in front stands for one part of a name or more."""
    name = place.name()
    if len(name) > _LONGEST_DOMAIN or not _DOMAIN.match(name):
        place.refuse("a domain name like kubernetes.io or *.kubernetes.io belongs here")
    plain = name.lower().removesuffix(".")
    return NamePeer(NameMatch(f"*{plain}", pattern=True) if plain.startswith("*.") else NameMatch(plain))


#: What only egress rules can name, and what it means; the flag says whether the rule denies.
_OTHERS: Mapping[str, Callable[[Place, bool], list[Peer]]] = {
    "nodes": _nodes,
    "networks": _networks,
    "domainNames": _domain_names,
}


# ---- ports -------------------------------------------------------------------------------------


def _port(place: Place) -> Port:
    name, chosen = _one(place, ("portNumber", "portRange", "namedPort"))
    if name == "namedPort":
        return NamedPort(Protocol.ANY, checks.port_name(chosen))
    if name == "portNumber":
        fields = chosen.fields(("protocol", "port"))
        first = last = checks.port_number(fields.need("port"))
    else:
        fields = chosen.fields(("protocol", "start", "end"))
        first = checks.port_number(fields.need("start"))
        last = fields.need("end").number(first, checks.LAST_PORT)
    stated = fields.stated("protocol")
    return PortRange(_PROTOCOLS[stated.one_of(_PROTOCOLS)] if stated else Protocol.TCP, first, last)


# ---- shapes ------------------------------------------------------------------------------------


def _one(place: Place, names: tuple[str, ...]) -> tuple[str, Place]:
    """The one field of a mapping that has exactly one of these."""
    fields = place.fields(names)
    found = [(name, chosen) for name in names if (chosen := fields.stated(name)) is not None]
    if len(found) != 1:
        place.refuse(f"exactly one of {', '.join(names)} belongs here")
    return found[0]


def _some(fields: Fields, name: str, what: str, most: int) -> list[Place]:
    fields.need(name, f"a list of {what} belongs here")
    items = _few(fields.place(name), fields.stated_items(name), most)
    if not items:
        fields.place(name).refuse(f"at least one item belongs here: {what}")
    return items


def _few(place: Place, items: list[Place], most: int) -> list[Place]:
    if len(items) > most:
        place.refuse(f"at most {most} items are allowed")
    return items
