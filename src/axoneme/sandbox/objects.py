"""Kubernetes' objects, as much of them as the sandbox plays: read once from JSON, typed from then on.

These structs are for reading. An object is never written back from them, because it may hold fields that
are not named here: `documents` changes single fields of the stored JSON instead. Statuses, which are
ours alone, are in `statuses`. Field names are those of the Kubernetes API (v1, apps/v1, batch/v1).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import msgspec

from axoneme.model.labels import K8S, Label, Labels, Operator, Requirement, Selector
from axoneme.sandbox.statuses import Condition, PodIP

T = TypeVar("T")

OBJECTS = "objects/"

#: Where objects without a namespace stand among the keys.
_NO_NAMESPACE = "_"


class ObjectKey(NamedTuple):
    """Which object; `namespace` is empty for cluster-wide kinds."""

    kind: str
    namespace: str
    name: str

    def path(self) -> str:
        """Its key in the shared state."""
        return f"{OBJECTS}{self.kind}/{self.namespace or _NO_NAMESPACE}/{self.name}"

    @classmethod
    def parse(cls, path: str) -> ObjectKey:
        _, kind, namespace, name = path.split("/", 3)
        return cls(kind, "" if namespace == _NO_NAMESPACE else namespace, name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Unknown fields are passed over: an application's manifests say much that only a real node needs."""


class OwnerReference(_Part, frozen=True):
    kind: str
    name: str
    uid: str
    api_version: str = msgspec.field(default="v1", name="apiVersion")
    controller: bool = False
    block_owner_deletion: bool = False


