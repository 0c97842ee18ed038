"""Keeping small change: memory that is freed and wanted again a millisecond later.

glibc hands what is freed at the top of the heap back to the kernel beyond 128 KiB, and gets larger
pieces from the kernel each time. Arrays of a thousand records are of just that size, and to fault their
pages in anew costs several times as much as all that is done with them (mallopt(3)).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep(size: int = 4 << 20) -> None:
    """Up to ``size`` bytes stay with the process. Nothing happens where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, size)
        mallopt(_M_MMAP_THRESHOLD, size)
