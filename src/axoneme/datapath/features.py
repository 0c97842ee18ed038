"""What this kernel offers: found by trying, never by its version.

Distributions backport, and builds leave things out, so each probe does in miniature what the datapath
would do. Every `Feature` is probed once in a process, when it is first asked for.
"""

from __future__ import annotations

import enum
import errno
import os
import struct
from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from axoneme.datapath import bpf, elements
from axoneme.datapath.uapi import AttachType, MapFlag, MapType, ProgramType

_LOOPBACK: Final = 1  # the ifindex of lo in every network namespace
_INSTRUCTION = struct.Struct("=BBhi")
_CALL, _EXIT = 0x85, 0x95


class Feature(enum.Enum):
    """A thing of the kernel that the datapath uses; since which release it is there, and what goes without
    it. (Helpers are named in programs that the verifier walks whole, so all of a program goes with one.)"""

    RING_BUFFER = ("ring buffers", "5.8", "the programs do not load, for nowhere would their events go")
    REDIRECT_PEER = ("helper bpf_redirect_peer", "5.10", "the programs do not load")
    REDIRECT_NEIGH = ("helper bpf_redirect_neigh", "5.10", "the programs do not load")
    FIB_LOOKUP = ("helper bpf_fib_lookup", "4.18", "the programs do not load")
    COARSE_CLOCK = ("helper bpf_ktime_get_coarse_ns", "5.11", "the programs do not load")
    CHECK_MTU = ("helper bpf_check_mtu", "5.12", "the programs do not load")
    TUNNEL_KEY = ("helper bpf_skb_set_tunnel_key", "4.3", "the programs do not load")
    LPM_BATCH = ("batches on prefix tries", "5.13", "large policies are written entry by entry")
    SET_RETVAL = (
        "helper bpf_set_retval",
        "5.18",
        "a call of a service without backends fails with EPERM, not with ECONNREFUSED",
    )
    TCX = (
        "tcx links",
        "6.6",
        "the programs of uplinks and of the overlay are attached as clsact filters, which go when somebody "
        "removes the qdisc",
    )

    def __init__(self, title: str, since: str, without: str) -> None:
        self.title = title
        self.since = since
        self.without = without

    @property
    def sentence(self) -> str:
        """For the report of an agent that starts on a kernel without it."""
        return f"this kernel has no {self.title} (Linux {self.since} and later have): {self.without}"


@cache
def has(feature: Feature) -> bool:
    """Whether the kernel has it. Raises `bpf.Forbidden` when we may not even ask."""
    return _PROBES[feature]()


def missing() -> list[Feature]:
    """All that this kernel lacks."""
    return [feature for feature in Feature if not has(feature)]


def _tcx() -> bool:
    try:
        bpf.query(_LOOPBACK, AttachType.TCX_INGRESS)
    except bpf.BpfError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _ring_buffer() -> bool:
    try:
        os.close(bpf.map_create(MapType.RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE"), name="probe"))
    except bpf.BpfError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _prefix_batch() -> bool:
    fd = bpf.map_create(MapType.LPM_TRIE, 8, 4, 1, MapFlag.NO_PREALLOC, "probe")
    try:
        keys, values = np.zeros(1, "V8"), np.zeros(1, "u4")
        return elements.knows_batches(fd, keys, values)
    finally:
        os.close(fd)


def _helper(
    number: int, kind: ProgramType = ProgramType.SCHED_CLS, attach_type: int = 0
) -> Callable[[], bool]:
    """A program that only calls the helper is refused for its arguments, or because there is none."""
    code = _INSTRUCTION.pack(_CALL, 0, 0, number) + _INSTRUCTION.pack(_EXIT, 0, 0, 0)

    def probe() -> bool:
        try:
            os.close(bpf.program_load(kind, code, "probe", log_size=4096, attach_type=attach_type))
        except bpf.Forbidden as error:
            if error.errno == errno.EPERM:
                raise
            return not _unknown(error)
        except bpf.BpfError as error:
            return not _unknown(error)
        return True

    return probe


def _unknown(error: bpf.BpfError) -> bool:
    log = "".join(getattr(error, "__notes__", ()))
    return any(words in log for words in ("unknown func", "invalid func", "cannot use helper"))


_PROBES: Final[dict[Feature, Callable[[], bool]]] = {
    Feature.RING_BUFFER: _ring_buffer,
    Feature.TCX: _tcx,
    Feature.LPM_BATCH: _prefix_batch,
    Feature.REDIRECT_PEER: _helper(155),
    Feature.REDIRECT_NEIGH: _helper(152),
    Feature.FIB_LOOKUP: _helper(69),
    Feature.COARSE_CLOCK: _helper(160),
    Feature.CHECK_MTU: _helper(163),
    Feature.TUNNEL_KEY: _helper(21),
    Feature.SET_RETVAL: _helper(187, ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
}
