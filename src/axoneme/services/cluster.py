"""A cluster's services as one node balances them, kept up to date change by change.

Whoever listens to the shared state tells objects and local pods, in any order, and asks for `changes`: what
is to be balanced differently since it was asked last. A change of one slice is looked at for one service.

What is told of belongs to a *unit*: a Service with its slices, a pod with its host ports, a policy that
redirects an address. Units are computed whole by pure functions (`compile`, `podports`); here stands
which of them a change concerns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from axoneme.model.endpointslices import EndpointSlice
from axoneme.model.localredirect import LocalRedirectPolicy
from axoneme.model.services import Service, ServicePort
from axoneme.services import podports
from axoneme.services.balanced import Address, Backend, Balanced
from axoneme.services.compile import HealthCheck, balanced, concerns, health_check
from axoneme.services.facts import LocalPod, NodeFacts, Options

Key = tuple[str, str]


class Unit(NamedTuple):
    """One object, by its kind."""

    kind: str
    namespace: str
    name: str


_SERVICE, _POD, _REDIRECT = "Service", "Pod", "CiliumLocalRedirectPolicy"


@dataclass(frozen=True, slots=True)
class Changes:
    """``removals``: name and port of each `Balanced` that is no more. They come before the ``upserts``."""

    upserts: tuple[Balanced, ...] = ()
    removals: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removals)


class ClusterServices:
    """All that one node balances. No method does I/O; for one thread."""

    def __init__(self, node: NodeFacts, options: Options | None = None) -> None:
        self._node = node
        self._options = options or Options()
        self._services: dict[Key, Service] = {}
        #: Slices by name, of each service, and which service a slice was of.
        self._slices: dict[Key, dict[str, EndpointSlice]] = {}
        self._service_of: dict[Key, Key] = {}
        self._redirects: dict[str, dict[str, LocalRedirectPolicy]] = {}
        self._pods: dict[str, dict[str, LocalPod]] = {}
        self._stale: dict[Unit, None] = {}
        #: Stale ones that wait for nobody: a pod is about to start, or has gone.
        self._urgent: dict[Unit, None] = {}
        self._told: dict[Unit, dict[str, Balanced]] = {}
        #: By kind and name of an object: what of it cannot be served.
        self.problems: dict[str, str] = {}
        #: By namespace and name of a Service, as of the last `changes`.
        self.health_checks: dict[Key, HealthCheck] = {}

    # ---- what is told --------------------------------------------------------------------------

    def node_changed(self, node: NodeFacts) -> None:
        """The node has other labels or addresses."""
        if node != self._node:
            self._node = node
            self._stale.update(dict.fromkeys(self._units()))

    def upsert_service(self, service: Service) -> None:
        key = service.metadata.namespace, service.metadata.name
        self._services[key] = service
        self._stale[Unit(_SERVICE, *key)] = None

    def remove_service(self, namespace: str, name: str) -> None:
        if self._services.pop((namespace, name), None):
            self._stale[Unit(_SERVICE, namespace, name)] = None

    def upsert_slice(self, slice_: EndpointSlice) -> None:
        namespace, name = slice_.metadata.namespace, slice_.metadata.name
        service = namespace, slice_.service
        if self._service_of.get((namespace, name)) != service:
            self.remove_slice(namespace, name)
        if not slice_.service or not concerns(slice_.metadata.labels, self._options.proxy_name):
            self.remove_slice(namespace, name)
            return
        self._service_of[namespace, name] = service
        self._slices.setdefault(service, {})[name] = slice_
        self._stale[Unit(_SERVICE, *service)] = None

    def remove_slice(self, namespace: str, name: str) -> None:
        service = self._service_of.pop((namespace, name), None)
        if service is not None:
            del self._slices[service][name]
            if not self._slices[service]:
                del self._slices[service]
            self._stale[Unit(_SERVICE, *service)] = None

    def upsert_redirect(self, policy: LocalRedirectPolicy) -> None:
        namespace, name = policy.metadata.namespace, policy.metadata.name
        of_namespace = self._redirects.setdefault(namespace, {})
        self._redirect_changed(of_namespace.get(name), policy)
        of_namespace[name] = policy

    def remove_redirect(self, namespace: str, name: str) -> None:
        of_namespace = self._redirects.get(namespace, {})
        policy = of_namespace.pop(name, None)
        if not of_namespace:
            self._redirects.pop(namespace, None)
        self._redirect_changed(policy)

    def upsert_pod(self, pod: LocalPod) -> None:
        """A pod of this node."""
        of_namespace = self._pods.setdefault(pod.namespace, {})
        former = of_namespace.get(pod.name)
        of_namespace[pod.name] = pod
        self._pod_changed(former, pod)

    def remove_pod(self, namespace: str, name: str) -> None:
        of_namespace = self._pods.get(namespace, {})
        pod = of_namespace.pop(name, None)
        if not of_namespace:
            self._pods.pop(namespace, None)
        self._pod_changed(pod, None)

    # ---- what follows --------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many units the next `changes` may concern."""
        return len(self._stale) + len(self._urgent)

    def changes(self, most: int | None = None) -> Changes:
        """Since it was asked last; of ``most`` units and of those that pods of this node concern."""
        upserts: list[Balanced] = []
        removals: list[tuple[str, str]] = []
        for unit in self._take(most):
            before, after = self._told.pop(unit, {}), {}
            for each in self._wanted(unit):
                after[each.port] = each
                if before.pop(each.port, None) != each:
                    upserts.append(each)
            removals += ((each.name, port) for port, each in before.items())
            if after:
                self._told[unit] = after
            self._note_problems(unit)
        return Changes(tuple(upserts), tuple(removals))

    def _take(self, most: int | None) -> Iterable[Unit]:
        urgent, self._urgent = self._urgent, {}
        if most is None:
            stale, self._stale = self._stale, {}
        else:
            stale = dict.fromkeys(islice(self._stale, most))
        for unit in (*urgent, *stale):
            self._stale.pop(unit, None)
        return {**urgent, **stale}

    def service_of(self, namespace: str, slice_: str) -> str | None:
        """The name of the Service that a slice belongs to."""
        key = self._service_of.get((namespace, slice_))
        return key[1] if key else None

    def addresses(self, namespace: str, name: str) -> frozenset[Address]:
        """Of all endpoints that the slices of a Service name, in whatever condition."""
        return frozenset(
            endpoint.addresses[0]
            for each in self._slices.get((namespace, name), {}).values()
            for endpoint in each.endpoints
        )

    def _wanted(self, unit: Unit) -> Iterator[Balanced]:
        kind, namespace, name = unit
        if kind == _SERVICE:
            yield from self._service(namespace, name)
        elif kind == _POD:
            if pod := self._pods.get(namespace, {}).get(name):
                yield from podports.host_ports(pod, self._node)
        elif policy := self._redirects.get(namespace, {}).get(name):
            pods = self._pods.get(namespace, {}).values()
            yield from podports.redirected_address(policy, pods, self._node)

    def _service(self, namespace: str, name: str) -> Iterator[Balanced]:
        key = namespace, name
        service = self._services.get(key)
        of_service = self._slices.get(key, {})
        slices = [of_service[each] for each in sorted(of_service)]
        check = health_check(service, slices, self._node, self._options) if service else None
        if check:
            self.health_checks[key] = check
        else:
            self.health_checks.pop(key, None)
        if service:
            yield from balanced(service, slices, self._node, self._options, self._redirected(service))

    def _redirected(self, service: Service) -> Mapping[ServicePort, tuple[Backend, ...]]:
        """By the first policy, in order of names, that redirects a port of it."""
        namespace = service.metadata.namespace
        found: dict[ServicePort, tuple[Backend, ...]] = {}
        policies = self._redirects.get(namespace)
        for name in sorted(policies or ()):
            policy = self._redirects[namespace][name]
            if policy.service == service.metadata.name:
                pods = self._pods.get(namespace, {}).values()
                found = {**podports.redirected_ports(policy, service, pods, self._node), **found}
        return found

    def _note_problems(self, unit: Unit) -> None:
        pod = self._pods.get(unit.namespace, {}).get(unit.name) if unit.kind == _POD else None
        problems = podports.unserved(pod) if pod else ()
        at = f"{unit.kind} {unit.namespace}/{unit.name}"
        if problems:
            self.problems[at] = "; ".join(problems)
        else:
            self.problems.pop(at, None)

    # ---- whom a change concerns ----------------------------------------------------------------

    def _redirect_changed(self, *versions: LocalRedirectPolicy | None, urgent: bool = False) -> None:
        for policy in versions:
            if policy is not None:
                namespace = policy.metadata.namespace
                by_service = Unit(_SERVICE, namespace, policy.service)
                by_address = Unit(_REDIRECT, namespace, policy.metadata.name)
                waiting = self._urgent if urgent else self._stale
                waiting[by_service if policy.service else by_address] = None

    def _pod_changed(self, former: LocalPod | None, pod: LocalPod | None) -> None:
        if former == pod:
            return
        for each in (former, pod):
            if each is not None:
                if any(port.host_port for port in each.ports):
                    self._urgent[Unit(_POD, each.namespace, each.name)] = None
                policies = self._redirects.get(each.namespace, {}).values()
                selecting = (policy for policy in policies if podports.selected(policy, each))
                self._redirect_changed(*selecting, urgent=True)

    def _units(self) -> Iterator[Unit]:
        yield from (Unit(_SERVICE, *key) for key in self._services)
        yield from (Unit(_POD, space, name) for space, pods in self._pods.items() for name in pods)
        yield from (Unit(_REDIRECT, space, name) for space, each in self._redirects.items() for name in each)
