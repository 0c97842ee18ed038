"""The tables of a node by their pins: which of them programs can go on using, which must be made anew.

What an earlier agent left is not trusted by its name: a pin that is no map, or one of another type, size or
layout (`sharing.differences`; the kernel keeps the types with each map) does not stand. What it holds is
carried over as far as it can be understood.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from axoneme.datapath import bpf, sharing
from axoneme.datapath.btf import AnyDtype, Btf, BtfError
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import Table
from axoneme.datapath.migration import MEANINGS
from axoneme.datapath.uapi import MapType

log = logging.getLogger(__name__)

#: Types whose tables may be larger than asked for: one that has grown stays so.
_GROWN: Final = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE)
#: What is no table: the programs' scratch memory. (Nor are rings, which their readers empty.)
_NOT_CARRIED: Final = "workspaces"
#: Types whose elements nobody can list, or give to another map. Maps of maps are filled anew by the control
#: plane; sockets that have called a service go on without a memory of it.
_NOT_LISTED: Final = (MapType.HASH_OF_MAPS, MapType.SK_STORAGE)
#: What is in maps that have no types of their own.
_UNTYPED: Final[Mapping[int, str]] = {MapType.RINGBUF: "event", MapType.HASH_OF_MAPS: "maglev_places"}


class Types:
    """The types in the kernel by the number of their BTF; maps that were made together share it."""

    def __init__(self) -> None:
        self.known: dict[int, Btf] = {}

    def of(self, info: bpf.MapInfo) -> Btf | None:
        if not info.btf_id:
            return None
        if info.btf_id not in self.known:
            self.known[info.btf_id] = Btf(bpf.btf_section(info.btf_id), f"BTF {info.btf_id}")
        return self.known[info.btf_id]

    def version(self, info: bpf.MapInfo) -> int:
        """The schema version of the programs for which a map was made; 0 when it does not say."""
        types = self.of(info)
        return types.enums.get("schema", {}).get("SCHEMA_VERSION", 0) if types else 0


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A map that cannot stand: its content goes into the one that takes its name."""

    name: str
    fd: int  # ours
    key: AnyDtype | None  # None: nothing says what it holds
    value: AnyDtype | None
    version: int

    def table(self) -> Table | None:
        """None where there is nothing to carry over."""
        if self.key is None or self.value is None or self.name.endswith(_NOT_CARRIED):
            return None
        if bpf.map_info(self.fd).kind in _NOT_LISTED:
            return None
        try:
            return Table(self.fd, self.key, self.value)
        except ValueError as error:
            log.warning("%s: what it held is not carried over: %s", self.name, error)
            return None

    def key_size(self) -> int:
        return bpf.map_info(self.fd).key_size


def predecessor(name: str, fd: int, types: Types) -> Predecessor:
    """Takes `fd` over."""
    info, key, value = bpf.map_info(fd), None, None
    try:
        if found := types.of(info):
            key = found.type(info.btf_key) if info.btf_key else None
            value = found.type(info.btf_value) if info.btf_value else None
    except BtfError as error:
        log.warning("%s: what it held is not carried over: %s", name, error)
    return Predecessor(name, fd, key, value, types.version(info))


@dataclass
class TableSet:
    """File descriptors, which are closed with it: of maps that stand, and of those that give way."""

    standing: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, Predecessor] = field(default_factory=dict)
    #: max_entries for those that are to be made.
    sizes: dict[str, int] = field(default_factory=dict)
    #: The schema version of what was found; 0 when nothing was.
    version: int = 0

    @classmethod
    def of(
        cls, folder: Path, source: Object, names: Iterable[str], sizes: Mapping[str, int], version: int
    ) -> Self:
        """Of the maps pinned in `folder` those that can stand for the ones which `source` declares.

        ``version`` is the schema's, of `source`.
        """
        found, types = cls(), Types()
        for name in names:
            declared = source.declaration(name)
            entries = sizes.get(name, declared.max_entries)
            fd = _pinned_map(folder / name)
            if fd is None:
                found.sizes[name] = entries
                continue
            info = bpf.map_info(fd)
            if info.kind == declared.kind and declared.kind in _GROWN:
                entries = max(entries, info.max_entries)
            found.sizes[name] = entries
            theirs = types.version(info)
            found.version = max(found.version, theirs)
            reasons = sharing.differences(declared.sized(entries), fd, types.known)
            if not reasons and theirs not in (0, version) and name in MEANINGS:
                reasons = [f"its meaning is that of schema version {theirs}, needed {version}"]
            if reasons:
                log.info("table %s is made anew: %s", name, ", ".join(reasons))
                found.replaced[name] = predecessor(name, fd, types)
            else:
                found.standing[name] = fd
        found._replace_untyped(source, types)
        return found

    def _replace_untyped(self, source: Object, types: Types) -> None:
        """What is in maps without types of their own, those tell that were made with them."""
        for name, fd in list(self.standing.items()):
            record = _UNTYPED.get(bpf.map_info(fd).kind)
            if record is None:
                continue
            theirs = [btf.struct(record) for btf in types.known.values() if record in btf.struct_names]
            if any(each != source.btf.struct(record) for each in theirs):
                log.info("table %s is made anew: its records (%s) have changed", name, record)
                self.replaced[name] = predecessor(name, self.standing.pop(name), types)

    def enlarged(self, sizes: Mapping[str, int]) -> TableSet:
        """The same tables, but those in `sizes` with so many entries."""
        types = Types()
        larger = TableSet(sizes={**self.sizes, **sizes}, version=self.version)
        for name, fd in self.standing.items():
            if name in sizes:
                larger.replaced[name] = predecessor(name, os.dup(fd), types)
            else:
                larger.standing[name] = os.dup(fd)
        return larger

    def keep(self, fds: Mapping[str, int]) -> None:
        """Those that were made stand from now on; the file descriptors stay the caller's."""
        self.standing |= {name: os.dup(fd) for name, fd in fds.items() if name not in self.standing}

    def close(self) -> None:
        for fd in (*self.standing.values(), *(each.fd for each in self.replaced.values())):
            os.close(fd)
        self.standing, self.replaced = {}, {}


def _pinned_map(path: Path) -> int | None:
    try:
        fd = bpf.pinned(path)
    except bpf.NotFound:
        return None
    except bpf.Forbidden:
        raise
    except bpf.BpfError as error:
        log.warning("%s; it gives way to a new table", error)
        path.unlink()
        return None
    if bpf.is_map(fd):
        return fd
    log.warning("%s is no table; it gives way to one", path)
    os.close(fd)
    path.unlink()
    return None


def misplaced(fds: Mapping[str, int], folder: Path) -> list[str]:
    """Those under whose names stands another thing, or nothing."""
    lost = []
    for name, fd in fds.items():
        try:
            there = bpf.pinned(folder / name)
        except bpf.NotFound:
            lost.append(name)
            continue
        try:
            if not bpf.is_map(there) or bpf.map_info(there).id != bpf.map_info(fd).id:
                lost.append(name)
        finally:
            os.close(there)
    return lost


def pin_all(fds: Mapping[str, int], folder: Path, names: Iterable[str]) -> None:
    """Pins by name, in the place of what stands there."""
    for name in names:
        partial = folder / f"{name}-partial"
        partial.unlink(missing_ok=True)
        bpf.pin(fds[name], partial)
        partial.rename(folder / name)
