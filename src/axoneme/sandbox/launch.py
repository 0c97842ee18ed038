"""Starting a process inside a pod: the short program that runs between the supervisor and a command.

It is run as a bare interpreter of its own (`python -I -S`, standard library only, some 25 ms) rather than
forked off, because the supervisor has threads. It joins the control group, enters or makes the
namespaces, and becomes the command. Two modes:

- ``start``: the command becomes process 1 of a new PID namespace, and this program ends at once after it
  has reported the process's number; the supervisor, a subreaper, is then the parent.
- ``run``: waits for the command and ends as it ended (128 + n for signal n), like a shell.

A command runs as root and sees the machine's files: a pod is not a security boundary here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from axoneme.net import kernel

#: What a shell answers for a command that it cannot start.
NOT_STARTED = 126
NOT_FOUND = 127


class Enclosure(NamedTuple):
    """What a process of a pod lives in.

    ``files``: pairs of a file and the place where the process shall see it. ``hidden``: the sandbox's
    directory, taken out of the process's mount namespace, which would otherwise keep every network
    namespace of the sandbox alive. ``join``: a process of the pod whose namespaces are entered instead of
    making new ones; 0 for none.
    """

    netns: str
    group: str
    hostname: str
    hidden: str
    files: tuple[tuple[str, str], ...] = ()
    join: int = 0
    directory: str = "/"


def command_line(mode: str, enclosure: Enclosure, report: int, argv: Sequence[str]) -> list[str]:
    """The command that starts `argv` in `enclosure`; `report` is the descriptor for what `start` reports."""
    package = Path(__file__).parents[2]
    program = (
        f"import sys; sys.path.insert(0, {str(package)!r}); import axoneme.sandbox.launch as l; l.main()"
    )
    files = [part for pair in enclosure.files for part in pair]
    values = [
        mode,
        str(report),
        enclosure.netns,
        enclosure.group,
        enclosure.hostname,
        enclosure.hidden,
        str(enclosure.join),
        enclosure.directory,
        str(len(files)),
    ]
    return [sys.executable, "-I", "-S", "-c", program, *values, *files, *argv]


def parse_report(report: bytes) -> int:
    """The process number that ``start`` reported; raises OSError with what it could not do."""
    pid, _, failure = report.decode().partition("\n")
    if failure or not pid:
        raise OSError(failure or "the launcher ended without a word")
    return int(pid)


def main() -> NoReturn:
    mode, report, netns, group, hostname, hidden, join, directory, count, *rest = sys.argv[1:]
    files, argv = rest[: int(count)], rest[int(count) :]
    pairs = tuple(zip(files[::2], files[1::2], strict=True))
    enclosure = Enclosure(netns, group, hostname, hidden, pairs, int(join), directory)
    descriptor = int(report)
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
    try:
        enter(enclosure)
        child = os.fork()
        if child == 0:
            become(enclosure, argv)
    except OSError as failure:
        _say(descriptor, f"\n{failure}")
        os._exit(NOT_STARTED)
    if mode == "start":
        _say(descriptor, f"{child}\n")
        os._exit(0)
    with _terminal_signals_left_to_the_command():
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def enter(enclosure: Enclosure) -> None:
    """Puts this process into the enclosure; a PID namespace only takes its children."""
    (Path(enclosure.group) / "cgroup.procs").write_text("0")
    if enclosure.join:
        pidfd = os.pidfd_open(enclosure.join)
        kernel.setns(
            pidfd,
            kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS,
        )
        os.close(pidfd)
        return
    namespace = os.open(enclosure.netns, os.O_RDONLY | os.O_CLOEXEC)
    kernel.setns(namespace, kernel.CLONE_NEWNET)
    os.close(namespace)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWPID)
    # Not private: what the machine unmounts later shall go away in here as well.
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    for source, place in enclosure.files:
        if Path(place).exists():
            kernel.bind(source, place)
    kernel.unmount(enclosure.hidden)
    kernel.set_hostname(enclosure.hostname)


def become(enclosure: Enclosure, argv: Sequence[str]) -> NoReturn:
    """Becomes the command; this runs in the child, where nothing may return."""
    try:
        if not enclosure.join:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("proc", "/proc", "proc", flags)
        os.chdir(enclosure.directory)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; the command shall not
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], list(argv))
    except FileNotFoundError as failure:
        _end(f"{argv[0]}: {failure.strerror}", NOT_FOUND)
    except OSError as failure:
        _end(f"{argv[0]}: {failure}", NOT_STARTED)
    raise AssertionError("unreachable")


def _end(complaint: str, code: int) -> NoReturn:
    os.write(2, f"{complaint}\n".encode())
    os._exit(code)


def _say(descriptor: int, text: str) -> None:
    if descriptor >= 0:
        os.write(descriptor, text.encode())


@contextmanager
def _terminal_signals_left_to_the_command() -> Iterator[None]:
    """A key that interrupts reaches the whole foreground group; only the command decides what it means."""
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
