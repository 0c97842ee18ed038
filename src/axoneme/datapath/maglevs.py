"""The table of lookup tables: a map whose values are maps, one for each service that has places.

A lookup table is never changed: a new one is filled, and put in the place of the old one as a whole, so that
no packet sees half of one. For such a replacement the kernel waits for a grace period, 10 ms or more; so many
are made in one system call. What is filled is frozen, so nobody can edit it, and its name says what it was
made from: one that stands, of an earlier process too, need not be computed to be compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from axoneme.datapath import bpf, elements
from axoneme.datapath.btf import AnyDtype
from axoneme.datapath.uapi import Command, MapType
from axoneme.services.maglev import Places, Shares

_WORD: Final = np.dtype(np.uint32)
#: Lookup tables made at once: each takes a file descriptor until it has its place.
_AT_ONCE: Final = 256


class MaglevTables:
    """The lookup tables by the numbers of their services, which only this process writes."""

    def __init__(self, fd: int, places: AnyDtype, former: MaglevTables | None = None) -> None:
        """A view of the map behind `fd`, which stays the caller's; ``places`` is ``struct maglev_places``.

        Takes over what the ``former`` one knew, and closes it.
        """
        self.info = bpf.map_info(fd)
        self.name = self.info.name
        self.places = places.itemsize // _WORD.itemsize
        self._fd: int | None = os.dup(fd)
        #: By service, the id of its lookup table: as written, or found and taken for right.
        self._ids: dict[int, int] = {}
        #: Makes the lookup table of a service anew when somebody else has removed it; None: it needs none.
        self.refill: Callable[[int], Shares | None] = lambda _: None
        if former is not None:
            self._ids, self.refill = former._ids, former.refill
            former.close()

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"map {self.name}: this table is closed")
        return self._fd

    @property
    def room(self) -> int:
        return self.info.max_entries

    def __len__(self) -> int:
        return len(self._ids)

    def adopt(self) -> list[int]:
        """The services that have lookup tables in the kernel, whatever is in them."""
        self._ids = self._held()
        return list(self._ids)

    def read(self, service: int) -> Places | None:
        """The lookup table of a service; None when the kernel has none."""
        number = np.zeros(1, _WORD)
        if not elements.lookup(self.fd, np.array([service], _WORD), number):
            return None
        return self._content(int(number[0]))

    def write(self, tables: Mapping[int, Shares]) -> int:
        """Gives services their lookup tables; how many had another, or none."""
        changed = [
            service
            for service, shares in tables.items()
            if service not in self._ids or _name_of(self._ids[service]) != self._name(shares)
        ]
        for at in range(0, len(changed), _AT_ONCE):
            self._put({service: tables[service] for service in changed[at : at + _AT_ONCE]})
        return len(changed)

    def _put(self, tables: Mapping[int, Shares]) -> None:
        fds: list[int] = []
        try:
            for shares in tables.values():
                fds.append(self._filled(shares))
            keys, values = np.array(list(tables), _WORD), np.array(fds, _WORD)
            elements.update_many(self.fd, keys, values)
            self._ids.update(zip(tables, (bpf.map_info(fd).id for fd in fds), strict=True))
        finally:
            for fd in fds:
                os.close(fd)

    def _filled(self, shares: Shares) -> int:
        size = self.places * _WORD.itemsize
        fd = bpf.map_create(MapType.ARRAY, _WORD.itemsize, size, 1, name=self._name(shares))
        try:
            places = np.ascontiguousarray(shares.places(self.places), _WORD)
            elements.update(fd, np.zeros(1, _WORD), places)
            bpf.map_freeze(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _name(self, shares: Shares) -> str:
        return f"m{shares.digest(self.places)}"

    def delete(self, services: Sequence[int]) -> int:
        """Takes lookup tables away; how many were there."""
        for service in services:
            self._ids.pop(service, None)
        return elements.delete_many(self.fd, np.array(services, _WORD))

    def audit(self) -> Iterator[int]:
        """One walk; yields how many services it has put right."""
        held, mended = self._held(), 0
        strange = [service for service in held if service not in self._ids]
        if strange:
            mended += self.delete(strange)
        for service, number in list(self._ids.items()):
            if held.get(service) != number and (shares := self.refill(service)) is not None:
                self._put({service: shares})
                mended += 1
                yield mended
                mended = 0
        yield mended

    def _held(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for keys, values in elements.chunks(self.fd, _WORD, _WORD, min(elements.CHUNK, self.room)):
            found.update(zip(keys.tolist(), values.tolist(), strict=True))
        return found

    def _content(self, number: int) -> Places | None:
        try:
            fd = bpf.by_id(Command.MAP_GET_FD_BY_ID, number)
        except bpf.NotFound:  # replaced meanwhile
            return None
        try:
            places: Places = np.zeros(self.places, _WORD)
            return places if elements.lookup(fd, np.zeros(1, _WORD), places) else None
        finally:
            os.close(fd)

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _name_of(number: int) -> str:
    """Of a map by its id; empty when it is gone."""
    try:
        fd = bpf.by_id(Command.MAP_GET_FD_BY_ID, number)
    except bpf.NotFound:
        return ""
    try:
        return bpf.map_info(fd).name
    finally:
        os.close(fd)
