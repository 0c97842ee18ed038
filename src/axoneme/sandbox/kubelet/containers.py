"""A container that runs: a process of this machine inside the pod, or the echo server in its place."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Final, Protocol

from axoneme.sandbox import launch
from axoneme.sandbox.kubelet.programs import Program
from axoneme.sandbox.launch import Enclosure
from axoneme.sandbox.processes import Process, ProcessId, watched

#: How a container ends that was told to, and of which no process can tell.
_KILLED: Final = 137


class Run(Protocol):
    """One run of a container, from its start to its end."""

    @property
    def name(self) -> str:
        """What ``containerID`` says."""
        ...

    async def wait(self) -> int:
        """The exit code, as a shell would give it."""
        ...

    async def end(self, grace: float) -> None:
        """Ends it, by force after `grace` seconds."""
        ...

    def close(self) -> None: ...


class EchoRun:
    """The echo server plays the container; nothing ends it but `end`."""

    def __init__(self, name: str) -> None:
        self.name = f"echo://{name}"
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        return _KILLED

    async def end(self, grace: float) -> None:
        self._ended.set()

    def close(self) -> None:
        pass


class ProcessRun:
    """A process is the container."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.name = f"process://{process.identity.pid}"

    async def wait(self) -> int:
        code = await self.process.wait()
        if code is None:  # it ran on under another supervisor, which took the answer with it
            return _KILLED
        return code if code >= 0 else 128 - code

    async def end(self, grace: float) -> None:
        await self.process.end(grace)

    def close(self) -> None:
        self.process.close()


async def start(program: Program, enclosure: Enclosure, log: Path) -> ProcessRun:
    """Starts the program as process 1 of a PID namespace of its own; raises OSError when that fails.

    What it writes is appended to `log` by itself, so that it lives on when the supervisor does not.
    """
    with watched.announced():
        pid = await _launch(program, enclosure, log)
        try:
            return ProcessRun(Process(ProcessId.of(pid)))
        except ProcessLookupError as failure:
            raise OSError(f"process {pid} ended before it could be watched") from failure


async def _launch(program: Program, enclosure: Enclosure, log: Path) -> int:
    report, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        with log.open("ab") as output:
            launcher = subprocess.Popen(
                launch.command_line("start", enclosure, theirs, program.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(program.environment),
                pass_fds=[theirs],
                start_new_session=True,
            )
        os.close(theirs)
        said = await _read_to_end(report)
    finally:
        os.close(report)
    # It ends as soon as it has reported.
    await asyncio.to_thread(launcher.wait)
    return launch.parse_report(said)


async def _read_to_end(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    said = b""
    loop.add_reader(descriptor, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                part = os.read(descriptor, 4096)
            except BlockingIOError:  # told twice of the same bytes
                continue
            if not part:
                return said
            said += part
    finally:
        loop.remove_reader(descriptor)
