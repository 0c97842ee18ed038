"""The columns of a listing of each kind: what `axo get` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from axoneme.cli import kinds, views
from axoneme.cli.ages import short, since
from axoneme.cli.kinds import Kind
from axoneme.cli.objects import Stored
from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.sandbox.objects import LabelSelector, ServicePort
from axoneme.sandbox.services.slices import EndpointSlice
from axoneme.sandbox.statuses import Condition

V = TypeVar("V")

#: So many addresses of a slice are named.
_NAMED_ADDRESSES = 3


@dataclass(frozen=True, slots=True)
class Columns:
    """``headers`` without the namespace; those from ``narrow`` on are only for ``-o wide``."""

    headers: tuple[str, ...]
    narrow: int
    cells: Callable[[Stored, datetime], Sequence[str]]

    def of(self, stored: Stored, now: datetime) -> Sequence[str]:
        """The cells of an object; its name, and the reason, of one that cannot be read."""
        try:
            return self.cells(stored, now)
        except msgspec.ValidationError as error:
            unknown = ("<unknown>",) * (len(self.headers) - 2)
            return (stored.key.name, f"<unreadable: {error}>", *unknown)


def of(kind: Kind) -> Columns:
    return _TABLE.get(kind.name, _PLAIN)


def _columns(
    headers: str, kind: type[V], cells: Callable[[V, datetime], Sequence[str]], wide: str = ""
) -> Columns:
    return Columns(
        (*headers.split(), *wide.split()),
        len(headers.split()),
        lambda stored, now: cells(views.view(stored.value, kind), now),
    )


def _any(it: views.Any, now: datetime) -> Sequence[str]:
    return it.metadata.name, since(it.metadata.creation_timestamp, now)


def _pod(it: views.Pod, now: datetime) -> Sequence[str]:
    ready, containers = it.ready
    return (
        it.metadata.name,
        f"{ready}/{containers}",
        it.state,
        str(it.restarts),
        since(it.metadata.creation_timestamp, now),
        ",".join(it.addresses),
        it.spec.node_name,
    )


def _images(it: views.Workload) -> tuple[str, str]:
    containers = it.spec.template.spec.containers
    return ",".join(each.name for each in containers), ",".join(each.image for each in containers)


def _deployment(it: views.Workload, now: datetime) -> Sequence[str]:
    return (
        it.metadata.name,
        f"{it.status.ready_replicas}/{it.spec.replicas}",
        str(it.status.updated_replicas),
        str(it.status.available_replicas),
        since(it.metadata.creation_timestamp, now),
        *_images(it),
        selector(it.spec.selector),
    )


def _replica_set(it: views.Workload, now: datetime) -> Sequence[str]:
    return (
        it.metadata.name,
        str(it.spec.replicas),
        str(it.status.replicas),
        str(it.status.ready_replicas),
        since(it.metadata.creation_timestamp, now),
        *_images(it),
        selector(it.spec.selector),
    )


def _stateful_set(it: views.Workload, now: datetime) -> Sequence[str]:
    ready = f"{it.status.ready_replicas}/{it.spec.replicas}"
    return it.metadata.name, ready, since(it.metadata.creation_timestamp, now), *_images(it)


def _daemon_set(it: views.Workload, now: datetime) -> Sequence[str]:
    status = it.status
    return (
        it.metadata.name,
        str(status.desired_number_scheduled),
        str(status.current_number_scheduled),
        str(status.number_ready),
        str(status.updated_number_scheduled),
        str(status.number_available),
        since(it.metadata.creation_timestamp, now),
        *_images(it),
        selector(it.spec.selector),
    )


def _job(it: views.Workload, now: datetime) -> Sequence[str]:
    wanted = it.spec.parallelism if it.spec.completions is None else it.spec.completions
    return (
        it.metadata.name,
        f"{it.status.succeeded}/{wanted}",
        _duration(it.status, now),
        since(it.metadata.creation_timestamp, now),
        *_images(it),
    )


def _duration(status: views.WorkloadStatus, now: datetime) -> str:
    if not status.start_time:
        return ""
    try:
        end = datetime.fromisoformat(status.completion_time) if status.completion_time else now
        return short(end - datetime.fromisoformat(status.start_time))
    except (ValueError, TypeError):
        return "<unknown>"


def _service(it: views.Service, now: datetime) -> Sequence[str]:
    spec = it.spec
    return (
        it.metadata.name,
        spec.type,
        spec.cluster_ip,
        _outside(it),
        ",".join(map(_service_port, spec.ports)),
        since(it.metadata.creation_timestamp, now),
        equalities(spec.selector),
    )


def _outside(it: views.Service) -> str:
    """Where a service is reached from outside; a load balancer without an address waits for one."""
    spec = it.spec
    found = [each.ip or each.hostname for each in it.status.load_balancer.ingress]
    if spec.type == "LoadBalancer" and not found and not spec.external_ips:
        return "<pending>"
    return ",".join([*found, *spec.external_ips, *([spec.external_name] if spec.external_name else [])])


def _service_port(port: ServicePort) -> str:
    return f"{port.port}{f':{port.node_port}' if port.node_port else ''}/{port.protocol}"


def _endpoint_slice(it: EndpointSlice, now: datetime) -> Sequence[str]:
    addresses = [address for each in it.endpoints for address in each.addresses]
    more = len(addresses) - _NAMED_ADDRESSES
    shown = ",".join(addresses[:_NAMED_ADDRESSES]) + (f" + {more} more..." if more > 0 else "")
    return (
        it.metadata.name,
        it.address_type,
        ",".join(str(each.port) for each in it.ports) or "<unset>",
        shown or "<unset>",
        since(it.metadata.creation_timestamp, now),
    )


def _namespace(it: views.Namespace, now: datetime) -> Sequence[str]:
    phase = "Terminating" if it.metadata.deletion_timestamp else it.status.phase
    return it.metadata.name, phase, since(it.metadata.creation_timestamp, now)


def _node(it: views.Node, now: datetime) -> Sequence[str]:
    info = it.status.node_info
    return (
        it.metadata.name,
        "Ready" if _holds(it.status.conditions, "Ready") else "NotReady",
        since(it.metadata.creation_timestamp, now),
        ",".join(each.address for each in it.status.addresses if each.type == "InternalIP"),
        info.os_image,
        info.kernel_version,
        info.container_runtime_version,
    )


def _policy(stored: Stored, now: datetime) -> Sequence[str]:
    it = views.view(stored.value, views.Policy)
    subjects = dict.fromkeys(map(_subject, it.every))
    return (
        it.metadata.name,
        "; ".join(subjects),
        _directions(stored),
        since(it.metadata.creation_timestamp, now),
    )


def _subject(spec: views.PolicySpec) -> str:
    if spec.admin_subject is None:
        return selector(spec.subject)
    pods = spec.admin_subject.pods
    if pods is None:
        return f"namespaces {selector(spec.admin_subject.namespaces)}"
    return f"namespaces {selector(pods.namespace_selector)} pods {selector(pods.pod_selector)}"


def _directions(stored: Stored) -> str:
    """Those in which it says something, be it only by closing them."""
    try:
        policies = parse_policy(stored.document())
    except ManifestError:
        return "<unreadable>"
    found = {each for policy in policies for each in policy.default_deny}
    found |= {rule.direction for policy in policies for rule in policy.rules}
    return ",".join(each.name.capitalize() for each in sorted(found))


class _Range(msgspec.Struct, frozen=True):
    cidr: str = ""


class _GroupSpec(msgspec.Struct, frozen=True, rename="camel"):
    external_cidrs: tuple[str | _Range, ...] = msgspec.field(default=(), name="externalCIDRs")


class _Group(views.Any, frozen=True):
    spec: _GroupSpec = _GroupSpec()


def _cidr_group(it: _Group, now: datetime) -> Sequence[str]:
    ranges = (each if isinstance(each, str) else each.cidr for each in it.spec.external_cidrs)
    return it.metadata.name, ",".join(ranges), since(it.metadata.creation_timestamp, now)


class _PoolSpec(msgspec.Struct, frozen=True):
    disabled: bool = False


class _PoolStatus(msgspec.Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()


class _Pool(views.Any, frozen=True):
    spec: _PoolSpec = _PoolSpec()
    status: _PoolStatus = _PoolStatus()


def _pool(it: _Pool, now: datetime) -> Sequence[str]:
    told = {each.type: each for each in it.status.conditions}
    conflict, available = told.get("cilium.io/PoolConflict"), told.get("cilium.io/IPsAvailable")
    return (
        it.metadata.name,
        str(it.spec.disabled).lower(),
        conflict.status if conflict else "",
        available.message if available else "",
        since(it.metadata.creation_timestamp, now),
    )


class _LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str = ""


class _Lease(views.Any, frozen=True):
    spec: _LeaseSpec = _LeaseSpec()


def _lease(it: _Lease, now: datetime) -> Sequence[str]:
    return it.metadata.name, it.spec.holder_identity, since(it.metadata.creation_timestamp, now)


def selector(it: LabelSelector | None) -> str:
    """A selector in the words of ``-l``; ``*`` when it selects everything."""
    if it is None:
        return "*"
    parts = [f"{key}={value}" for key, value in it.match_labels.items()]
    for each in it.match_expressions:
        match each.operator:
            case "Exists":
                parts.append(each.key)
            case "DoesNotExist":
                parts.append(f"!{each.key}")
            case "In" | "NotIn":
                parts.append(f"{each.key} {each.operator.lower()} ({','.join(each.values)})")
    return ",".join(parts) or "*"


def equalities(labels: Mapping[str, str]) -> str:
    """Labels in the words of ``-l``."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _holds(conditions: Iterable[Condition], kind: str) -> bool:
    return any(each.type == kind and each.status == "True" for each in conditions)


