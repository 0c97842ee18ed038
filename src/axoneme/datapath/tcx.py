"""tc programs on an interface by tcx links (Linux 6.6, https://docs.kernel.org/bpf/).

The link is pinned: it outlives the agent, and a new agent finds it by its path and swaps the program in
place, so that no packet passes without one of the two.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from axoneme.datapath import bpf
from axoneme.datapath.uapi import AttachType, LinkFlag, LinkType


def attach(
    program: int, ifindex: int, point: AttachType, pin: Path, *, before: int = 0, after: int = 0
) -> None:
    """Attaches `program`, or replaces the one that the link pinned at `pin` has.

    A pinned link of an interface that is gone, or of another one, gives way to a new link. `before` and
    `after` are ids of programs there; without them a new link runs last.
    """
    if _replace(program, ifindex, point, pin):
        return
    flags, relative = 0, before or after
    if relative:
        flags = (LinkFlag.BEFORE if before else LinkFlag.AFTER) | LinkFlag.BY_ID
    link = bpf.link_create(program, ifindex, point, flags, relative)
    try:
        bpf.pin(link, pin)
    finally:
        # Without its pin, the link goes with this: nothing stays attached that nobody could find.
        os.close(link)


def attached(ifindex: int, point: AttachType, pin: Path) -> int:
    """The id of the program that the link pinned at `pin` has there; 0 when it is no such link."""
    try:
        link = bpf.pinned(pin)
    except bpf.BpfError:
        return 0
    try:
        if not bpf.is_link(link):
            return 0
        info = bpf.link_info(link)
        return info.program_id if _is_at(info, ifindex, point) else 0
    finally:
        os.close(link)


def _replace(program: int, ifindex: int, point: AttachType, pin: Path) -> bool:
    try:
        link = bpf.pinned(pin)
    except bpf.NotFound:
        return False
    try:
        if not bpf.is_link(link):
            pin.unlink()
            return False
        info = bpf.link_info(link)
        if _is_at(info, ifindex, point):
            try:
                if info.program_id != bpf.program_info(program).id:
                    bpf.link_update(link, program)
                return True
            except bpf.BpfError as error:
                if error.errno != errno.ENOLINK:
                    raise
        elif info.ifindex:
            bpf.link_detach(link)
    finally:
        os.close(link)
    pin.unlink()
    return False


def _is_at(info: bpf.LinkInfo, ifindex: int, point: AttachType) -> bool:
    """Whether a link is at an interface of this network namespace: another one may have the same index."""
    return (
        info.kind == LinkType.TCX
        and (info.ifindex, info.attach_type) == (ifindex, point)
        and any(entry.link_id == info.id for entry in bpf.query(ifindex, point))
    )


def detach(pin: Path) -> bool:
    """Takes the program off at once, and the pin away; False when there was none."""
    try:
        link = bpf.pinned(pin)
    except bpf.NotFound:
        return False
    try:
        if bpf.is_link(link) and bpf.link_info(link).ifindex:
            bpf.link_detach(link)
    finally:
        os.close(link)
    pin.unlink()
    return True
