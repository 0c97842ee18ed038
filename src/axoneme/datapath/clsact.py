"""tc programs on an interface by filters of a clsact qdisc: for kernels without tcx links.

Filters belong to the interface, so they need no pin and live as long as it does. Ours are known by
their handle; those of others stay, and the qdisc too. libbpf speaks the netlink for it.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from axoneme.datapath import bpf
from axoneme.datapath.libbpf import library
from axoneme.datapath.uapi import AttachType

#: Which filter is ours: "axo" as a number, before those of others.
HANDLE: Final = 0x61786F
#: That of one which is to take over from it. The kernel runs the filters of a priority newest first.
AHEAD: Final = HANDLE + 1
PRIORITY: Final = 1

_POINTS: Final = {AttachType.TCX_INGRESS: 1, AttachType.TCX_EGRESS: 2}
_REPLACE: Final = 1


class _Hook(ctypes.Structure):
    """``struct bpf_tc_hook``"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("point", ctypes.c_uint),
        ("parent", ctypes.c_uint32),
    )


class _Options(ctypes.Structure):
    """``struct bpf_tc_opts``"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("program_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


def attach(program: int, ifindex: int, point: AttachType, handle: int | None = None) -> None:
    """Attaches `program`, or puts it into the place of the one that we attached before: the kernel exchanges
    one for the other in its list of filters, and no packet meets none of the two or both (`cls_bpf_change`).

    ``handle`` is `HANDLE`, or `AHEAD` for a filter that runs before that one.
    """
    hook = _hook(ifindex, point)
    result = library().bpf_tc_hook_create(ctypes.byref(hook))
    if result < 0 and result != -errno.EEXIST:
        raise _failure(-result, f"adding a clsact qdisc to interface {ifindex}")
    options = _options(handle, program_fd=program, flags=_REPLACE)
    result = library().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
    if result < 0:
        raise _failure(-result, f"attaching {bpf.describe(program)} as a filter of interface {ifindex}")


def detach(ifindex: int, point: AttachType, handle: int | None = None) -> bool:
    """Takes our filter off; False when there was none."""
    hook, options = _hook(ifindex, point), _options(handle)
    result = library().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
    if result in (-errno.ENOENT, -errno.EINVAL, -errno.ENODEV):
        return False
    if result < 0:
        raise _failure(-result, f"removing our filter from interface {ifindex}")
    return True


def attached(ifindex: int, point: AttachType, handle: int | None = None) -> int:
    """The id of the program in our filter; 0 when there is none."""
    hook, options = _hook(ifindex, point), _options(handle)
    result = library().bpf_tc_query(ctypes.byref(hook), ctypes.byref(options))
    if result in (-errno.ENOENT, -errno.EINVAL, -errno.ENODEV):
        return 0
    if result < 0:
        raise _failure(-result, f"listing the filters of interface {ifindex}")
    return int(options.program_id)


def _hook(ifindex: int, point: AttachType) -> _Hook:
    return _Hook(ctypes.sizeof(_Hook), ifindex, _POINTS[point], 0)


def _options(handle: int | None, program_fd: int = 0, flags: int = 0) -> _Options:
    return _Options(ctypes.sizeof(_Options), program_fd, flags, 0, handle or HANDLE, PRIORITY)


def _failure(number: int, doing: str) -> bpf.BpfError:
    hint = "this kernel is built without clsact (CONFIG_NET_SCH_INGRESS)" if number == errno.ENOENT else ""
    return bpf.failure(number, doing, hint)
