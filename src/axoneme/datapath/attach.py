"""Attaching tc programs to interfaces: by tcx links where the kernel has them, else by clsact filters.

All of it concerns interfaces of the caller's network namespace. What is attached stays when the agent
goes: a link by its pin, a filter with its interface.
"""

from __future__ import annotations

from pathlib import Path

from axoneme.datapath import bpf, clsact, tcx
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


def detach(ifindex: int, point: AttachType, pin: Path) -> bool:
    """Takes our program off; False when there was none. Good also for an interface that is gone."""
    return tcx.detach(pin) or (not has(Feature.TCX) and clsact.detach(ifindex, point))


def attached(ifindex: int, point: AttachType) -> list[int]:
    """Ids of the programs there, in the order in which they run: of tcx all, of filters ours."""
    if has(Feature.TCX):
        return [entry.program_id for entry in bpf.query(ifindex, point)]
    ours = clsact.attached(ifindex, point)
    return [ours] if ours else []
