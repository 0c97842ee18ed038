"""Whether a map that exists can stand for one that an object declares.

Maps are pinned and outlive the agent that made them; the next one, perhaps of a newer release, shares
them when nothing in them means something else. The kernel keeps the types with which a map was created,
so a field that moved, or changed its name, is noticed even where the sizes are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from axoneme.datapath import bpf
from axoneme.datapath.btf import AnyDtype, Btf, MapTypes

Fields = Mapping[str, tuple[AnyDtype, int] | tuple[AnyDtype, int, Any]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """A map as an object declares it, with the changes made since it was opened."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    types: MapTypes

    def sized(self, entries: int) -> Declaration:
        return replace(self, max_entries=entries)


def differences(declared: Declaration, fd: int, known: dict[int, Btf]) -> list[str]:
    """Why the map behind `fd` cannot stand for the declared one; empty: it can.

    `known` remembers the kernel's BTF by its id: the maps of one object have theirs in common.
    """
    info = bpf.map_info(fd)
    sides = (
        ("type", info.kind, declared.kind),
        ("key size", info.key_size, declared.key_size),
        ("value size", info.value_size, declared.value_size),
        ("max_entries", info.max_entries, declared.max_entries),
        ("flags", info.flags, declared.flags),
    )
    found = [f"{what} is {held}, needed {needed}" for what, held, needed in sides if held != needed]
    if found or not info.btf_id:
        return found
    if info.btf_id not in known:
        known[info.btf_id] = Btf(bpf.btf_section(info.btf_id), f"BTF {info.btf_id}")
    types = known[info.btf_id]
    for what, number, needed in (
        ("key", info.btf_key, declared.types.key),
        ("value", info.btf_value, declared.types.value),
    ):
        if number and needed is not None and (change := layout_change(types.type(number), needed, what)):
            found.append(change)
    return found


def layout_change(held: AnyDtype, needed: AnyDtype, path: str) -> str | None:
    """The first place where two dtypes part, in words; None when they are the same."""
    if held == needed:
        return None
    ours: Fields = needed.fields or {}
    theirs: Fields = held.fields or {}
    for name in sorted(ours.keys() & theirs.keys(), key=lambda field: ours[field][1]):
        if theirs[name][1] != ours[name][1]:
            return f"{path}.{name} is at byte {theirs[name][1]}, needed at {ours[name][1]}"
        if change := layout_change(theirs[name][0], ours[name][0], f"{path}.{name}"):
            return change
    if ours and theirs and (names := sorted(ours.keys() ^ theirs.keys())):
        return f"{path}.{names[0]} is {'missing' if names[0] in ours else 'not in it any more'}"
    return f"{path} is {held}, needed {needed}"