_IMAGES = "CONTAINERS IMAGES"
_PLAIN = _columns("NAME AGE", views.Any, _any)
_POLICY = Columns(("NAME", "SUBJECT", "DIRECTIONS", "AGE"), 4, _policy)
_TABLE: Mapping[str, Columns] = {
    kinds.POD.name: _columns("NAME READY STATUS RESTARTS AGE", views.Pod, _pod, "IP NODE"),
    kinds.SERVICE.name: _columns(
        "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE", views.Service, _service, "SELECTOR"
    ),
    kinds.ENDPOINT_SLICE.name: _columns(
        "NAME ADDRESSTYPE PORTS ENDPOINTS AGE", EndpointSlice, _endpoint_slice
    ),
    kinds.NAMESPACE.name: _columns("NAME STATUS AGE", views.Namespace, _namespace),
    kinds.NODE.name: _columns(
        "NAME STATUS AGE INTERNAL-IP", views.Node, _node, "OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"
    ),
    kinds.DEPLOYMENT.name: _columns(
        "NAME READY UP-TO-DATE AVAILABLE AGE", views.Workload, _deployment, f"{_IMAGES} SELECTOR"
    ),
    kinds.REPLICA_SET.name: _columns(
        "NAME DESIRED CURRENT READY AGE", views.Workload, _replica_set, f"{_IMAGES} SELECTOR"
    ),
    kinds.STATEFUL_SET.name: _columns("NAME READY AGE", views.Workload, _stateful_set, _IMAGES),
    kinds.DAEMON_SET.name: _columns(
        "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE AGE",
        views.Workload,
        _daemon_set,
        f"{_IMAGES} SELECTOR",
    ),
    kinds.JOB.name: _columns("NAME COMPLETIONS DURATION AGE", views.Workload, _job, _IMAGES),
    kinds.CIDR_GROUP.name: _columns("NAME CIDRS AGE", _Group, _cidr_group),
    kinds.ADDRESS_POOL.name: _columns("NAME DISABLED CONFLICTING IPS-AVAILABLE AGE", _Pool, _pool),
    kinds.LEASE.name: _columns("NAME HOLDER AGE", _Lease, _lease),
    **{kind.name: _POLICY for kind in kinds.POLICIES},
}
