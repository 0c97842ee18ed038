"""What an API server makes of a Service that it takes in: defaults, families, addresses, node ports.

Pure: a service, as it was before if it was there, and what all other services have. What a service has got
it keeps until its type has no use for it, and a service that lacks nothing comes back equal. Rules and words
are those of Kubernetes (pkg/apis/core/v1/defaults.go, pkg/registry/core/service/strategy.go and
storage/alloc.go there).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Final

from axoneme.model.paths import ManifestError
from axoneme.sandbox.services.allocation import (
    Ranges,
    Taken,
    family_of,
    take_addresses,
    take_health_port,
    take_node_ports,
)
from axoneme.sandbox.services.spec import (
    Document,
    addressed,
    check_shape,
    cluster_ips,
    headless,
    health_port,
    needs_health_port,
    needs_node_ports,
    node_port,
    on_nodes,
    owner_of,
    ports_of,
    protocol,
    reached_from_outside,
    refuse,
    spec_of,
    type_of,
)

_SINGLE, _PREFER, _REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_BOTH: Final = ("IPv4", "IPv6")


def admit(service: Document, before: Document | None, taken: Taken, ranges: Ranges) -> Document:
    """The service with all that it needs; `taken` is what services have, this one perhaps among them.

    Raises ManifestError for what cannot be had: a family that the cluster does not have, an address or a
    port that is outside of its range or somebody else's, a change of what cannot be changed.
    """
    old = spec_of(before) if before is not None else None
    try:
        check_shape(service)
        made = deepcopy(service)
        spec = made["spec"] = dict(made.get("spec") or {})
        _normalize(spec)
        if old is not None:
            _keep(spec, old)
            _release(spec, old)
        _default(spec)
        _address(made, old, taken, ranges)
        take_node_ports(made, taken, ranges)
        if needs_health_port(spec):
            take_health_port(made, taken, ranges)
        elif health_port(spec):
            right = "only services of type LoadBalancer with externalTrafficPolicy Local have one"
            refuse("spec.healthCheckNodePort", health_port(spec), right)
    except ManifestError as failure:
        raise _named(service, failure) from None
    return made


def repaired(
    services: Mapping[str, Document], ranges: Ranges
) -> tuple[dict[str, Document], list[ManifestError]]:
    """Of all services, those that lack something, with what they lack; and what is wrong with others.

    What services have they keep, and where two have the same, the older one counts as the holder.
    """
    wrong: list[ManifestError] = []
    sound: dict[str, Document] = {}
    for key in by_age(services):
        try:
            check_shape(services[key])
            sound[key] = services[key]
        except ManifestError as failure:
            wrong.append(_named(services[key], failure))
    taken = Taken.by(sound.values())
    changed: dict[str, Document] = {}
    for key, service in sound.items():
        try:
            made = admit(service, None, taken, ranges)
        except ManifestError as failure:
            wrong.append(failure)
            continue
        if made != service:
            changed[key] = made
            taken.add(made)
    return changed, wrong


def _named(service: Document, failure: ManifestError) -> ManifestError:
    return failure.of("Service " + "/".join(owner_of(service)))


def by_age(services: Mapping[str, Document]) -> list[str]:
    """The keys of services, of the oldest first."""

    def age(key: str) -> tuple[str, str]:
        return (services[key].get("metadata") or {}).get("creationTimestamp") or "~", key

    return sorted(services, key=age)


# ---- as it was before ------------------------------------------------------------------------------


def _normalize(spec: Document) -> None:
    """``clusterIP`` is always the first of ``clusterIPs``."""
    one, several = spec.get("clusterIP"), spec.get("clusterIPs")
    if one and not several:
        spec["clusterIPs"] = [one]
    elif several and not one:
        spec["clusterIP"] = several[0]
    elif one and several and one != several[0]:
        refuse("spec.clusterIPs[0]", several[0], f"it must be the same as clusterIP, {one}")


def _keep(spec: Document, old: Document) -> None:
    """What the service has, and whoever changes it need not say again."""
    if addressed(spec) and addressed(old) and old.get("clusterIPs"):
        if not spec.get("clusterIP"):
            spec["clusterIP"], spec["clusterIPs"] = old["clusterIP"], list(old["clusterIPs"])
        elif spec["clusterIP"] != old["clusterIP"]:
            right = f"it is {old['clusterIP']} and cannot be changed: leave it away, or delete the service"
            refuse("spec.clusterIP", spec["clusterIP"], right)
        for name in ("ipFamilyPolicy", "ipFamilies"):
            if not spec.get(name) and old.get(name):
                spec[name] = old[name]
    if needs_node_ports(spec) and on_nodes(old):
        used = set(map(node_port, ports_of(spec))) & set(map(node_port, ports_of(old)))
        by_name = {each.get("name") or "": node_port(each) for each in ports_of(old)}
        for port in ports_of(spec):
            number = by_name.get(port.get("name") or "", 0)
            if number and not node_port(port) and number not in used:
                port["nodePort"] = number
                used.add(number)
    if needs_health_port(spec) and needs_health_port(old) and not health_port(spec):
        spec["healthCheckNodePort"] = health_port(old)


def _release(spec: Document, old: Document) -> None:
    """A changed type lets go of what it has no use for, unless that was changed as well."""

    def drop(*names: str) -> None:
        for name in names:
            if name in spec and spec[name] == old.get(name):
                del spec[name]

    if addressed(old) and not addressed(spec):
        drop("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
    if addressed(spec) and not addressed(old):
        drop("externalName")
    if on_nodes(old) and not on_nodes(spec):
        had = {(protocol(each), node_port(each)) for each in ports_of(old)}
        for port in ports_of(spec):
            if (protocol(port), node_port(port)) in had:
                port.pop("nodePort", None)
    if needs_health_port(old) and not needs_health_port(spec):
        drop("healthCheckNodePort")
    if type_of(old) == "LoadBalancer" and type_of(spec) != "LoadBalancer":
        drop("allocateLoadBalancerNodePorts", "loadBalancerClass")
    if reached_from_outside(old) and not reached_from_outside(spec):
        drop("externalTrafficPolicy")


# ---- defaults, families ----------------------------------------------------------------------------


def _default(spec: Document) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        client = config.get("clientIP") or {}
        timeout = client.get("timeoutSeconds") or 10_800
        spec["sessionAffinityConfig"] = {**config, "clientIP": {**client, "timeoutSeconds": timeout}}
    for port in ports_of(spec):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, "", 0):
            port["targetPort"] = port.get("port")
    if reached_from_outside(spec):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if addressed(spec):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if type_of(spec) == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _address(service: Document, old: Document | None, taken: Taken, ranges: Ranges) -> None:
    spec = service["spec"]
    if not addressed(spec):
        for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(name):
                right = "a service of type ExternalName has no addresses of its own: leave it away"
                refuse(f"spec.{name}", spec[name], right)
        return
    if headless(spec) and on_nodes(spec):
        refuse("spec.clusterIP", "None", f"a service of type {type_of(spec)} has an address: leave it away")
    _settle_families(spec, old, ranges)
    if not headless(spec):
        take_addresses(service, taken, ranges)


def _settle_families(spec: Document, old: Document | None, ranges: Ranges) -> None:
    """Sets ``ipFamilyPolicy`` and ``ipFamilies``; shortens ``clusterIPs`` where one is given back."""
    # Whoever makes the slices of such a service may have addresses of either family.
    selectorless = headless(spec) and not spec.get("selector")
    policy = spec.setdefault("ipFamilyPolicy", _REQUIRE if selectorless else _SINGLE)
    families, addresses = _listed_families(spec, policy), cluster_ips(spec)
    if old is not None:
        families, addresses = _after(old, policy, families, addresses)
    if policy == _SINGLE and max(len(addresses), len(families)) > 1:
        refuse("spec.ipFamilyPolicy", policy, f"two families need {_PREFER} or {_REQUIRE}")
    for index, text in enumerate(addresses):
        path = f"spec.clusterIPs[{index}]"
        family = family_of(text, path)
        if index >= len(families):
            families.append(family)
        elif families[index] != family:
            refuse(path, text, f"an {families[index]} address belongs here, as ipFamilies says")
    there = ranges.families
    if not selectorless:
        if policy == _REQUIRE and len(there) < 2:
            refuse("spec.ipFamilyPolicy", policy, f"the sandbox has {there[0]} only: say {_PREFER}")
        for index, family in enumerate(families):
            if family not in there:
                refuse(f"spec.ipFamilies[{index}]", family, f"the sandbox has {there[0]} only")
    families = families or [there[0]]
    if policy != _SINGLE and len(families) == 1 and (selectorless or len(there) == 2):
        families.append(next(each for each in _BOTH if each not in families))
    spec["ipFamilies"] = families
    if addresses:
        spec["clusterIPs"] = addresses


def _listed_families(spec: Document, policy: object) -> list[str]:
    if policy not in (_SINGLE, _PREFER, _REQUIRE):
        refuse("spec.ipFamilyPolicy", policy, f"one of {_SINGLE}, {_PREFER}, {_REQUIRE} belongs here")
    families = list(spec.get("ipFamilies") or [])
    for index, family in enumerate(families):
        if family not in _BOTH or family in families[:index]:
            refuse(f"spec.ipFamilies[{index}]", family, "each of IPv4 and IPv6 stands here once at most")
    return families


def _after(
    old: Document, policy: str, families: list[str], addresses: list[str]
) -> tuple[list[str], list[str]]:
    """Families and addresses of a service that was there before; the first of them it keeps."""
    had = list(old.get("ipFamilies") or [])
    if policy == _SINGLE:
        # Nothing but the policy says that the second one shall go: what is as it was follows it.
        addresses = addresses[:1] if addresses == cluster_ips(old) else addresses
        families = families[:1] if families == had else families
    elif len(addresses) < len(cluster_ips(old)) or len(families) < len(had):
        refuse("spec.ipFamilyPolicy", policy, f"{_SINGLE} gives the second family back")
    if had and families and families[0] != had[0]:
        refuse("spec.ipFamilies[0]", families[0], f"it is {had[0]} and cannot be changed")
    return families, addresses
