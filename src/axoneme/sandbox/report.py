"""What a sandbox says of itself: the answers of its supervisor's socket."""

from __future__ import annotations

import msgspec

from axoneme.sandbox.plan import Family, Routing


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """`agent` and `flows`: whether the process answers on its socket; `proxies`: the kinds that run."""

    name: str
    addresses: tuple[str, ...]
    agent: bool
    flows: bool
    restarts: int
    pods: int
    proxies: tuple[str, ...] = ()


class SandboxReport(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting` names what is not ready yet, and why; the sandbox is ready when it is empty."""

    name: str
    routing: Routing
    family: Family
    supervisor: int
    nodes: tuple[NodeReport, ...]
    pods: int
    ready_pods: int
    waiting: tuple[str, ...] = ()
    #: Up to where it has seen the shared state.
    revision: int = 0
    world: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.waiting


class PodName(msgspec.Struct, frozen=True, kw_only=True):
    """A container of a pod; the first one when `container` is empty."""

    namespace: str
    pod: str
    container: str = ""


class ExecTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What `axo exec` needs to start a process in a pod: the fields of a `launch.Enclosure`, and the
    environment and directory of the container."""

    netns: str
    group: str
    hostname: str
    hidden: str
    files: tuple[tuple[str, str], ...]
    join: int
    environment: dict[str, str]
    directory: str
    addresses: tuple[str, ...]


class LogsWish(msgspec.Struct, frozen=True, kw_only=True):
    """`tail`: so many of the last lines, all when None."""

    namespace: str
    pod: str
    container: str = ""
    follow: bool = False
    tail: int | None = None
