"""The address table, for the time while there is no agent: an address of a name gets an identity that the
agent has made for others of its kind, or none.

The pins belong to the agent, who lets this process open them. It may put other tables in their places, so
each time it is looked which stand there.
"""

from __future__ import annotations

import enum
import ipaddress
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from axoneme.datapath.epochs import Epochs
from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.proxy.names import NameIdentity, Names

log = logging.getLogger(__name__)

_WHOLE: Final = 128
_MAPPED: Final = bytes(10) + b"\xff\xff"


class AddressTable:
    def __init__(self, maps: Path) -> None:
        """`maps`: the folder of pins; to be made as root. What is below it is opened when it is needed."""
        schema = Schema.load()
        self._schema = schema
        self._key, self._value = schema.struct("prefix_key"), schema.struct("address")
        self._folder: int | None = None
        try:
            self._folder = os.open(maps, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("%s: addresses wait for the agent", error)
        self._inodes: tuple[int, int] | None = None
        self._table: Table | None = None
        self._epochs: Epochs | None = None
        self._use = _Use(Names())
        self._problem = ""

    def use(self, names: Names) -> None:
        self._use = _Use(names)

    def assign(self, addresses: Iterable[str], selectors: frozenset[int]) -> int:
        """Gives addresses of a name, which these selectors match, the identities that they should have, as
        far as there are such; how many have them now."""
        done, changed = 0, []
        try:
            table, epochs = self._open()
            try:
                for address in map(ipaddress.ip_address, addresses):
                    if address.is_loopback or address.is_unspecified or address.is_multicast:
                        continue  # no machine in particular
                    packed = _packed(address)
                    found = self._assign(table, packed, selectors)
                    done += found is not _Found.NOTHING
                    if found is _Found.CHANGED:
                        changed.append(packed)
            finally:
                epochs.raise_addresses(changed)
        except (OSError, ValueError) as error:
            if self._problem != str(error):
                self._problem = str(error)
                log.warning("while there is no agent, new addresses of names stay unknown: %s", error)
        else:
            self._problem = ""
        return done

    def _assign(self, table: Table, packed: bytes, selectors: frozenset[int]) -> _Found:
        """Raises BpfError."""
        key = np.zeros((), self._key)
        key["prefix_length"], key["address"] = _WHOLE, np.frombuffer(packed, "u1")
        record = table.get(key)
        has = int(record["identity"]) if record is not None else None
        number = self._use.identity(has, packed, selectors)
        if number is None:
            return _Found.NOTHING
        if number == has:
            return _Found.RIGHT
        record = np.zeros((), self._value) if record is None else record.copy()
        record["identity"] = number
        table.put(key, record)
        return _Found.CHANGED

    def _open(self) -> tuple[Table, Epochs]:
        if self._folder is None:
            raise FileNotFoundError("the agent's tables were not there when this process began")
        pins = Path(f"/proc/self/fd/{self._folder}")
        inodes = (pins / "addresses").stat().st_ino, (pins / "epochs").stat().st_ino
        if self._table is not None and inodes != self._inodes:
            self._table.close()
            self._table = self._epochs = None
        if self._table is None or self._epochs is None:
            self._epochs = Epochs.pinned(pins, self._schema)
            self._table = Table.pinned(pins / "addresses", self._key, self._value)
            self._inodes = inodes
        return self._table, self._epochs


class _Found(enum.Enum):
    NOTHING = enum.auto()  # there is no identity for it
    RIGHT = enum.auto()
    CHANGED = enum.auto()


class _Use:
    """What the plan says of identities, for look-ups."""

    def __init__(self, names: Names) -> None:
        self._worlds = names.worlds
        self._known = {each.identity: each for each in names.identities}
        self._numbers = {(each.around, frozenset(each.selectors)): each.identity for each in names.identities}
        self._around = {each.around for each in names.identities}

    def identity(self, has: int | None, packed: bytes, selectors: frozenset[int]) -> int | None:
        """What an address should have that has `has` now. None: there is no such identity yet, or it is one
        of the cluster, which names do not change."""
        if has is None:
            has = self._worlds[0 if packed.startswith(_MAPPED) else 1]
        known: NameIdentity | None = self._known.get(has)
        if known is not None:
            return self._numbers.get((known.around, selectors.union(known.selectors)))
        return self._numbers.get((has, selectors)) if has in self._around else None


def _packed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return _MAPPED + address.packed if address.version == 4 else address.packed
