"""The BPF filesystem: where pinned programs, maps and links have their names."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_MAGIC: Final = 0xCAFE4A11  # BPF_FS_MAGIC, linux/magic.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)


def is_bpffs(path: Path) -> bool:
    """Whether `path` lies in a bpffs; False when it does not exist."""
    answer = (ctypes.c_long * 32)()  # struct statfs begins with the type, and is smaller than this
    if _libc.statfs(os.fsencode(path), ctypes.byref(answer)) < 0:
        return False
    return answer[0] & 0xFFFFFFFF == _MAGIC


def is_mount(path: Path) -> bool:
    """Whether a bpffs is mounted at `path` itself, not above it."""
    return is_bpffs(path) and path.is_mount()


def mount(path: Path) -> bool:
    """Mounts a bpffs of its own at `path`, which only root may enter; False when one is there already."""
    if is_mount(path):
        return False
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", flags, b"mode=0700") < 0:
        raise _failure("mounting a bpffs at", path)
    return True


def unmount(path: Path) -> bool:
    """Takes the mount away, and with the last mount of it all pins in it; False when there is none.

    Whoever stands in it keeps it until leaving.
    """
    if not is_mount(path):
        return False
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) < 0:
        raise _failure("unmounting the bpffs at", path)
    return True


def _failure(doing: str, path: Path) -> OSError:
    number = ctypes.get_errno()
    hints = {
        errno.EPERM: "; it needs root (CAP_SYS_ADMIN)",
        errno.ENODEV: "; this kernel is built without BPF",
    }
    return OSError(number, f"{doing} {path}: {os.strerror(number)}{hints.get(number, '')}")
