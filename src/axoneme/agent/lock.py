"""One agent a node: whoever comes second is told who is there.

A node is a network namespace and a state directory; both are claimed, each by something that the kernel
takes back when its holder ends, however that comes about, so that no claim is ever left over.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axoneme.sources.config import ConfigError

_FILE = "agent.lock"
#: An abstract name, of which each network namespace has its own.
_NAME = "\0axoneme-agent"


@contextmanager
def only_agent(state: Path) -> Iterator[None]:
    """Claims both; `ConfigError` names the process that has one already."""
    with _directory(state), _network():
        yield


@contextmanager
def _directory(state: Path) -> Iterator[None]:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(state / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"{state}: another agent works with this directory, process {holder}; end it first, or give "
                "this one a directory of its own"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


@contextmanager
def _network() -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as claim:
        try:
            claim.bind(_NAME)
        except OSError:
            raise ConfigError(
                f"another agent works in this network namespace, process {_holder()}; end it first: there is "
                "one agent for each node"
            ) from None
        claim.listen(1)
        yield


def _holder() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as question:
        question.setblocking(False)
        try:
            question.connect(_NAME)
        except OSError:
            return "unknown"
        pid, _, _ = struct.unpack("3i", question.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return str(pid)
