"""Statuses as the sandbox writes them into objects, in the API's words."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import msgspec.structs


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class Condition(_Part, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


def condition(
    previous: Iterable[Condition],
    kind: str,
    holds: bool,
    now: str,
    *,
    reason: str = "",
    message: str = "",
) -> Condition:
    """The condition as it stands now; its time changes only when its status does."""
    made = Condition(type=kind, status="True" if holds else "False", reason=reason, message=message)
    for each in previous:
        if (each.type, each.status) == (made.type, made.status):
            now = each.last_transition_time or now
    return msgspec.structs.replace(made, last_transition_time=now)


class PodIP(_Part, frozen=True):
    ip: str


class HostIP(_Part, frozen=True):
    ip: str


class StateWaiting(_Part, frozen=True):
    reason: str
    message: str = ""


class StateRunning(_Part, frozen=True):
    started_at: str


class StateTerminated(_Part, frozen=True, omit_defaults=False):
    exit_code: int
    reason: str
    started_at: str = ""
    finished_at: str = ""


class ContainerState(_Part, frozen=True):
    """Exactly one of the three is set."""

    waiting: StateWaiting | None = None
    running: StateRunning | None = None
    terminated: StateTerminated | None = None


class ContainerStatus(_Part, frozen=True, omit_defaults=False):
    name: str
    image: str
    ready: bool
    started: bool
    restart_count: int
    state: ContainerState
    last_state: ContainerState = ContainerState()
    container_id: str = msgspec.field(default="", name="containerID")
    image_id: str = msgspec.field(default="", name="imageID")


class PodStatus(_Part, frozen=True):
    phase: str
    conditions: tuple[Condition, ...] = ()
    host_ip: str = msgspec.field(default="", name="hostIP")
    host_ips: tuple[HostIP, ...] = msgspec.field(default=(), name="hostIPs")
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    start_time: str = ""
    reason: str = ""
    message: str = ""
    qos_class: str = "BestEffort"
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class ReplicaSetStatus(_Part, frozen=True, omit_defaults=False):
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    fully_labeled_replicas: int = 0
    observed_generation: int = 0


class DeploymentStatus(_Part, frozen=True, omit_defaults=False):
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class StatefulSetStatus(_Part, frozen=True, omit_defaults=False):
    replicas: int = 0
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    observed_generation: int = 0
    update_revision: str = ""


class DaemonSetStatus(_Part, frozen=True, omit_defaults=False):
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    number_misscheduled: int = 0
    observed_generation: int = 0


class JobStatus(_Part, frozen=True):
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: str = ""
    completion_time: str = ""
    conditions: tuple[Condition, ...] = ()


class NamespaceStatus(_Part, frozen=True):
    phase: str


class NodeAddress(_Part, frozen=True):
    type: str
    address: str


class NodeInfo(_Part, frozen=True):
    kernel_version: str = ""
    operating_system: str = "linux"
    architecture: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""


class NodeStatus(_Part, frozen=True):
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    node_info: NodeInfo = NodeInfo()
