"""Making, removing and looking at sandboxes: what `axo sandbox up`, `down` and `status` do.

`up` claims the name by making the sandbox's directory, so of two at once one wins; it starts the
supervisor and waits until that reports everything ready. `down` needs nobody's help: it kills what is in
the sandbox's control groups and takes away what is in its directory, whoever has crashed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axoneme.net import kernel
from axoneme.rpc import UNAVAILABLE, Client, RpcError
from axoneme.sandbox import cgroups, planfile
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.layout import ROOT, Layout, check_name
from axoneme.sandbox.plan import Plan
from axoneme.sandbox.processes import ProcessId, spawn
from axoneme.sandbox.report import SandboxReport
from axoneme.sources.store import Store

#: Seconds between two looks at a sandbox that is coming up.
_LOOK: Final = 0.05
_LOG_LINES: Final = 15

Progress = Callable[[str], None]

#: Writes objects into a sandbox's state, through the store it is given; returns the revision of its last
#: write.
Populate = Callable[[Store], Awaitable[int]]


class NotReady(SandboxError):
    """The sandbox is there but not ready in time; `report` says what it still waits for."""

    def __init__(self, message: str, report: SandboxReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True, slots=True)
class Removed:
    """What `down` has taken away."""

    sandbox: str
    processes: int
    namespaces: int
    pods: int
    directory: bool

    @property
    def anything(self) -> bool:
        return self.directory or bool(self.processes)


def up(
    plan: Plan,
    populate: Populate | None = None,
    *,
    progress: Progress = lambda step: None,
    deadline: float = 60.0,
) -> SandboxReport:
    """Makes the sandbox and fills it; returns when all nodes and pods are ready.

    A sandbox of this name that was made with the same plan is filled with more, and its supervisor
    started again if that has died. Raises SandboxError: when there is another sandbox of this name, when
    something cannot be made (what was made is gone then), and `NotReady` after `deadline` seconds, with
    the sandbox left to look at.
    """
    plan.check()
    _need_root()
    layout = Layout(plan.name)
    until = time.monotonic() + deadline
    if layout.directory.exists():
        _take_up(plan, layout, progress)
        made = False
    else:
        made = True
        _make(plan, layout, progress)
    try:
        revision = 0
        if populate is not None:
            revision = asyncio.run(_populate(layout, populate))
            progress("objects applied")
        return _wait(layout, revision, until, progress)
    except NotReady:
        raise
    except BaseException:
        if made:
            down(plan.name)
        raise


def down(name: str) -> Removed:
    """Removes everything of exactly this sandbox, however much of it there is; raises SandboxError when
    something of it cannot be removed."""
    check_name(name)
    _need_root()
    layout = Layout(name)
    root = cgroups.Groups(name).root
    processes = len(cgroups.members(root))
    namespaces = _count(layout.namespaces)
    pods = _count(layout.pods)
    cgroups.kill(root)
    cgroups.remove(root)
    _reap(layout)
    with contextlib.suppress(OSError):  # others have sandboxes too
        root.parent.rmdir()
    directory = layout.directory.exists()
    if directory:
        _remove_directory(layout)
    return Removed(name, processes, namespaces, pods, directory)


def down_all() -> list[Removed]:
    """`down` for every sandbox of this machine."""
    return [down(name) for name in names()]


def names() -> list[str]:
    """The sandboxes that there are, whole or not: those with a directory or with processes."""
    found = {path.name for path in ROOT.iterdir()} if ROOT.exists() else set()
    groups = cgroups.hierarchy() / "axoneme"
    if groups.exists():
        found |= {path.name for path in groups.iterdir() if path.is_dir()}
    return sorted(found)


def status(name: str) -> SandboxReport:
    """How the sandbox is; raises SandboxError when there is none, or nobody supervises it."""
    layout = Layout(check_name(name))
    planfile.load(layout)
    try:
        return Client(layout.supervisor_socket).call("status", None, SandboxReport)
    except RpcError as failure:
        if failure.code != UNAVAILABLE:
            raise SandboxError(f"sandbox {name}: {failure.message}") from failure
        raise SandboxError(
            f"the supervisor of sandbox {name} does not run (its last words are in "
            f"{layout.logs / 'supervisor.log'}); axo sandbox up --name {name} starts it again, "
            f"axo sandbox down --name {name} removes the sandbox"
        ) from failure


# ---- up ----------------------------------------------------------------------------------------------


def _make(plan: Plan, layout: Layout, progress: Progress) -> None:
    ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        layout.directory.mkdir(mode=0o700)
    except FileExistsError:
        raise SandboxError(f"sandbox {plan.name} is just being made by someone else") from None
    try:
        kernel.mount("axoneme", str(layout.directory), "tmpfs", kernel.MS_NOSUID, "mode=0700")
        kernel.mount("none", str(layout.directory), flags=kernel.MS_PRIVATE)
        for directory in (layout.logs, layout.namespaces, layout.pods, layout.nodes):
            directory.mkdir()
        planfile.save(plan, layout)
        _start_supervisor(layout)
    except BaseException:
        down(plan.name)
        raise
    progress("supervisor started")


def _take_up(plan: Plan, layout: Layout, progress: Progress) -> None:
    """An existing sandbox: only one with the same plan is gone on with."""
    there = planfile.load(layout)
    if there != plan:
        raise SandboxError(
            f"sandbox {plan.name} exists already, with {there.nodes} nodes, {there.routing.value} routing "
            f"and family {there.family.value}{'' if there.dns else ', without DNS'}; give another --name, or "
            f"remove it first: axo sandbox down --name {plan.name}"
        )
    if not _supervised(layout):
        _start_supervisor(layout)
        progress("supervisor started again")


def _start_supervisor(layout: Layout) -> None:
    group = cgroups.make(cgroups.Groups(layout.name).supervisor)
    with (layout.logs / "supervisor.log").open("ab") as output:
        identity = spawn(
            [sys.executable, "-P", "-m", "axoneme.sandbox", layout.name], group=group, output=output
        )
    layout.supervisor_pid.write_text(f"{identity.pid}\n")


async def _populate(layout: Layout, populate: Populate) -> int:
    from axoneme.sources.sqlite import SqliteStore

    store = SqliteStore(layout.store)
    try:
        return await populate(store)
    finally:
        await store.close()


def _wait(layout: Layout, revision: int, until: float, progress: Progress) -> SandboxReport:
    client = Client(layout.supervisor_socket)
    told = ""
    report: SandboxReport | None = None
    while True:
        try:
            report = client.call("status", None, SandboxReport)
        except RpcError as failure:
            if failure.code != UNAVAILABLE:
                raise SandboxError(f"sandbox {layout.name}: {failure.message}") from failure
            if not _supervised(layout):
                raise SandboxError(
                    f"the supervisor of sandbox {layout.name} has died:\n{_last_words(layout)}"
                ) from None
        else:
            if report.ready and report.revision >= revision:
                return report
            ready = sum(node.agent and node.flows for node in report.nodes)
            step = f"{ready} of {len(report.nodes)} nodes and {report.ready_pods} of {report.pods} pods ready"
            if step != told:
                told = step
                progress(step)
        if time.monotonic() > until:
            if report is None:
                raise SandboxError(f"sandbox {layout.name} does not answer in time:\n{_last_words(layout)}")
            missing = "\n  ".join(report.waiting)
            raise NotReady(f"sandbox {layout.name} is not ready in time; it waits for:\n  {missing}", report)
        time.sleep(_LOOK)


def _supervised(layout: Layout) -> bool:
    try:
        pid = int(layout.supervisor_pid.read_text())
        return ProcessId.of(pid).alive and pid in cgroups.members(cgroups.Groups(layout.name).supervisor)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False


def _last_words(layout: Layout) -> str:
    try:
        lines = (layout.logs / "supervisor.log").read_text().splitlines()
    except FileNotFoundError:
        return "it said nothing"
    return "\n".join(lines[-_LOG_LINES:]) or "it said nothing"


# ---- down --------------------------------------------------------------------------------------------


def _reap(layout: Layout) -> None:
    """Lets the dead supervisor go, if it was this very process that started it."""
    with contextlib.suppress(FileNotFoundError, ValueError, ChildProcessError):
        os.waitpid(int(layout.supervisor_pid.read_text()), os.WNOHANG)


def _count(directory: Path) -> int:
    return len(list(directory.iterdir())) if directory.exists() else 0


def _remove_directory(layout: Layout) -> None:
    for target in _mounts_below(layout.directory):
        with contextlib.suppress(FileNotFoundError):
            kernel.unmount(target)
    shutil.rmtree(layout.directory)


def _mounts_below(directory: Path) -> list[str]:
    """What is mounted at a directory or below it, the innermost first."""
    found = []
    with Path("/proc/self/mountinfo").open() as mounts:
        for line in mounts:
            target = line.split()[4]
            if target == str(directory) or target.startswith(f"{directory}/"):
                found.append(target)
    return sorted(found, key=len, reverse=True)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise SandboxError("a sandbox needs root, for network namespaces and eBPF: run this with sudo")
