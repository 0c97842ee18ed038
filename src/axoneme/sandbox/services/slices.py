"""EndpointSlices: which pods are behind a service, as kube-controller-manager writes it down.

Pure. A pod belongs to the slices of its address family and of the numbers that the service's ports have in
it. A change of one pod is a write of one slice: an endpoint stays where it is, a new one goes where there is
room, and nothing is moved to tidy up.
Sources: discovery.k8s.io/v1; staging/src/k8s.io/endpointslice in Kubernetes; KEP 752, 1672, 2433, 4444.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from axoneme.model import documents
from axoneme.sandbox.objects import Metadata, Node, ObjectKey, Pod, Service, ServicePort
from axoneme.sandbox.workloads.changes import NewObject, Surroundings
from axoneme.sandbox.workloads.podtemplate import metadata_of, owner_reference

KIND: Final = "EndpointSlice"
API_VERSION: Final = "discovery.k8s.io/v1"
SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
HEADLESS: Final = "service.kubernetes.io/headless"
MANAGER: Final = "endpointslice-controller.k8s.io"
ZONE: Final = "topology.kubernetes.io/zone"

#: Of Kubernetes' --max-endpoints-per-slice.
MOST: Final = 100

_RESERVED: Final = (SERVICE_NAME, MANAGED_BY, HEADLESS)
#: Values of a service's trafficDistribution that make hints.
_CLOSE: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")
_SAME_NODE: Final = "PreferSameNode"


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class EndpointPort(_Part, frozen=True, omit_defaults=False):
    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str | msgspec.UnsetType | None = msgspec.UNSET


class Conditions(_Part, frozen=True):
    """None counts as true for ``ready`` and ``serving``, as false for ``terminating``."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(_Part, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Named(_Part, frozen=True):
    name: str


class Hints(_Part, frozen=True):
    for_zones: tuple[Named, ...] = ()
    for_nodes: tuple[Named, ...] = ()


class Endpoint(_Part, frozen=True):
    addresses: tuple[str, ...]
    conditions: Conditions = Conditions()
    hostname: str = ""
    target_ref: ObjectReference | None = None
    node_name: str = ""
    zone: str = ""
    hints: Hints | None = None

    @property
    def pod(self) -> str:
        """The uid of the pod behind it."""
        return self.target_ref.uid if self.target_ref else ""


class EndpointSlice(_Part, frozen=True):
    metadata: Metadata = Metadata()
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(KIND, self.metadata.namespace, self.metadata.name)

    @property
    def service(self) -> str:
        return self.metadata.labels.get(SERVICE_NAME, "")

    @property
    def group(self) -> Group:
        return Group(self.address_type, self.ports)


@dataclass(frozen=True, slots=True)
class Group:
    """What the endpoints of a slice have in common."""

    address_type: str
    ports: tuple[EndpointPort, ...]


@dataclass(frozen=True, slots=True)
class SliceChanges:
    """``update``: the slices as they shall be (see `changed`). To be done in this order, so that no endpoint
    is in none in between."""

    create: tuple[NewObject, ...] = ()
    update: tuple[EndpointSlice, ...] = ()
    delete: tuple[ObjectKey, ...] = ()

    @property
    def writes(self) -> int:
        return len(self.create) + len(self.update) + len(self.delete)


