"""What the shared state says, told to the parts that it concerns.

An object that cannot be understood changes nothing: what it said before stays in force, and the fault is
kept for `Listener.problems` until the object is put right or deleted. Of policies that holds across
restarts: `axoneme.agent.lastgood`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from axoneme.agent.announcer import NODE_OBJECTS
from axoneme.agent.capacity import Need
from axoneme.agent.control import Control
from axoneme.agent.hostpolicies import HostPolicies
from axoneme.agent.lastgood import LastGood
from axoneme.agent.machine import Machine
from axoneme.agent.pods import NAMESPACES, PODS, Pods
from axoneme.agent.podview import NamespaceView
from axoneme.agent.services import ENDPOINT_SLICE, REDIRECT, Services
from axoneme.health.monitor import Monitor
from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.labels import Labels
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.policy import CIDRGroup, Policy
from axoneme.model.services import parse_service
from axoneme.model.state import (
    ENDPOINTS,
    IDENTITIES,
    NODES,
    EndpointState,
    IdentityState,
    NodeState,
    decode,
    identity_of,
)
from axoneme.model.storedservices import read_service
from axoneme.net.commands import NetworkError
from axoneme.policy.engine import PolicyKey
from axoneme.policy.peers import Service
from axoneme.rpc import RpcError
from axoneme.sources.store import Change, Unavailable

log = logging.getLogger(__name__)

OBJECTS = "objects/"
STATE = "state/"
CIDR_GROUP, SERVICE = "CiliumCIDRGroup", "Service"
#: What is followed. Pods are not among it: there are too many, and few of them are this node's.
PREFIXES = (
    *(f"{OBJECTS}{kind}/" for kind in sorted(POLICY_KINDS)),
    f"{OBJECTS}{CIDR_GROUP}/",
    f"{OBJECTS}{SERVICE}/",
    f"{OBJECTS}{ENDPOINT_SLICE}/",
    f"{OBJECTS}{REDIRECT}/",
    NODE_OBJECTS,
    NAMESPACES,
    NODES,
    IDENTITIES,
    ENDPOINTS,
)

#: Of what there are many, and each concerns one service.
SERVICES = (f"{OBJECTS}{SERVICE}/", f"{OBJECTS}{ENDPOINT_SLICE}/")

#: Objects of which the last version that could be read is kept.
_GROUPS = f"{OBJECTS}{CIDR_GROUP}/"
_POLICIES = (*(f"{OBJECTS}{kind}/" for kind in POLICY_KINDS), _GROUPS)

Object = dict[str, Any]


class Listener:
    """Takes changes in; `Control.settle` and `Services.settle` then make them true."""

    def __init__(
        self,
        node: str,
        cluster: str,
        control: Control,
        machine: Machine,
        pods: Pods,
        services: Services,
        last_good: LastGood,
        hosts: HostPolicies,
        health: Monitor | None = None,
    ) -> None:
        self._node = node
        self._cluster = cluster
        self._control = control
        self._machine = machine
        self._pods = pods
        self._services = services
        self._last_good = last_good
        self._hosts = hosts
        self._health = health
        #: Services without selector: policies that name one mean the addresses in its slices.
        self._selectorless: dict[tuple[str, str], Service] = {}
        #: By key: what is wrong with an object.
        self.problems: dict[str, str] = {}

    async def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            try:
                self._inherit(change.key)
                await self._take(change.key, change.value)
            except (Unavailable, OSError) as error:  # OSError: this node's disk is full
                log.warning("%s: %s; this node's pods are looked at again later", change.key, error)
                self._pods.outdated = True
            except (ValueError, RecursionError, msgspec.MsgspecError, RpcError, NetworkError) as error:
                if change.value is None:  # under this key nothing was ever understood
                    self.problems.pop(change.key, None)
                    continue
                self.problems[change.key] = str(error)
                log.warning("%s: %s; what it said before stays in force", change.key, error)
                if change.key.startswith(_POLICIES):
                    await self._as_it_was(change.key)
            else:
                self.problems.pop(change.key, None)
                if change.key.startswith(_POLICIES):
                    self._last_good.read(change.key, change.value)
                    if change.key.startswith(_GROUPS):  # nobody refuses them
                        self._last_good.accepted(change.key)

    def _inherit(self, key: str) -> None:
        """A policy that an earlier agent had to refuse stays as it was if this one must refuse it too."""
        if (
            key.startswith(_POLICIES)
            and not key.startswith(_GROUPS)
            and (was := self._last_good.inherited(key))
        ):
            with suppress(ValueError, msgspec.MsgspecError):
                object = msgspec.json.decode(was, type=Object)
                self._control.policy_was(PolicyKey(*_parts(key)), parse_policy(object, self._cluster))

    async def _as_it_was(self, key: str) -> None:
        """After a restart, a policy that cannot be read says what it said to the agent before."""
        value = self._last_good.unreadable(key)
        if value is None:
            return
        try:
            await self._take(key, value)
        except (ValueError, msgspec.MsgspecError) as error:
            log.warning("%s: nor can what it said before be read: %s", key, error)

    async def _take(self, key: str, value: bytes | None) -> None:
        if key.startswith(STATE):
            self._state(key, value)
        elif key.startswith(PODS):
            if value is not None:
                namespace, name = key.removeprefix(PODS).split("/")
                await self._pods.pod_changed(namespace, name, value)
        elif key.startswith(NODE_OBJECTS):
            self._node_object(key.removeprefix(NODE_OBJECTS), value)
        elif key.startswith(NAMESPACES):
            view = None if value is None else msgspec.json.decode(value, type=NamespaceView)
            name = key.removeprefix(NAMESPACES)
            await self._pods.namespace_changed(name, view)
        else:
            self._object(*_parts(key), value)

    # ---- other nodes ---------------------------------------------------------------------------

    def _state(self, key: str, value: bytes | None) -> None:
        if key.startswith(NODES):
            name = key.removeprefix(NODES)
            state = None if value is None else decode(value, NodeState, key)
            self._machine.node_changed(name, state)
            self._control.node_changed(name, state)
            self._services.node_changed(name, state)
            if self._health:
                self._health.node_changed(name, state)
        elif key.startswith(IDENTITIES):
            number = identity_of(key)
            if value is None:
                self._control.identity_gone(number)
            else:
                self._control.identity_known(number, Labels.parse(decode(value, IdentityState, key).labels))
        elif key.startswith(ENDPOINTS) and not key.startswith(f"{ENDPOINTS}{self._node}/"):
            # This node's own are known at first hand, and better.
            self._control.endpoint_changed(key, None if value is None else decode(value, EndpointState, key))

    def _node_object(self, name: str, value: bytes | None) -> None:
        # A node has metadata as a namespace has.
        view = None if value is None else msgspec.json.decode(value, type=NamespaceView)
        self._control.node_labels(name, view.metadata.labels if view else None)
        if name == self._node:
            self._services.node_object_changed(value)

    # ---- objects -------------------------------------------------------------------------------

    def _object(self, kind: str, namespace: str, name: str, value: bytes | None) -> None:
        if kind == SERVICE:
            self._service(namespace, name, value)
            return
        if kind == ENDPOINT_SLICE:
            self._slice(namespace, name, value)
            return
        if kind == REDIRECT:
            self._services.object_changed(kind, namespace, name, value)
            return
        object = None if value is None else msgspec.json.decode(value, type=Object)
        engine = self._control.engine
        if kind in POLICY_KINDS:
            policies = parse_policy(object, self._cluster) if object else ()
            others = [policy for policy in policies if not policy.hosts]
            self._control.policy_changed(PolicyKey(kind, namespace, name), others)
            self._hosts.told(f"{kind}/{name}", object if len(others) < len(policies) else None)
        elif kind == CIDR_GROUP:
            if object is None:
                engine.remove_cidr_group(name)
            else:
                engine.upsert_cidr_group(parse_cidr_group(object))

    def _service(self, namespace: str, name: str, value: bytes | None) -> None:
        """Policies may name it, and it is balanced."""
        service = None if value is None else read_service(value)
        self._services.service_changed(namespace, name, service)
        self._selectorless.pop((namespace, name), None)
        if service is None:
            self._control.engine.remove_service(namespace, name)
            return
        named = Service(namespace, name, service.metadata.labels, service.selector)
        if not service.selector:
            self._selectorless[namespace, name] = named
        self._control.engine.upsert_service(self._with_addresses(named))

    def _slice(self, namespace: str, name: str, value: bytes | None) -> None:
        """It is balanced, and says where a service without selector is."""
        former = self._services.service_of(namespace, name)
        self._services.object_changed(ENDPOINT_SLICE, namespace, name, value)
        for of in {former, self._services.service_of(namespace, name)}:
            if of is not None and (named := self._selectorless.get((namespace, of))):
                self._control.engine.upsert_service(self._with_addresses(named))

    def _with_addresses(self, service: Service) -> Service:
        if service.selector:
            return service
        return replace(service, addresses=self._services.addresses(service.namespace, service.name))

    def tried(self, objects: Mapping[str, Object]) -> list[Need]:
        """`Control.tried` of objects by their keys. ValueError when one cannot be understood."""
        policies: dict[PolicyKey, Sequence[Policy]] = {}
        things: list[Service | CIDRGroup] = []
        for key, object in objects.items():
            kind, namespace, name = _parts(key)
            if kind in POLICY_KINDS:
                policies[PolicyKey(kind, namespace, name)] = parse_policy(object, self._cluster)
            elif kind == CIDR_GROUP:
                things.append(parse_cidr_group(object))
            elif kind == SERVICE:
                found = parse_service(object)
                named = Service(namespace, name, found.metadata.labels, found.selector)
                things.append(self._with_addresses(named))
        return self._control.tried(policies, things)


def _parts(key: str) -> tuple[str, str, str]:
    """Kind, namespace (empty for kinds without) and name."""
    kind, namespace, name = key.removeprefix(OBJECTS).split("/")
    return kind, "" if namespace == "_" else namespace, name
