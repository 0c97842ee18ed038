"""Giving up what a process does not need (capabilities(7), prctl(2))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: bpf(2): opening pinned maps, reading and deleting their elements.
CAP_BPF: Final = 39
#: What stood for it before Linux 5.8.
CAP_SYS_ADMIN: Final = 21

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_VERSION_3: Final = 0x20080522


def keep_only(capabilities: Iterable[int]) -> None:
    """Drops every other capability for good, for this thread, those that it starts, and its children.

    OSError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(1 << each for each in capabilities) & _permitted()
    for capability in range(64):
        # The kernel knows no such capability; or we may not, and then a new program gets no more
        # than we keep, by no_new_privs.
        if not kept >> capability & 1 and libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # (effective, permitted, inheritable), once for each half of the set.
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(libc.capset(header, sets), "capabilities")


def _permitted() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot restrict {what}: {os.strerror(number)}")
