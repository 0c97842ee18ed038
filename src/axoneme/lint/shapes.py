"""Traps in the shape of one object: empty rules, lists and sections, directions, ports. As it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from axoneme.lint import findings as traps
from axoneme.lint.findings import Trap
from axoneme.lint.statements import items, specs
from axoneme.model.adminpolicy import ADMIN, BASELINE
from axoneme.model.checks import is_port_name
from axoneme.model.ciliumpeers import MEMBERS
from axoneme.model.manifests import Manifest
from axoneme.model.networkpolicy import KIND as NETWORK_POLICY
from axoneme.model.policy import Direction

#: A trap, where, and what stands there.
Found = tuple[Trap, str, str]

_SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
_PEERS = tuple(name for direction in Direction for name in MEMBERS[direction])


def look_at(manifest: Manifest) -> Iterator[Found]:
    for spec, path in specs(manifest):
        if manifest.kind == NETWORK_POLICY:
            yield from _network_policy(manifest, spec, path)
        elif manifest.kind not in (ADMIN, BASELINE):  # what is empty there is refused
            yield from _cilium_policy(spec, path)


# ---- the Cilium kinds --------------------------------------------------------------------------


def _cilium_policy(spec: Mapping[str, object], path: str) -> Iterator[Found]:
    written = [name for name in _SECTIONS if items(spec.get(name))]
    for section in _SECTIONS:
        rules, at = items(spec.get(section)), f"{path}.{section}"
        if spec.get(section) == [] and written:
            yield traps.EMPTY_SECTION, at, f"{section}: []"
        for index, rule in enumerate(rules):
            if isinstance(rule, Mapping):
                yield from _cilium_rule(rule, f"{at}[{index}]", alone=len(rules) == 1)


def _cilium_rule(rule: Mapping[str, object], path: str, alone: bool) -> Iterator[Found]:
    if not any(rule.values()):
        empty = next((name for name in _PEERS if rule.get(name) == []), "")
        if empty:
            yield traps.NO_PEERS, f"{path}.{empty}", f"{empty}: []"
        else:
            trap = traps.EMPTY_RULE_NOBODY if alone else traps.EMPTY_RULE_IDLE
            yield trap, path, "{}"
        return
    for name in _PEERS:
        if rule.get(name) == []:
            yield traps.NO_PEERS, f"{path}.{name}", f"{name}: []"
    for index, entry in enumerate(items(rule.get("toPorts"))):
        if isinstance(entry, Mapping):
            at = f"{path}.toPorts[{index}]"
            yield from _ports(items(entry.get("ports")), f"{at}.ports")
            above = entry.get("rules")
            for kind, rules in above.items() if isinstance(above, Mapping) else ():
                if rules == []:
                    yield traps.NO_L7, f"{at}.rules.{kind}", f"{kind}: []"
            if isinstance(above, Mapping):
                yield from _names(items(above.get("dns")), f"{at}.rules.dns")
    yield from _names(items(rule.get("toFQDNs")), f"{path}.toFQDNs")


def _names(listed: list[object], path: str) -> Iterator[Found]:
    for index, item in enumerate(listed):
        pattern = item.get("matchPattern") if isinstance(item, Mapping) else None
        if isinstance(pattern, str) and re.match(r"\*+[^*.]", pattern):
            yield traps.STAR_IN_LABEL, f"{path}[{index}].matchPattern", pattern


# ---- NetworkPolicy -----------------------------------------------------------------------------


def _network_policy(manifest: Manifest, spec: Mapping[str, object], path: str) -> Iterator[Found]:
    types = items(spec.get("policyTypes"))
    for section, peers in (("ingress", "from"), ("egress", "to")):
        rules, at = items(spec.get(section)), f"{path}.{section}"
        if rules and types and section.capitalize() not in types:
            yield (
                traps.UNUSED_RULES,
                at,
                f"{len(rules)} rules, while policyTypes names {', '.join(map(str, types))}",
            )
        for index, rule in enumerate(rules):
            if isinstance(rule, Mapping):
                yield from _rule(rule, peers, f"{at}[{index}]", alone=len(rules) == 1)
    name = manifest.name.lower()
    if (
        not types
        and "egress" not in spec
        and not items(spec.get("ingress"))
        and ("egress" in name or "all" in name.split("-"))
    ):
        yield traps.INGRESS_ONLY, path, f"no policyTypes and no egress in a policy called {manifest.name}"


def _rule(rule: Mapping[str, object], peers: str, path: str, alone: bool) -> Iterator[Found]:
    ports = items(rule.get("ports"))
    if not any(rule.values()):
        trap = traps.EMPTY_RULE_EVERYBODY if alone else traps.EMPTY_RULE_BESIDE
        yield trap, path, "{}"
        return
    listed = [item for item in items(rule.get(peers)) if isinstance(item, Mapping)]
    pods = [item for item in listed if "podSelector" in item and "namespaceSelector" not in item]
    if pods and any("namespaceSelector" in item and "podSelector" not in item for item in listed):
        yield traps.OR_FOR_AND, f"{path}.{peers}", "one item with namespaceSelector and one with podSelector"
    yield from _ports(ports, f"{path}.ports")
    asked = [item for item in ports if isinstance(item, Mapping) and item.get("port") == 53]
    if asked and not any(item.get("protocol") in ("UDP", "TCP") for item in asked):
        yield traps.DNS_OVER_TCP, f"{path}.ports", "port 53 without protocol"


def _ports(ports: list[object], path: str) -> Iterator[Found]:
    for index, port in enumerate(ports):
        if not isinstance(port, Mapping) or port.get("endPort") is None:
            continue
        name = port.get("port")
        if isinstance(name, str) and is_port_name(name):
            yield traps.END_PORT_IGNORED, f"{path}[{index}].endPort", f"endPort behind the port {name}"
