"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (cilium.io/v2) as `Policy` values.

An object has one ``spec`` or several ``specs``; each becomes a `Policy` of its own under the same name.
What is easily got wrong: it is the *presence of a rule* that makes a direction default-deny, and the empty
rule allows nobody, so ``ingress: [{}]`` denies all; an empty list of rules is as if it were absent.

`ciliumpeers` reads a rule's L3 part and scopes its selectors, `ciliumports` its L4 part and what hangs on
it. Both say there what is not supported yet, and refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from axoneme.model import selectors
from axoneme.model.ciliumpeers import MEMBERS, REMOVED, Scope, parse_peers
from axoneme.model.ciliumports import Ports, parse_ports
from axoneme.model.labels import ANY, K8S, NAMESPACE, NODE, RESERVED, Label, Labels, Selector, equals, exists
from axoneme.model.metadata import naming, parse_metadata
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import ALL_PORTS, AnyPeer, Authentication, Direction, Policy, PolicyRef, Rule
from axoneme.model.trial import audited

NAMESPACED = "CiliumNetworkPolicy"
CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"

#: Characters of a rule's log text.
LONGEST_LOG = 32


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    direction: Direction
    deny: bool


_SECTIONS = (
    _Section("ingress", Direction.INGRESS, False),
    _Section("ingressDeny", Direction.INGRESS, True),
    _Section("egress", Direction.EGRESS, False),
    _Section("egressDeny", Direction.EGRESS, True),
)
_SPEC_FIELDS = (
    "endpointSelector",
    "nodeSelector",
    *(section.name for section in _SECTIONS),
    "enableDefaultDeny",
    "labels",
    "description",
    "log",
)
#: What allow rules may have and deny rules may not.
_ALLOW_ONLY = ("toFQDNs", "authentication")
_MODES = {
    "disabled": Authentication.DISABLED,
    "required": Authentication.REQUIRED,
    "test-always-fail": Authentication.ALWAYS_FAIL,
}
#: The reserved labels that endpoints have, which policies can select.
_SELECTABLE = ("init", "health", "ingress")


def parse_cilium_policy(object: Mapping[str, object], *, cluster_name: str | None) -> tuple[Policy, ...]:
    """The policies of an object of either kind, one for each of its specs.

    Peers are those of the cluster ``cluster_name`` unless a selector names another; None lets selectors
    mean every cluster. Raises `ManifestError`.
    """
    with naming(object) as fields:
        kind = fields.need("kind").one_of((NAMESPACED, CLUSTERWIDE))
        fields.only(("apiVersion", "kind", "metadata", "spec", "specs", "status"))
        metadata = parse_metadata(fields, namespaced=kind == NAMESPACED, strict=True)
        ref = PolicyRef(kind, metadata.namespace, metadata.name)
        spec = fields.stated("spec")
        specs = ([] if spec is None else [spec]) + fields.stated_items("specs")
        if not specs:
            fields.need("spec", "a policy needs spec, or specs with at least one item")
        return audited(metadata, (_policy(place, ref, cluster_name) for place in specs))


def _policy(spec: Place, ref: PolicyRef, cluster: str | None) -> Policy:
    fields = spec.fields(_SPEC_FIELDS)
    namespace = ref.namespace or None
    node = fields.stated("nodeSelector")
    subject = _subject(fields, namespace) if node is None else _node_subject(node, fields, namespace)
    init = any(r.source == RESERVED and r.key == "init" for r in subject.requirements)
    scope = Scope(namespace, cluster, init)
    rules = tuple(
        rule
        for section in _SECTIONS
        for place in fields.stated_items(section.name)
        for rule in _rules(place, section, scope)
    )
    for rule in rules if node is not None else ():
        _refuse_above_l4(rule)
    if not rules:
        names = ", ".join(section.name for section in _SECTIONS)
        spec.refuse(f"at least one of {names} must hold a rule", "no rule")
    return Policy(
        ref,
        subject,
        rules,
        _default_deny(fields, rules),
        labels=tuple(_rule_label(item) for item in fields.items("labels")),
        description=fields.text("description"),
        log=_log(fields),
        hosts=node is not None,
    )


