"""A process that outlives whoever started it, and can be found again.

A process number alone may be another process tomorrow; together with the time at which the process
started it is not. `ProcessId` is both, and is what is written to files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from axoneme.sandbox import cgroups


class ProcessId(msgspec.Struct, frozen=True):
    """`started`: field 22 of /proc/PID/stat, in clock ticks after boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Of a process that lives; raises ProcessLookupError."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError) as failure:
            raise ProcessLookupError(f"there is no process {pid}") from failure
        return cls(pid, int(stat.rpartition(")")[2].split()[19]))

    @property
    def alive(self) -> bool:
        try:
            return ProcessId.of(self.pid) == self and _state(self.pid) != "Z"
        except ProcessLookupError:
            return False


class Watched:
    """Which processes somebody waits for. A process may end before it is known which it is: while one is
    announced, any could be that."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self._announced = 0

    @contextmanager
    def announced(self) -> Iterator[None]:
        """A process is about to be started, and will be a `Process` at the end of the context."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1

    def __contains__(self, pid: int) -> bool:
        return self._announced > 0 or pid in self.pids


watched = Watched()


class Process:
    """A process of ours: awaited through a pidfd, so also one that another process has started."""

    def __init__(self, identity: ProcessId) -> None:
        """Raises ProcessLookupError when it has ended."""
        self.identity = identity
        self._pidfd = os.pidfd_open(identity.pid)
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int | None] = self._loop.create_future()
        if ProcessId.of(identity.pid) != identity:
            os.close(self._pidfd)
            raise ProcessLookupError(f"process {identity.pid} is another one now")
        watched.pids.add(identity.pid)
        self._loop.add_reader(self._pidfd, self._collect)

    async def wait(self) -> int | None:
        """How it ended, negative for a signal; None when that is not known, for it was not our child."""
        return await asyncio.shield(self._end)

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def heeds_termination(self) -> bool:
        """Whether SIGTERM would do anything. Process 1 of a PID namespace gets only signals that it
        handles; to wait for another one to end would be waiting for nothing."""
        try:
            status = Path(f"/proc/{self.identity.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        fields = dict(line.split(":", 1) for line in status.splitlines())
        is_first = fields.get("NSpid", "0").split()[-1] == "1"
        caught = int(fields.get("SigCgt", "0"), 16) >> (signal.SIGTERM - 1) & 1
        return bool(caught) or not is_first

    async def end(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds; returns when it has ended."""
        if grace > 0 and self.heeds_termination():
            self.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await self.wait()
                return
            except TimeoutError:
                pass
        self.send(signal.SIGKILL)
        await self.wait()

    def close(self) -> None:
        """Forgets the process, which may live on."""
        watched.pids.discard(self.identity.pid)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)

    def _collect(self) -> None:
        self._loop.remove_reader(self._pidfd)
        try:
            _, status = os.waitpid(self.identity.pid, 0)
            self._end.set_result(os.waitstatus_to_exitcode(status))
        except ChildProcessError:
            self._end.set_result(None)
        watched.pids.discard(self.identity.pid)


def spawn(
    argv: Sequence[str],
    *,
    group: Path,
    output: BinaryIO,
    netns: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ProcessId:
    """Starts a daemon of ours in a control group, and in a network namespace if one is given."""
    enter = [] if netns is None else ["nsenter", f"--net={netns}", "--"]
    started = subprocess.Popen(
        [*enter, *argv],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONPATH": _search_path(), **(environment or {})},
        start_new_session=True,
    )
    cgroups.join(group, started.pid)
    identity = ProcessId.of(started.pid)
    started.returncode = 0  # a `Process` may wait for it; subprocess shall not warn that nobody did
    return identity


def _search_path() -> str:
    """Where a new interpreter finds this very package, installed or not."""
    ours = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
