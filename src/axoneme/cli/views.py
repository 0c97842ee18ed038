"""What the columns of a listing read of each kind of object.

Field names are those of the Kubernetes API. Everything has a default: an object is listed, whatever it lacks.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from axoneme.sandbox.objects import LabelSelector, Metadata, ServicePort, read
from axoneme.sandbox.statuses import Condition, ContainerState, NodeAddress, NodeInfo, PodIP

T = TypeVar("T")


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Any(_Part, frozen=True):
    metadata: Metadata = Metadata()


# ---- pods ------------------------------------------------------------------------------------------


class Container(_Part, frozen=True):
    name: str = ""
    image: str = ""


class ContainerStatus(_Part, frozen=True):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodSpec(_Part, frozen=True):
    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodStatus(_Part, frozen=True):
    phase: str = ""
    reason: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(_Part, frozen=True):
    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def state(self) -> str:
        """One word for how it is, as kubectl finds it."""
        status = self.status
        word = status.reason or status.phase or "Pending"
        for number, each in enumerate(status.init_container_statuses):
            ended = each.state.terminated
            if (ended is not None and ended.exit_code == 0) or (each.state.running and each.ready):
                continue
            if ended is not None:
                return f"Init:{ended.reason or f'ExitCode:{ended.exit_code}'}"
            waiting = each.state.waiting
            if waiting is not None and waiting.reason not in {"", "PodInitializing"}:
                return f"Init:{waiting.reason}"
            word = f"Init:{number}/{len(status.init_container_statuses)}"
            break
        for each in status.container_statuses:
            if each.state.waiting is not None and each.state.waiting.reason and not word.startswith("Init:"):
                word = each.state.waiting.reason
            elif each.state.terminated is not None:
                word = each.state.terminated.reason or f"ExitCode:{each.state.terminated.exit_code}"
        return "Terminating" if self.metadata.deletion_timestamp else word

    @property
    def ready(self) -> tuple[int, int]:
        """Containers that are ready, and all."""
        statuses = self.status.container_statuses
        return sum(each.ready for each in statuses), len(self.spec.containers)

    @property
    def restarts(self) -> int:
        return sum(each.restart_count for each in self.status.container_statuses)

    @property
    def addresses(self) -> list[str]:
        status = self.status
        return [each.ip for each in status.pod_ips] or ([status.pod_ip] if status.pod_ip else [])


# ---- workloads ---------------------------------------------------------------------------------------


class PodTemplate(_Part, frozen=True):
    spec: PodSpec = PodSpec()


class WorkloadSpec(_Part, frozen=True):
    replicas: int = 1
    completions: int | None = None
    parallelism: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()


class WorkloadStatus(_Part, frozen=True):
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    active: int = 0
    succeeded: int = 0
    start_time: str = ""
    completion_time: str = ""
    conditions: tuple[Condition, ...] = ()


class Workload(_Part, frozen=True):
    """Deployments, replica sets, stateful sets, daemon sets and jobs."""

    metadata: Metadata = Metadata()
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


# ---- the rest ----------------------------------------------------------------------------------------


class ClientAffinity(_Part, frozen=True):
    timeout_seconds: int = 0


class AffinityConfig(_Part, frozen=True):
    client_ip: ClientAffinity = msgspec.field(default=ClientAffinity(), name="clientIP")


class ServiceSpec(_Part, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    session_affinity: str = "None"
    session_affinity_config: AffinityConfig = AffinityConfig()
    external_traffic_policy: str = ""
    internal_traffic_policy: str = ""
    traffic_distribution: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False


class IngressAddress(_Part, frozen=True):
    ip: str = ""
    hostname: str = ""


class LoadBalancer(_Part, frozen=True):
    ingress: tuple[IngressAddress, ...] = ()


class ServiceStatus(_Part, frozen=True):
    load_balancer: LoadBalancer = LoadBalancer()


class Service(_Part, frozen=True):
    metadata: Metadata = Metadata()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class NamespaceStatus(_Part, frozen=True):
    phase: str = "Active"


class Namespace(_Part, frozen=True):
    metadata: Metadata = Metadata()
    status: NamespaceStatus = NamespaceStatus()


class NodeStatus(_Part, frozen=True):
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(_Part, frozen=True):
    metadata: Metadata = Metadata()
    status: NodeStatus = NodeStatus()


class _Pods(_Part, frozen=True):
    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class AdminSubject(_Part, frozen=True):
    namespaces: LabelSelector | None = None
    pods: _Pods | None = None


class PolicySpec(_Part, frozen=True):
    """Of all kinds of policies: whom it is about. What it says, `axoneme.model.policies` reads."""

    pod_selector: LabelSelector | None = None
    endpoint_selector: LabelSelector | None = None
    node_selector: LabelSelector | None = None
    priority: int | None = None
    admin_subject: AdminSubject | None = msgspec.field(default=None, name="subject")

    @property
    def subject(self) -> LabelSelector | None:
        return self.pod_selector or self.endpoint_selector or self.node_selector


class Policy(_Part, frozen=True):
    metadata: Metadata = Metadata()
    spec: PolicySpec | None = None
    specs: tuple[PolicySpec, ...] = ()

    @property
    def every(self) -> tuple[PolicySpec, ...]:
        return (*((self.spec,) if self.spec else ()), *self.specs)


def view(value: bytes, kind: type[T]) -> T:
    """A stored object as a ``kind``; ValidationError with the field's path when it cannot be one."""
    return read(value, kind)
