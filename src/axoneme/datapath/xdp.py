"""The fast path for packets that only pass through (bpf/xdp.bpf.c), on uplinks, by links (Linux 5.9).

It is an addition: without it every packet goes the way by ``from_uplink``. So it is loaded only where it is
asked for, and taken away while tables are succeeded, when the two would work on different ones.

    <bpffs>/links/<interface>-xdp
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from axoneme.datapath import bpf, links
from axoneme.datapath.libbpf import LoadError, Object
from axoneme.datapath.programs import TRANSIENT, Constants
from axoneme.datapath.uapi import AttachType, LinkType

log = logging.getLogger(__name__)

PROGRAM: Final = "from_wire"
#: ``XDP_FLAGS_*`` of linux/if_link.h.
_GENERIC, _NATIVE = 1 << 1, 1 << 2


class Acceleration(enum.Enum):
    """Where packets meet the program: in the driver, or before the rest of the stack; or first the one, and
    where the driver has no such place, the other."""

    DISABLED = "disabled"
    NATIVE = "native"
    GENERIC = "generic"
    BEST_EFFORT = "best-effort"

    @property
    def flags(self) -> tuple[int, ...]:
        """What is tried, one after the other."""
        return _FLAGS[self]


_FLAGS: Final[Mapping[Acceleration, tuple[int, ...]]] = {
    Acceleration.DISABLED: (),
    Acceleration.NATIVE: (_NATIVE,),
    Acceleration.GENERIC: (_GENERIC,),
    Acceleration.BEST_EFFORT: (_NATIVE, _GENERIC),
}


class FastPath:
    """The program on those uplinks that are to have it."""

    def __init__(self, root: Path, folder: Path, constants: Constants) -> None:
        """``root`` is the datapath's; the object is in ``folder``."""
        self._links = root / "links"
        self._folder = folder
        self._constants = constants
        self._source: Object | None = None
        #: By interface.
        self._places: dict[str, tuple[int, Acceleration]] = {}

    @property
    def program(self) -> int:
        """Its file descriptor; KeyError when nobody has asked for it."""
        if self._source is None:
            raise KeyError(PROGRAM)
        return self._source.program_fd(PROGRAM)

    def want(self, interface: str, ifindex: int, how: Acceleration) -> None:
        """From the next `renew` on."""
        self._places[interface] = ifindex, how

    def release(self, interface: str) -> None:
        """The interface may be gone already."""
        self._places.pop(interface, None)
        links.detach(self._pin(interface))

    def renew(self, tables: Mapping[str, int]) -> None:
        """Loads the program over these tables, by name, and puts it where it is wanted, or in place of what
        is there. Where it cannot be, packets go the other way."""
        wanted = {name for name, (_, how) in self._places.items() if how.flags}
        for pin in self._links.glob("*-xdp"):
            if pin.name.removesuffix("-xdp") not in wanted:
                links.detach(pin)
        self._close()
        if not wanted:
            return
        try:
            self._source = load(self._folder, self._constants, tables)
        except LoadError as error:
            log.error("packets are not accelerated: %s", error)
            return
        for name in wanted:
            self._put(name)

    def withdraw(self) -> None:
        """Until the next `renew`; also what an earlier process has left."""
        for pin in self._links.glob("*-xdp"):
            links.detach(pin)
        self._close()

    def mend(self) -> int:
        """Puts it back where it has been taken away; how often."""
        if self._source is None:
            return 0
        number = bpf.program_info(self.program).id
        return sum(
            how.flags != () and attached(ifindex, self._pin(name)) != number and self._put(name)
            for name, (ifindex, how) in self._places.items()
        )

    def _put(self, interface: str) -> bool:
        ifindex, how = self._places[interface]
        try:
            attach(self.program, interface, ifindex, how, self._pin(interface))
        except bpf.BpfError as error:
            log.error("%s: packets are not accelerated: %s", interface, error)
            return False
        return True

    def _pin(self, interface: str) -> Path:
        return self._links / f"{interface}-xdp"

    def close(self) -> None:
        """What is attached stays at work."""
        self._close()

    def _close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()


def load(folder: Path, constants: Constants, tables: Mapping[str, int], name: str = "xdp") -> Object:
    """An object that is loaded on demand, over these tables, by name; to be closed.
    `axoneme.datapath.libbpf.LoadError` when the kernel refuses it."""
    source = Object.open(folder / f"{name}.o")
    try:
        for table in source.map_names:
            if table in TRANSIENT:
                source.omit(table)
            elif table in tables:
                source.use(table, tables[table])
        source.set_constants(**asdict(constants), successor=0)
        source.load()
    except BaseException:
        source.close()
        raise
    return source


def attach(program: int, interface: str, ifindex: int, how: Acceleration, pin: Path) -> None:
    """Attaches `program`, or replaces the one that the link pinned at `pin` has.

    `axoneme.datapath.bpf.BpfError` where none of what is tried is possible, as when somebody else's program
    is there.
    """
    if links.replace(program, pin, lambda info: _is_at(info, ifindex)):
        return
    for flags in how.flags:
        try:
            link = bpf.link_create(program, ifindex, AttachType.XDP, flags)
        except bpf.BpfError as error:
            if flags == how.flags[-1]:
                raise
            log.info("%s: its driver has no place for XDP (%s); packets meet it behind", interface, error)
        else:
            links.keep(link, pin)
            return


def attached(ifindex: int, pin: Path) -> int:
    """The id of the program that the link pinned at `pin` has there; 0 when there is none."""
    return links.holder(pin, lambda info: _is_at(info, ifindex))


def _is_at(info: bpf.LinkInfo, ifindex: int) -> bool:
    return (info.kind, info.ifindex) == (LinkType.XDP, ifindex)
