"""From a plan to Envoy's resources: a pure function, of which the whole configuration is the value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from axoneme.model.envoyconfig import CLUSTERWIDE, NAMESPACED
from axoneme.model.l7 import L7, L7Kind, SecretRef
from axoneme.proxy.envoy import accesslogs, clusters, tls
from axoneme.proxy.envoy.given import Given
from axoneme.proxy.envoy.listeners import given, listener
from axoneme.proxy.envoy.protos import Kernel, Message, packed
from axoneme.proxy.envoy.routes import UnusableRule, route_configuration
from axoneme.proxy.plan import Listener, Plan

_TYPE: Final = "type.googleapis.com/envoy."
CLUSTER: Final = f"{_TYPE}config.cluster.v3.Cluster"
SECRET: Final = f"{_TYPE}extensions.transport_sockets.tls.v3.Secret"
ROUTES: Final = f"{_TYPE}config.route.v3.RouteConfiguration"
ENDPOINTS: Final = f"{_TYPE}config.endpoint.v3.ClusterLoadAssignment"
BUDGET: Final = f"{_TYPE}type.v3.TokenBucket"
LISTENER: Final = f"{_TYPE}config.listener.v3.Listener"
#: Each kind after those that it refers to.
ORDER: Final = (CLUSTER, ENDPOINTS, SECRET, ROUTES, BUDGET, LISTENER)


class Key(NamedTuple):
    type_url: str
    name: str


class Resource(NamedTuple):
    version: str
    content: Message  # google.protobuf.Any


@dataclass(frozen=True)
class Resources:
    """``needs``: by port, what has to be in force for it. ``errors``: by port, why it cannot be served."""

    content: Mapping[Key, Resource] = field(default_factory=dict)
    needs: Mapping[int, frozenset[Key]] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)


def resources(plan: Plan, kernel: Kernel) -> Resources:
    secrets = {SecretRef(it.namespace, it.name): it.data for it in plan.secrets}
    content: dict[Key, Resource] = {}
    needs: dict[int, frozenset[Key]] = {}
    errors: dict[int, str] = {}
    for each in plan.listeners:
        try:
            parts = dict(_parts(each, plan, secrets, kernel))
        except ValueError as error:  # also what cannot be text in a message
            errors[each.port] = str(error)
            continue
        needs[each.port] = frozenset(parts)
        content |= parts
    return Resources(content, needs, errors)


def _parts(
    it: Listener,
    plan: Plan,
    secrets: Mapping[SecretRef, Mapping[str, bytes]],
    kernel: Kernel,
) -> Iterator[tuple[Key, Resource]]:
    if it.rules.listener is not None:
        yield from _given(it, plan, kernel)
        return
    if lacking := _lacking(it.rules):
        raise UnusableRule(lacking)
    rules = it.rules
    cluster = clusters.name_for(rules.originating)
    transport = tls.originating(rules.originating, secrets) if rules.originating else None
    yield _resource(CLUSTER, cluster, clusters.cluster(cluster, transport, kernel))
    if rules.terminating:
        for each in tls.for_clients(rules.terminating, secrets):
            yield _resource(SECRET, each.name, each)
    if rules.originating:
        for each in tls.for_servers(rules.originating, secrets):
            yield _resource(SECRET, each.name, each)
    name = str(it.port)
    if rules.kind is L7Kind.HTTP:
        yield _resource(ROUTES, name, route_configuration(name, rules.http, secrets, cluster, it.audit))
        yield from _budgets(accesslogs.BUCKETS)
    yield _resource(LISTENER, name, listener(it, plan.families, plan.redaction.headers, kernel))


def _given(it: Listener, plan: Plan, kernel: Kernel) -> Iterator[tuple[Key, Resource]]:
    wanted = it.rules.listener
    assert wanted is not None
    found = next((c for c in plan.configs if (c.namespace, c.name) == (wanted.namespace, wanted.name)), None)
    if found is None:
        kind = NAMESPACED if wanted.namespace else CLUSTERWIDE
        raise UnusableRule(f"there is no {kind} {f'{wanted.namespace}/{wanted.name}'.removeprefix('/')}")
    config = Given(found)
    for type_url, name, message in config.others:
        if type_url == CLUSTER and not message.HasField("upstream_bind_config"):
            message.upstream_bind_config.CopyFrom(clusters.own_ports(kernel))
        yield _resource(type_url, name, message)
    yield from _budgets((accesslogs.PASSED,))
    made = given(it, config, plan.families, plan.redaction.headers, kernel)
    yield _resource(LISTENER, str(it.port), made)


def _budgets(names: Iterable[str]) -> Iterator[tuple[Key, Resource]]:
    return (_resource(BUDGET, name, accesslogs.budget()) for name in names)


def _lacking(rules: L7) -> str:
    """What is asked for and cannot be done; empty when nothing is."""
    if rules.kind not in (L7Kind.HTTP, L7Kind.TLS):
        return f"rules for {rules.kind.value} are none of this proxy's"
    if rules.kind is L7Kind.HTTP and rules.server_names and rules.terminating is None:
        return "requests inside TLS cannot be seen without terminatingTLS"
    if rules.kind is L7Kind.TLS and rules.originating is not None and rules.terminating is None:
        return "originatingTLS needs terminatingTLS, or rules for http: it would put TLS into TLS"
    return ""


def _resource(type_url: str, name: str, message: Message) -> tuple[Key, Resource]:
    content = packed(message)
    return Key(type_url, name), Resource(hashlib.sha256(content.value).hexdigest()[:16], content)