def _subject(fields: Fields, namespace: str | None) -> Selector:
    place = fields.need("endpointSelector", "a policy says whom it selects; {} selects every pod")
    requirements = selectors.cilium(place)
    if namespace is None:
        for requirement in requirements:
            if requirement.source == RESERVED and requirement.key not in _SELECTABLE:
                place.refuse(
                    f"of the reserved labels only {', '.join(_SELECTABLE)} stand on endpoints",
                    f"the label {requirement}",
                )
        return Selector().and_(*requirements)
    own = Labels((Label(K8S, NAMESPACE, namespace),))
    for requirement in requirements:
        if requirement.source == RESERVED and selectors.positive(requirement):
            place.refuse(
                f"a {NAMESPACED} selects pods of its namespace; {CLUSTERWIDE} selects others",
                f"the label {requirement}",
            )
    for requirement in selectors.about(requirements, NAMESPACE):
        if not requirement.holds(own):
            place.refuse(
                f"the policy selects pods of its own namespace, {namespace}", f"the label {requirement}"
            )
    return Selector().and_(*requirements, equals(K8S, NAMESPACE, namespace))


def _node_subject(place: Place, fields: Fields, namespace: str | None) -> Selector:
    """Nodes have the labels of their objects."""
    if namespace is not None:
        place.refuse(f"only a {CLUSTERWIDE} can select nodes")
    if fields.stated("endpointSelector") is not None:
        place.refuse("a policy is either for endpoints or for nodes: make it two specs")
    requirements = selectors.cilium(place)
    for requirement in requirements:
        if requirement.source not in (ANY, K8S, NODE):
            place.refuse("nodes are selected by the labels of their objects", f"the label {requirement}")
    own = (replace(each, source=NODE) if each.source == K8S else each for each in requirements)
    return Selector().and_(exists(RESERVED, "host"), *own)


def _refuse_above_l4(rule: Rule) -> None:
    if rule.authentication:
        Place(None, rule.path).refuse(
            "nodes have no identity to prove yet: the rule could not be enforced", "authentication"
        )
    if rule.l7 is not None:
        Place(None, rule.path).refuse(
            "in a policy for nodes, rules above L4 are not supported yet: the rule could not be enforced",
            f"one for {rule.l7.kind.name}",
        )


def _default_deny(fields: Fields, rules: tuple[Rule, ...]) -> frozenset[Direction]:
    """The directions that have rules, unless ``enableDefaultDeny`` says otherwise."""
    place = fields.stated("enableDefaultDeny")
    wanted = {direction: any(rule.direction is direction for rule in rules) for direction in Direction}
    if place is not None:
        stated = place.fields(("ingress", "egress"))
        for direction in Direction:
            if (flag := stated.stated(direction.name.lower())) is not None:
                wanted[direction] = flag.flag()
    return frozenset(direction for direction in Direction if wanted[direction])


# ---- rules -------------------------------------------------------------------------------------


def _rules(place: Place, section: _Section, scope: Scope) -> Iterator[Rule]:
    """The rule at a place, and those that its ports make with what stands above them."""
    direction, deny = section.direction, section.deny
    fields = place.fields((*MEMBERS[direction], REMOVED[direction], "toPorts", "icmps", "authentication"))
    for name in _ALLOW_ONLY if deny else ():
        if name in fields:
            fields.place(name).refuse(f"a deny rule cannot have {name}: it acts on other peers, and on ports")
    authentication = _authentication(fields)
    peers = parse_peers(fields, direction, scope)
    parts = parse_ports(fields, direction, deny, scope.namespace)
    if peers is None:
        # Ports alone are open to everybody; a rule that says nothing is about nobody.
        peers = () if parts is None else (AnyPeer(),)
    for part in (Ports(ALL_PORTS),) if parts is None else parts:
        yield Rule(
            direction,
            peers,
            part.ports,
            deny,
            part.path or place.path,
            part.l7,
            authentication=authentication,
        )


def _authentication(fields: Fields) -> Authentication | None:
    place = fields.stated("authentication")
    if place is None:
        return None
    return _MODES[place.fields(("mode",)).need("mode").one_of(_MODES)]


# ---- what people note ---------------------------------------------------------------------------


def _rule_label(place: Place) -> str:
    """``source:key=value``, as text or in parts."""
    if isinstance(place.value, str):
        return str(Label.parse(place.name()))
    fields = place.fields(("source", "key", "value", "cidr"))
    key = fields.need("key").name()
    return str(Label(fields.text("source") or "unspec", key, fields.text("value")))


def _log(fields: Fields) -> str:
    place = fields.get("log")
    value = place.fields(("value",)).get("value") if place else None
    if value is None:
        return ""
    text = value.text()
    if len(text) > LONGEST_LOG or not text.isprintable():
        value.refuse(f"at most {LONGEST_LOG} printable characters belong here")
    return text
