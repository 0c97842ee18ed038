"""From a plan to Envoy's resources: a pure function, of which the whole configuration is the value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from axoneme.model.l7 import L7, L7Kind, SecretRef
from axoneme.proxy.envoy import accesslogs, clusters, tls
from axoneme.proxy.envoy.listeners import listener
from axoneme.proxy.envoy.protos import Kernel, Message, packed
from axoneme.proxy.envoy.routes import UnusableRule, route_configuration
from axoneme.proxy.plan import Listener, Plan

_TYPE: Final = "type.googleapis.com/envoy."
CLUSTER: Final = f"{_TYPE}config.cluster.v3.Cluster"
SECRET: Final = f"{_TYPE}extensions.transport_sockets.tls.v3.Secret"
ROUTES: Final = f"{_TYPE}config.route.v3.RouteConfiguration"
BUDGET: Final = f"{_TYPE}type.v3.TokenBucket"
LISTENER: Final = f"{_TYPE}config.listener.v3.Listener"
#: Each kind after those that it refers to.
ORDER: Final = (CLUSTER, SECRET, ROUTES, BUDGET, LISTENER)


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
        for bucket, budget in accesslogs.buckets():
            yield _resource(BUDGET, bucket, budget)
    yield _resource(LISTENER, name, listener(it, plan.families, plan.redaction.headers, kernel))


def _lacking(rules: L7) -> str:
    """What is asked for and cannot be done; empty when nothing is."""
    if rules.kind not in (L7Kind.HTTP, L7Kind.TLS):
        return f"rules for {rules.kind.value} are none of this proxy's"
    if rules.kind is L7Kind.HTTP and rules.server_names and rules.terminating is None:
        return "requests inside TLS cannot be seen without terminatingTLS"
    if rules.kind is L7Kind.TLS and rules.originating is not None and rules.terminating is None:
        return "originatingTLS needs terminatingTLS, or rules for http: it would put TLS into TLS"
    if rules.listener is not None:
        return "listeners of CiliumEnvoyConfig are not supported"
    return ""


def _resource(type_url: str, name: str, message: Message) -> tuple[Key, Resource]:
    content = packed(message)
    return Key(type_url, name), Resource(hashlib.sha256(content.value).hexdigest()[:16], content)
