"""Running a program on a packet that we made, without any device: BPF_PROG_TEST_RUN.

For tests and for benchmarks. Helpers run for real: maps and rings are written; a redirect is only an
answer (TC_ACT_REDIRECT), the packet goes nowhere.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from axoneme.datapath import bpf
from axoneme.datapath.uapi import Command

#: ``struct __sk_buff`` (linux/bpf.h), which is part of the kernel's stable interface.
SK_BUFF: Final = np.dtype(
    [
        ("len", "u4"),
        ("pkt_type", "u4"),
        ("mark", "u4"),
        ("queue_mapping", "u4"),
        ("protocol", "u4"),
        ("vlan_present", "u4"),
        ("vlan_tci", "u4"),
        ("vlan_proto", "u4"),
        ("priority", "u4"),
        ("ingress_ifindex", "u4"),
        ("ifindex", "u4"),
        ("tc_index", "u4"),
        ("cb", "u4", (5,)),
        ("hash", "u4"),
        ("tc_classid", "u4"),
        ("data", "u4"),
        ("data_end", "u4"),
        ("napi_id", "u4"),
        ("family", "u4"),
        ("remote_ip4", "u4"),
        ("local_ip4", "u4"),
        ("remote_ip6", "u4", (4,)),
        ("local_ip6", "u4", (4,)),
        ("remote_port", "u4"),
        ("local_port", "u4"),
        ("data_meta", "u4"),
        ("flow_keys", "u8"),
        ("tstamp", "u8"),
        ("wire_len", "u4"),
        ("gso_segs", "u4"),
        ("sk", "u8"),
        ("gso_size", "u4"),
        ("tstamp_type", "u1"),
        ("unused", "u1", (3,)),
        ("hwtstamp", "u8"),
    ]
)
#: Those that a test may set: the kernel refuses anything in the others.
SETTABLE: Final = frozenset(
    {
        "mark",
        "priority",
        "ingress_ifindex",
        "ifindex",
        "cb",
        "tstamp",
        "wire_len",
        "gso_segs",
        "gso_size",
        "hwtstamp",
    }
)

#: ``struct xdp_md`` (linux/bpf.h), as a test run takes it.
XDP_MD: Final = np.dtype(
    [
        ("data", "u4"),
        ("data_end", "u4"),
        ("data_meta", "u4"),
        ("ingress_ifindex", "u4"),
        ("rx_queue_index", "u4"),
        ("egress_ifindex", "u4"),
    ]
)

_TEST_RUN = struct.Struct("=IIIIQQIIIIQQIII")
_RETURN_VALUE, _SIZE_OUT, _DURATION = 4, 12, 36
#: Programs may lengthen a packet (encapsulation, ICMP answers).
_GROWTH: Final = 512


@dataclass(frozen=True, slots=True)
class Run:
    """What a program did with a packet."""

    value: int  # what it returned: TC_ACT_..., XDP_...
    data: bytes  # the packet as it left it
    context: Any  # a record as it was given; None when none was
    duration: int  # ns, the mean of one run


def skb(**fields: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """A socket buffer's fields for `run`; KeyError for one that a test cannot set."""
    made = np.zeros(1, SK_BUFF)
    for name, value in fields.items():
        if name not in SETTABLE:
            raise KeyError(
                f"__sk_buff.{name} cannot be set for a test run; {', '.join(sorted(SETTABLE))} can"
            )
        made[name] = value
    return made


def xdp(data: bytes, ifindex: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The context in which an XDP program gets `data`; an XDP program must be attached to that interface."""
    made = np.zeros(1, XDP_MD)
    made["data_end"], made["ingress_ifindex"] = len(data), ifindex
    return made


def run(
    program: int,
    data: bytes,
    context: np.ndarray[tuple[int], np.dtype[np.void]] | None = None,
    repeat: int = 1,
) -> Run:
    """Runs the program `repeat` times on the same packet (which keeps what it did to it before).

    For tc and XDP programs `data` begins with the Ethernet header, and the ifindex of the context is of the
    caller's network namespace. Raises `bpf.BpfError`.
    """
    packet = ctypes.create_string_buffer(data, len(data))
    out = ctypes.create_string_buffer(len(data) + _GROWTH)
    context_out = np.zeros_like(context) if context is not None else np.zeros(1, SK_BUFF)
    given = context is not None
    attributes = bpf.Attributes(
        _TEST_RUN,
        program,
        0,
        len(data),
        len(out),
        ctypes.addressof(packet),
        ctypes.addressof(out),
        repeat,
        0,
        context_out.itemsize if given else 0,
        context_out.itemsize if given else 0,
        context.ctypes.data if context is not None else 0,
        context_out.ctypes.data if given else 0,
        0,
        0,
        0,
    )
    result = attributes.call(Command.PROG_TEST_RUN)
    if result < 0:
        hints = {
            errno.EINVAL: "the packet is shorter than its headers, or the context sets what it cannot",
            errno.ENOSPC: f"the program made the packet more than {_GROWTH} bytes longer",
            errno.ENODEV: "the context's ifindex is not of this network namespace",
            bpf.ENOTSUPP: "programs of this type cannot be run so",
        }
        raise bpf.failure(-result, f"test run of {bpf.describe(program)}", hints.get(-result, ""))
    return Run(
        attributes.word(_RETURN_VALUE),
        out.raw[: attributes.word(_SIZE_OUT)],
        context_out[0] if given else None,
        attributes.word(_DURATION),
    )