class Metadata(_Part, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int | None = None
    generation: int = 0

    @property
    def controller(self) -> OwnerReference | None:
        return next((owner for owner in self.owner_references if owner.controller), None)


class SelectorExpression(_Part, frozen=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(_Part, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorExpression, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        wanted = [
            Requirement(K8S, key, Operator.IN, (value,)) for key, value in self.match_labels.items()
        ] + [
            Requirement(K8S, each.key, Operator(each.operator), each.values)
            for each in self.match_expressions
        ]
        return Selector(tuple(wanted)).matches(Labels(Label(K8S, *pair) for pair in labels.items()))


# ---- pods ------------------------------------------------------------------------------------------


class HttpHeader(_Part, frozen=True):
    name: str
    value: str = ""


class HttpGetAction(_Part, frozen=True):
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocketAction(_Part, frozen=True):
    port: int | str
    host: str = ""


class ExecAction(_Part, frozen=True):
    command: tuple[str, ...] = ()


class GrpcAction(_Part, frozen=True):
    port: int
    service: str = ""


class Probe(_Part, frozen=True):
    """One of the four actions, and when to do it; times in seconds."""

    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    exec: ExecAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: float = 0
    period_seconds: float = 10
    timeout_seconds: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3

    def port(self) -> int | str | None:
        action = self.http_get or self.tcp_socket or self.grpc
        return action.port if action else None


class SleepAction(_Part, frozen=True):
    seconds: float = 0


class LifecycleHandler(_Part, frozen=True):
    """One of the actions."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(_Part, frozen=True):
    pre_stop: LifecycleHandler | None = None


class ContainerPort(_Part, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0


class FieldReference(_Part, frozen=True):
    field_path: str


class EnvSource(_Part, frozen=True):
    field_ref: FieldReference | None = None


class EnvVar(_Part, frozen=True):
    name: str
    value: str = ""
    value_from: EnvSource | None = None


class Container(_Part, frozen=True):
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: str = ""  # of init containers: "Always" makes a sidecar

    def probes(self) -> tuple[Probe, ...]:
        every = (self.startup_probe, self.readiness_probe, self.liveness_probe)
        return tuple(probe for probe in every if probe)


class HostAlias(_Part, frozen=True):
    ip: str
    hostnames: tuple[str, ...] = ()


class DnsOption(_Part, frozen=True):
    name: str
    value: str | None = None


class DnsConfig(_Part, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class PodSpec(_Part, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    node_name: str = ""
    node_selector: dict[str, str] = {}
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    service_account_name: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    host_aliases: tuple[HostAlias, ...] = ()
    dns_policy: str = "ClusterFirst"
    dns_config: DnsConfig | None = None


class PodStatusRead(_Part, frozen=True):
    """What controllers read of a status that a kubelet wrote."""

    phase: str = "Pending"
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    start_time: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()

    @property
    def ready(self) -> bool:
        return any(each.type == "Ready" and each.status == "True" for each in self.conditions)


class Pod(_Part, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatusRead = PodStatusRead()

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Pod", self.metadata.namespace, self.metadata.name)

    @property
    def terminating(self) -> bool:
        return bool(self.metadata.deletion_timestamp)

    @property
    def finished(self) -> bool:
        return self.status.phase in {"Succeeded", "Failed"}

    @property
    def ready(self) -> bool:
        return self.status.ready and not self.terminating


# ---- workloads -------------------------------------------------------------------------------------


class PodTemplate(_Part, frozen=True):
    """`metadata` is read for labels and annotations only; the spec stays as it is written."""

    metadata: Metadata = Metadata()
    spec: msgspec.Raw = msgspec.Raw(b"{}")


class DeploymentStrategy(_Part, frozen=True):
    type: str = "RollingUpdate"


class DeploymentSpec(_Part, frozen=True):
    template: PodTemplate = PodTemplate()
    selector: LabelSelector = LabelSelector()
    replicas: int = 1
    strategy: DeploymentStrategy = DeploymentStrategy()


class DeploymentStatusRead(_Part, frozen=True):
    conditions: tuple[Condition, ...] = ()


class Deployment(_Part, frozen=True):
    metadata: Metadata
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatusRead = DeploymentStatusRead()


class ReplicaSetSpec(_Part, frozen=True):
    template: PodTemplate = PodTemplate()
    selector: LabelSelector = LabelSelector()
    replicas: int = 1


class ReplicaSetStatusRead(_Part, frozen=True):
    replicas: int = 0
    ready_replicas: int = 0


class ReplicaSet(_Part, frozen=True):
    metadata: Metadata
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatusRead = ReplicaSetStatusRead()


class Ordinals(_Part, frozen=True):
    start: int = 0


class StatefulSetSpec(_Part, frozen=True):
    template: PodTemplate = PodTemplate()
    selector: LabelSelector = LabelSelector()
    replicas: int = 1
    service_name: str = ""
    pod_management_policy: str = "OrderedReady"
    ordinals: Ordinals = Ordinals()


class StatefulSet(_Part, frozen=True):
    metadata: Metadata
    spec: StatefulSetSpec = StatefulSetSpec()


class DaemonSetSpec(_Part, frozen=True):
    template: PodTemplate = PodTemplate()
    selector: LabelSelector = LabelSelector()


class DaemonSet(_Part, frozen=True):
    metadata: Metadata
    spec: DaemonSetSpec = DaemonSetSpec()


class JobSpec(_Part, frozen=True):
    template: PodTemplate = PodTemplate()
    parallelism: int = 1
    completions: int | None = None
    backoff_limit: int = 6
    suspend: bool = False


class JobStatusRead(_Part, frozen=True):
    conditions: tuple[Condition, ...] = ()
    start_time: str = ""
    completion_time: str = ""


class Job(_Part, frozen=True):
    metadata: Metadata
    spec: JobSpec = JobSpec()
    status: JobStatusRead = JobStatusRead()


# ---- the rest --------------------------------------------------------------------------------------


class ServicePort(_Part, frozen=True):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str = ""


class ServiceSpec(_Part, frozen=True):
    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    ip_families: tuple[str, ...] = ()
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""

    @property
    def headless(self) -> bool:
        return self.cluster_ip == "None"

    def selects(self, labels: dict[str, str]) -> bool:
        """A service without selector selects no pod."""
        return bool(self.selector) and self.selector.items() <= labels.items()


class Service(_Part, frozen=True):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()


class Node(_Part, frozen=True):
    metadata: Metadata


class AnyObject(_Part, frozen=True):
    """What every object has."""

    metadata: Metadata
    api_version: str = msgspec.field(default="v1", name="apiVersion")


def read(value: bytes, kind: type[T]) -> T:
    """Parses a stored object; raises msgspec.ValidationError with the field's path.

    A null counts as absent, as the Kubernetes API takes it (``ports:`` with nothing behind it in YAML).
    """
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(msgspec.json.decode(value)), kind)


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
