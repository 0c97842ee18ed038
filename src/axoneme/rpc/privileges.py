"""Giving up what a process does not need (capabilities(7), prctl(2))."""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Routes, firewall marks (SO_MARK, before Linux 5.17).
CAP_NET_ADMIN: Final = 12
#: Addresses that are not this machine's (IP_TRANSPARENT), raw sockets, firewall marks (since Linux 5.17).
CAP_NET_RAW: Final = 13
#: bpf(2): opening pinned maps, reading and deleting their elements.
CAP_BPF: Final = 39
#: What stood for it before Linux 5.8.
CAP_SYS_ADMIN: Final = 21

_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_VERSION_3: Final = 0x20080522


def keep_only(capabilities: Iterable[int]) -> None:
    """Drops every other capability for good, for this thread, those that it starts, and its children.

    OSError when the kernel refuses.
    """
    kept = _set(capabilities)
    _bound(kept)
    _hold(kept)


def become(user: str, capabilities: Iterable[int]) -> None:
    """Root becomes this user, with these capabilities and no other, which its children have too, whatever
    they execute. Who is not root stays who it is. For a process that has one thread yet.

    OSError when the kernel refuses; LookupError when there is no such user.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = _set(capabilities)
    _bound(kept)
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keeping capabilities")
        os.setgroups([])
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    _hold(kept, inheritable=kept)
    for capability in range(64):
        if kept >> capability & 1:
            _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0), "handing on")


def _set(capabilities: Iterable[int]) -> int:
    return sum(1 << each for each in capabilities) & _permitted()


def _bound(kept: int) -> None:
    """No program that is executed gets another one."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        # The kernel knows no such capability; or we may not, and then a new program gets no more
        # than we keep, by no_new_privs.
        if not kept >> capability & 1 and libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _hold(kept: int, inheritable: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    # (effective, permitted, inheritable), once for each half of the set.
    sets = (ctypes.c_uint32 * 6)(
        kept & low, kept & low, inheritable & low, kept >> high, kept >> high, inheritable >> high
    )
    _check(libc.capset(header, sets), "capabilities")


def _permitted() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot restrict {what}: {os.strerror(number)}")
