"""A pod's status, worked out from what its containers do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from axoneme.sandbox.objects import Container, Pod
from axoneme.sandbox.statuses import (
    Condition,
    ContainerState,
    ContainerStatus,
    HostIP,
    PodIP,
    PodStatus,
    StateRunning,
    StateTerminated,
    StateWaiting,
    condition,
)


@dataclass(slots=True)
class ContainerView:
    """What a container does now. `settled`: it has ended and will not start again."""

    container: Container
    waiting: str = "ContainerCreating"
    message: str = ""
    running_since: str = ""
    terminated: StateTerminated | None = None
    last: StateTerminated | None = None
    restarts: int = 0
    identifier: str = ""
    started: bool = False
    ready: bool = False
    settled: bool = False

    @property
    def running(self) -> bool:
        return bool(self.running_since)

    @property
    def succeeded(self) -> bool:
        return self.settled and self.terminated is not None and self.terminated.exit_code == 0

    def start(self, identifier: str, now: str) -> None:
        self.identifier, self.running_since = identifier, now
        self.waiting, self.message, self.terminated, self.settled = "", "", None, False

    def end(self, exit_code: int, now: str, reason: str = "") -> None:
        reason = reason or ("Completed" if exit_code == 0 else "Error")
        self.terminated = StateTerminated(
            exit_code=exit_code, reason=reason, started_at=self.running_since, finished_at=now
        )
        self.running_since, self.ready, self.started = "", False, False

    def wait(self, reason: str, message: str = "") -> None:
        """Waits to start again."""
        self.last, self.terminated = self.terminated or self.last, None
        self.waiting, self.message = reason, message


@dataclass(slots=True)
class PodView:
    """All that a status is made of. `trouble`: why the pod cannot go on, empty when it does."""

    host_ips: Sequence[str]
    start_time: str
    pod_ips: Sequence[str] = ()
    initialized: bool = False
    trouble: str = ""
    notes: Sequence[str] = ()
    containers: list[ContainerView] = field(default_factory=list)
    init_containers: list[ContainerView] = field(default_factory=list)


def compose(pod: Pod, view: PodView, now: str) -> PodStatus:
    """The status; conditions that stay what they were keep their times."""
    before = pod.status.conditions
    ready = view.initialized and bool(view.containers) and all(each.ready for each in view.containers)
    phase = _phase(view)
    waiting_for = ", ".join(each.container.name for each in view.containers if not each.ready)
    not_ready = {
        "reason": "PodCompleted" if phase == "Succeeded" else "ContainersNotReady",
        "message": f"containers with unready status: {waiting_for}",
    }
    why = {} if ready else not_ready
    conditions: tuple[Condition, ...] = (
        condition(before, "PodScheduled", True, now),
        condition(before, "PodReadyToStartContainers", bool(view.pod_ips), now),
        condition(before, "Initialized", view.initialized, now),
        condition(before, "ContainersReady", ready, now, **why),
        condition(before, "Ready", ready, now, **why),
    )
    return PodStatus(
        phase=phase,
        conditions=conditions,
        host_ip=view.host_ips[0] if view.host_ips else "",
        host_ips=tuple(HostIP(ip=each) for each in view.host_ips),
        pod_ip=view.pod_ips[0] if view.pod_ips else "",
        pod_ips=tuple(PodIP(ip=each) for each in view.pod_ips),
        start_time=view.start_time,
        message="; ".join([*filter(None, [view.trouble]), *view.notes]),
        container_statuses=tuple(map(_container, view.containers)),
        init_container_statuses=tuple(map(_container, view.init_containers)),
    )


def _phase(view: PodView) -> str:
    if view.containers and all(each.settled for each in view.containers):
        return "Succeeded" if all(each.succeeded for each in view.containers) else "Failed"
    if any(each.settled and not each.succeeded for each in view.init_containers):
        return "Failed"
    begun = [each.running or each.terminated or each.last for each in view.containers]
    return "Running" if view.initialized and begun and all(begun) else "Pending"


def _container(view: ContainerView) -> ContainerStatus:
    if view.running:
        state = ContainerState(running=StateRunning(started_at=view.running_since))
    elif view.terminated is not None:
        state = ContainerState(terminated=view.terminated)
    else:
        state = ContainerState(waiting=StateWaiting(reason=view.waiting, message=view.message))
    return ContainerStatus(
        name=view.container.name,
        image=view.container.image,
        image_id=view.container.image,
        container_id=view.identifier,
        ready=view.ready,
        started=view.started,
        restart_count=view.restarts,
        state=state,
        last_state=ContainerState(terminated=view.last) if view.last else ContainerState(),
    )
