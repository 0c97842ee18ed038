"""Programs at the sockets of a control group (cgroup v2) and of all below it, by links (Linux 5.7).

Several programs may be at one place: those of others on this group, above and below it stay and run too, the
lower groups' first. A group that is removed takes its links off; their pins stay until they are used again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from axoneme.datapath import bpf, links
from axoneme.datapath.uapi import AttachType, LinkType

#: The programs of bpf/socket.bpf.c by their C names, and where each belongs.
CALLS: Final[Mapping[str, AttachType]] = {
    "connect4": AttachType.CGROUP_INET4_CONNECT,
    "connect6": AttachType.CGROUP_INET6_CONNECT,
    "sendmsg4": AttachType.CGROUP_UDP4_SENDMSG,
    "sendmsg6": AttachType.CGROUP_UDP6_SENDMSG,
    "recvmsg4": AttachType.CGROUP_UDP4_RECVMSG,
    "recvmsg6": AttachType.CGROUP_UDP6_RECVMSG,
    "getpeername4": AttachType.CGROUP_INET4_GETPEERNAME,
    "getpeername6": AttachType.CGROUP_INET6_GETPEERNAME,
}
#: That of bpf/tcphealth.bpf.c.
HEALTH: Final[Mapping[str, AttachType]] = {"tcp_health": AttachType.CGROUP_SOCK_OPS}
POINTS: Final[Mapping[str, AttachType]] = {**CALLS, **HEALTH}


def pin_of(folder: Path, program: str) -> Path:
    """Where a node's link of this program is pinned, by the folder of its links."""
    return folder / f"socket-{program}"


def attach(program: int, group: Path, point: AttachType, pin: Path) -> None:
    """Attaches `program`, or replaces the one that the link pinned at `pin` has.

    A pinned link of another group, or of one that is gone, gives way to a new link. OSError when there is no
    such group, or it takes no program.
    """
    if links.replace(program, pin, lambda info: _is_at(info, group, point)):
        return
    target = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        links.keep(bpf.link_create(program, target, point), pin)
    except bpf.Forbidden as error:
        doing = f"attaching {bpf.describe(program)} to the sockets of {group}"
        hint = "it needs root; or a group above has a program that allows none below (bpftool cgroup)"
        raise bpf.failure(error.errno or 0, doing, hint) from error
    finally:
        os.close(target)


def attached(group: Path, point: AttachType, pin: Path) -> int:
    """The id of the program that the link pinned at `pin` has there; 0 when it is no such link."""
    return links.holder(pin, lambda info: _is_at(info, group, point))


def _is_at(info: bpf.LinkInfo, group: Path, point: AttachType) -> bool:
    return (info.kind, info.attach_type, info.cgroup_id) == (LinkType.CGROUP, point, _number(group))


def _number(group: Path) -> int:
    """The kernel's id of a group is the number of its directory; -1 when there is none."""
    try:
        return group.stat().st_ino
    except FileNotFoundError:
        return -1
