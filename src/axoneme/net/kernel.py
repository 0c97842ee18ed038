"""The system calls for namespaces and mounts that Python 3.11 lacks.

Standard library only: `axoneme.sandbox.launch` runs this in a bare interpreter, between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

PR_SET_CHILD_SUBREAPER: Final = 36

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def unshare(flags: int) -> None:
    """Gives the calling thread new namespaces (unshare(2)); raises OSError."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise _failure("unshare")


def setns(descriptor: int, flags: int) -> None:
    """Moves the calling thread into the namespaces of a namespace file or a pidfd (setns(2))."""
    if _libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)) < 0:
        raise _failure("setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); an empty `kind` or `data` is NULL."""
    answer = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        flags,
        data.encode() or None,
    )
    if answer < 0:
        raise _failure(f"mounting {source} at {target}")


def bind(source: str, target: str) -> None:
    """Makes `source`, a file or a directory without what is mounted below it, appear at `target` too."""
    mount(source, target, flags=MS_BIND)


def unmount(target: str) -> None:
    """Takes a mount and all below it away at once; the kernel frees it when nobody stands in it any more."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) < 0:
        raise _failure(f"unmounting {target}")


def set_hostname(name: str) -> None:
    """Names the machine as this process's UTS namespace sees it (sethostname(2))."""
    encoded = name.encode()
    if _libc.sethostname(encoded, ctypes.c_size_t(len(encoded))) < 0:
        raise _failure(f"naming the host {name}")


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process (prctl(2)), so that it can wait for them."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        raise _failure("prctl(PR_SET_CHILD_SUBREAPER)")


@contextmanager
def inside(netns: int) -> Iterator[None]:
    """Runs the body in a network namespace (an open namespace file), in this thread alone.

    The body must not await or start threads: whatever else this thread does would happen in there too.
    Sockets opened in the body stay in the namespace for life, wherever they are used afterwards.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def _failure(doing: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{doing}: {os.strerror(number)}")