def kept_for(service: Service) -> bool:
    """Whether this controller keeps slices of the service."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def ours(found: EndpointSlice, service: Service) -> bool:
    """Whether a slice was made here for this very service."""
    owner = found.metadata.controller
    return (
        found.metadata.labels.get(MANAGED_BY) == MANAGER
        and found.service == service.metadata.name
        and owner is not None
        and (owner.kind, owner.uid) == ("Service", service.metadata.uid)
    )


def reconcile(
    service: Service,
    pods: Iterable[Pod],
    nodes: Mapping[str, Node],
    existing: Sequence[EndpointSlice],
    surroundings: Surroundings,
) -> SliceChanges:
    """What brings the slices of a service in line; `pods` are those that its selector selects, `existing`
    are `ours`."""
    if not kept_for(service):
        return SliceChanges(delete=tuple(each.key for each in existing))
    labels = _labels(service)
    create: list[NewObject] = []
    update: list[EndpointSlice] = []
    delete: list[ObjectKey] = []
    wanted = _wanted(service, pods, nodes)
    for each in existing:
        if each.group not in wanted:
            delete.append(each.key)
    for group, endpoints in wanted.items():
        there = [each for each in existing if each.group == group]
        filled, more = _fill(there, endpoints)
        for before, after in zip(there, filled, strict=True):
            if not after and endpoints:
                delete.append(before.key)
            elif after != before.endpoints or before.metadata.labels != labels:
                update.append(
                    replace(before, endpoints=after, metadata=replace(before.metadata, labels=labels))
                )
        if not there and not endpoints:
            more = [()]  # a service that nobody is behind says so
        create += [_new(service, labels, group, each, surroundings) for each in more]
        if not endpoints:
            delete += [each.key for each in there[1:]]
            update = [each for each in update if each.key not in delete]
    return SliceChanges(tuple(create), tuple(update), tuple(delete))


def changed(document: bytes, found: EndpointSlice) -> bytes:
    """The slice as it stands in the store, with the endpoints and labels of `found`."""
    relabelled = documents.with_field(document, ("metadata", "labels"), found.metadata.labels)
    return documents.with_field(relabelled, ("endpoints",), found.endpoints)


# ---- what shall be ---------------------------------------------------------------------------------


def _wanted(
    service: Service, pods: Iterable[Pod], nodes: Mapping[str, Node]
) -> dict[Group, dict[str, Endpoint]]:
    """The endpoints of each group, by the uid of the pod; a family without any has an empty group."""
    wanted: dict[Group, dict[str, Endpoint]] = {}
    families = service.spec.ip_families
    for pod in sorted(pods, key=lambda pod: pod.metadata.name):
        if pod.finished:
            continue
        addresses = [each.ip for each in pod.status.pod_ips] or [pod.status.pod_ip]
        for family in families:
            own = tuple(each for each in addresses if each and _family(each) == family)
            if own:
                group = Group(family, _ports(service, pod))
                endpoint = _endpoint(service, pod, nodes.get(pod.spec.node_name), own)
                wanted.setdefault(group, {})[pod.metadata.uid] = endpoint
    for family in families:
        if not any(group.address_type == family for group in wanted):
            wanted[Group(family, ())] = {}
    return wanted


def _endpoint(service: Service, pod: Pod, node: Node | None, addresses: tuple[str, ...]) -> Endpoint:
    spec = service.spec
    serving, terminating = pod.status.ready, pod.terminating
    ready = spec.publish_not_ready_addresses or (serving and not terminating)
    zone = node.metadata.labels.get(ZONE, "") if node else ""
    named = bool(pod.spec.hostname) and pod.spec.subdomain == service.metadata.name
    hints = None
    if ready and spec.traffic_distribution in _CLOSE:
        same_node = spec.traffic_distribution == _SAME_NODE and pod.spec.node_name
        hints = Hints(
            for_zones=(Named(name=zone),) if zone else (),
            for_nodes=(Named(name=pod.spec.node_name),) if same_node else (),
        )
    return Endpoint(
        addresses=addresses,
        conditions=Conditions(ready=ready, serving=serving, terminating=terminating),
        hostname=pod.spec.hostname if named else "",
        target_ref=ObjectReference(
            kind="Pod", namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
        node_name=pod.spec.node_name,
        zone=zone,
        hints=hints if hints != Hints() else None,
    )


def _ports(service: Service, pod: Pod) -> tuple[EndpointPort, ...]:
    """The service's ports as this pod has them; one that it does not have is left away."""
    found = ((each, target_port(each, pod)) for each in service.spec.ports)
    return tuple(
        EndpointPort(
            name=each.name,
            protocol=each.protocol,
            port=number,
            app_protocol=each.app_protocol or msgspec.UNSET,
        )
        for each, number in found
        if number
    )


def target_port(port: ServicePort, pod: Pod) -> int:
    """The number of a service's port in a pod; 0 when the pod has no port of that name and protocol."""
    target = port.port if port.target_port in (None, "", 0) else port.target_port
    if isinstance(target, int):
        return target
    sidecars = (each for each in pod.spec.init_containers if each.restart_policy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        for each in container.ports:
            if (each.name, each.protocol) == (target, port.protocol):
                return each.container_port
    return 0


def _labels(service: Service) -> dict[str, str]:
    labels = {key: value for key, value in service.metadata.labels.items() if key not in _RESERVED}
    if service.spec.cluster_ip in ("", "None"):
        labels[HEADLESS] = ""
    return {**labels, SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER}


def _family(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"


# ---- where it goes ---------------------------------------------------------------------------------


def _fill(
    there: Sequence[EndpointSlice], endpoints: Mapping[str, Endpoint]
) -> tuple[list[tuple[Endpoint, ...]], list[tuple[Endpoint, ...]]]:
    """The endpoints of the slices that are there, in their order, and of new ones.

    What is new goes to slices that are written anyway, then into the fullest one in which all of the rest
    has room, and into new ones when there is none.
    """
    left = dict(endpoints)
    filled: list[list[Endpoint]] = [
        [left.pop(each.pod) for each in found.endpoints if each.pod in left] for found in there
    ]
    for found, now in zip(there, filled, strict=True):
        if tuple(now) != found.endpoints and now:
            _move(left, now)
    if left:
        roomy = [now for now in filled if now and len(now) + len(left) <= MOST]
        if not roomy:  # an empty one is as good as a new one, and is there
            roomy = [now for now in filled if len(now) + len(left) <= MOST]
        if roomy:
            _move(left, max(roomy, key=len))
    more: list[list[Endpoint]] = []
    while left:
        more.append([])
        _move(left, more[-1])
    return [tuple(now) for now in filled], [tuple(now) for now in more]


def _move(left: dict[str, Endpoint], into: list[Endpoint]) -> None:
    for uid in list(left)[: MOST - len(into)]:
        into.append(left.pop(uid))


def _new(
    service: Service,
    labels: dict[str, str],
    group: Group,
    endpoints: tuple[Endpoint, ...],
    surroundings: Surroundings,
) -> NewObject:
    stem = f"{service.metadata.name}-"
    key = ObjectKey(KIND, service.metadata.namespace, stem + surroundings.suffix())
    owner = owner_reference("v1", "Service", service.metadata)
    made = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata_of(key, owner, surroundings, labels, {}, generate_name=stem),
        "addressType": group.address_type,
        "endpoints": endpoints,
        "ports": group.ports,
    }
    return NewObject(key, msgspec.json.encode(made))
