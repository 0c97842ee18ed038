"""tc programs on an interface by tcx links (Linux 6.6, https://docs.kernel.org/bpf/).

The link is pinned: it outlives the agent, and a new agent finds it by its path and swaps the program in
place, so that no packet passes without one of the two.
"""

from __future__ import annotations

from pathlib import Path

from axoneme.datapath import bpf, links
from axoneme.datapath.uapi import AttachType, LinkFlag, LinkType


def attach(
    program: int, ifindex: int, point: AttachType, pin: Path, *, before: int = 0, after: int = 0
) -> None:
    """Attaches `program`, or replaces the one that the link pinned at `pin` has.

    A pinned link of an interface that is gone, or of another one, gives way to a new link. `before` and
    `after` are ids of programs there; without them a new link runs last.
    """
    if links.replace(program, pin, lambda info: _is_at(info, ifindex, point)):
        return
    flags, relative = 0, before or after
    if relative:
        flags = (LinkFlag.BEFORE if before else LinkFlag.AFTER) | LinkFlag.BY_ID
    links.keep(bpf.link_create(program, ifindex, point, flags, relative), pin)


def attached(ifindex: int, point: AttachType, pin: Path) -> int:
    """The id of the program that the link pinned at `pin` has there; 0 when it is no such link."""
    return links.holder(pin, lambda info: _is_at(info, ifindex, point))


def _is_at(info: bpf.LinkInfo, ifindex: int, point: AttachType) -> bool:
    """Whether a link is at an interface of this network namespace: another one may have the same index."""
    return (
        info.kind == LinkType.TCX
        and (info.ifindex, info.attach_type) == (ifindex, point)
        and any(entry.link_id == info.id for entry in bpf.query(ifindex, point))
    )
