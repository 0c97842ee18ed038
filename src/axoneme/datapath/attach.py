"""Attaching tc programs to interfaces: by tcx links where the kernel has them, else by clsact filters.

All of it concerns interfaces of the caller's network namespace. What is attached stays when the agent
goes: a link by its pin, a filter with its interface.
"""

from __future__ import annotations

from pathlib import Path

from axoneme.datapath import bpf, clsact, links, tcx
from axoneme.datapath.features import Feature, has
from axoneme.datapath.uapi import AttachType

INGRESS = AttachType.TCX_INGRESS
EGRESS = AttachType.TCX_EGRESS


def attach(program: int, ifindex: int, point: AttachType, pin: Path) -> None:
    """Attaches `program` to `INGRESS` or `EGRESS` of an interface, or replaces in place the one that
    stands behind `pin`."""
    if has(Feature.TCX):
        tcx.attach(program, ifindex, point, pin)
    else:
        clsact.attach(program, ifindex, point)


def attach_ahead(program: int, ifindex: int, point: AttachType, pin: Path | None) -> bool:
    """Has `program` run before the one that `attach` put there; False when there is none.

    Without a `pin` it is filters that are meant, as on the links of pods.
    """
    if pin is None or not has(Feature.TCX):
        if not clsact.attached(ifindex, point):
            return False
        clsact.attach(program, ifindex, point, clsact.AHEAD)
        return True
    behind = tcx.attached(ifindex, point, pin)
    if behind:
        tcx.attach(program, ifindex, point, ahead_of(pin), before=behind)
    return bool(behind)


def detach_ahead(ifindex: int, point: AttachType, pin: Path | None) -> None:
    if pin is None or not has(Feature.TCX):
        clsact.detach(ifindex, point, clsact.AHEAD)
    else:
        links.detach(ahead_of(pin))


def ahead_of(pin: Path) -> Path:
    """Where the link is pinned that runs before the one pinned at `pin`."""
    return pin.with_name(f"{pin.name}-ahead")


def holder(ifindex: int, point: AttachType, pin: Path | None) -> int:
    """The id of the program that we have there; 0 when there is none. `pin` as for `attach_ahead`."""
    if pin is None or not has(Feature.TCX):
        return clsact.attached(ifindex, point)
    return tcx.attached(ifindex, point, pin)


def detach(ifindex: int, point: AttachType, pin: Path) -> bool:
    """Takes our program off; False when there was none. Good also for an interface that is gone."""
    return links.detach(pin) or (not has(Feature.TCX) and clsact.detach(ifindex, point))


def attached(ifindex: int, point: AttachType) -> list[int]:
    """Ids of the programs there, in the order in which they run: of tcx all, of filters ours."""
    if has(Feature.TCX):
        return [entry.program_id for entry in bpf.query(ifindex, point)]
    ours = clsact.attached(ifindex, point)
    return [ours] if ours else []
