"""The datapath of one node: its programs, its tables, and where they are attached.

All of it is pinned under one bpffs directory, so it goes on without the process that set it up. The next
process calls `Datapath.load` again: tables that are there are shared with what they hold, programs are
verified anew and take the places of the old ones link by link, without a gap. Tables that cannot stand, being
of another layout or too small, are succeeded by new ones (`axoneme.datapath.succession`): that begins with
`load` or `grow`, and is done with `take_over`.

    <bpffs>/maps/<name>                 tables
    <bpffs>/links/<interface>-<point>   attachments to uplinks and the overlay (pods: filters on their link)
    <bpffs>/links/socket-<program>      attachments to a control group
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from axoneme.datapath import attach, bpffs, clsact, links, sockets, xdp
from axoneme.datapath.audit import WatchedTable
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.epochs import Epochs
from axoneme.datapath.hostfilter import HostFilter, HostSettings
from axoneme.datapath.image import Image
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maglevs import MaglevTables
from axoneme.datapath.maps import Table
from axoneme.datapath.programs import FIRST, PROGRAMS, TRANSIENT, Constants, Programs
from axoneme.datapath.schema import OBJECTS, Schema
from axoneme.datapath.succession import Place, Succession, recover
from axoneme.datapath.tableset import TableSet, misplaced, pin_all
from axoneme.datapath.uapi import AttachType
from axoneme.datapath.xdp import Acceleration, FastPath

__all__ = ["PROGRAMS", "Address", "Constants", "Datapath", "Sizes", "packed", "prefix_bits"]

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOTHING_TOLD: Final = Constants()
#: Those that the control plane writes.
_WATCHED: Final = (
    "endpoints",
    "uplinks",
    "policies",
    "addresses",
    "announced",
    "frontends",
    "services",
    "slots",
    "backends",
    "source_ranges",
)
_TABLES: Final = (
    *_WATCHED,
    "authenticated",
    "served",
    "affinities",
    "datagrams",
    "calls",
    "flows",
    "half_open",
    "translations",
    "half_open_translations",
    "exhausted",
    "drops",
    "forwards",
    "lost",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many entries a table holds at least; names as in ``maps.h``. Absent: as compiled."""

    entries: Mapping[str, int] = field(default_factory=dict)


def packed(address: Address) -> bytes:
    """16 bytes as the tables hold them: IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2)."""
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def unpacked(address: bytes) -> Address:
    """The reverse of `packed`."""
    found = ipaddress.IPv6Address(address)
    return found.ipv4_mapped or found


def prefix_bits(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    return network.prefixlen + (96 if network.version == 4 else 0)


_PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


class Datapath:
    """Programs loaded, tables open. Not thread-safe."""

    endpoints: WatchedTable
    addresses: WatchedTable
    policies: WatchedTable
    uplinks: WatchedTable
    announced: WatchedTable
    frontends: WatchedTable
    services: WatchedTable
    slots: WatchedTable
    backends: WatchedTable
    source_ranges: WatchedTable
    maglev: MaglevTables
    authenticated: Table
    served: Table
    affinities: Table
    datagrams: Table
    calls: Table
    flows: Table
    half_open: Table
    translations: Table
    half_open_translations: Table
    exhausted: Table
    drops: Table
    forwards: Table
    lost: Table

    def __init__(
        self, root: Path, folder: Path, constants: Constants, tables: TableSet, schema: Schema
    ) -> None:
        """Of `load`; `tables` become this object's."""
        self._root = root
        self._folder = folder
        self._constants = constants
        self.schema = schema
        self._version = schema.enum("schema")["SCHEMA_VERSION"]
        self._found = tables.version
        self._places: dict[tuple[int, AttachType], Place] = {}
        self._group: Path | None = None
        self._at_sockets: Mapping[str, AttachType] = {}
        self._fast_path = FastPath(root, folder, constants)
        self._host_filter = HostFilter(root, folder, constants)
        self._programs: Programs | None = None
        self._set = TableSet()
        self._images: dict[str, Image] = {}
        #: What has been put right since the start, by what it was.
        self.repairs: Counter[str] = Counter()
        self._succession: Succession | None = None
        if tables.replaced:
            self._succession = Succession(root, folder, constants, tables, self._version)
            self._use(self._succession.programs)
        else:
            self._settle(tables)

    @classmethod
    def load(
        cls,
        root: Path,
        constants: Constants = _NOTHING_TOLD,
        sizes: Sizes = Sizes(),
        folder: Path = OBJECTS,
    ) -> Self:
        """Loads every program of the objects in ``folder`` and opens every table, sharing what is pinned
        under ``root``, as far as it can stand.

        `axoneme.datapath.libbpf.LoadError` when the kernel refuses a program. Attach it to all places, and
        then call `take_over`: until then the predecessors' programs may still be at work.
        """
        bpffs.mount(root)
        for name in ("maps", "links"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        recover(root)
        schema = Schema.load(folder)
        with Object.open(folder / f"{FIRST}.o") as source:
            names = [name for name in source.map_names if name not in TRANSIENT]
            version = schema.enum("schema")["SCHEMA_VERSION"]
            tables = TableSet.of(root / "maps", source, names, sizes.entries, version)
        return cls(root, folder, constants, tables, schema)

    def take_over(self) -> None:
        """Where the tables were of another make: has these programs go on with what they held, and removes
        the predecessors. Nothing to do else."""
        succession, self._succession = self._succession, None
        if succession is not None:
            self._fast_path.withdraw()  # it works on the predecessors' tables
            carried = succession.take_over()
            log.info("carried over: %s", ", ".join(f"{count} {name}" for name, count in carried.items()))
            self._settle(succession.heirs())
            for place in self._places.values():
                try:
                    self._put(place)
                    succession.relieve(place)
                except BpfError as error:
                    log.error("%s; there, the successor goes on", error)
            self._put_at_sockets()
            self._fast_path.renew(self._set.standing)
            if self._host_filter.active:
                self._host_filter.renew(self._set.standing, self._places.values())
            succession.commit()
        if self._found not in (0, self._version):
            log.info("tables were of schema version %d, are of %d", self._found, self._version)
            self.raise_all()  # perhaps these programs decide otherwise
        self._found = self._version

    def grow(self, entries: Mapping[str, int]) -> None:
        """Gives tables more room, by name, without losing an entry or a packet.

        It verifies all programs twice, which takes a second or two, in which this process does nothing else.
        """
        succession = Succession(
            self._root, self._folder, self._constants, self._set.enlarged(entries), self._version
        )
        for place in self._places.values():
            self._put_ahead(succession, place)
        self._succession = succession
        self.take_over()

    def _settle(self, tables: TableSet) -> None:
        """Loads the programs that stay, on these tables."""
        programs = Programs.load(self._folder, self._constants, tables)
        made = [name for name in programs.fds if name not in tables.standing]
        pin_all(programs.fds, self._root / "maps", made)
        tables.keep(programs.fds)
        former, self._set = self._set, tables
        self._use(programs)
        former.close()

    def _use(self, programs: Programs) -> None:
        for name in _TABLES:
            former = getattr(self, name, None)
            setattr(self, name, self._watched(programs, name) if name in _WATCHED else programs.table(name))
            if former is not None:
                former.close()
        former_maglev = getattr(self, "maglev", None)
        self.maglev = MaglevTables(programs.fds["maglev"], self.schema.struct("maglev_places"), former_maglev)
        self._epochs = Epochs.of(programs.objects[FIRST], self.schema)
        former_programs, self._programs = self._programs, programs
        if former_programs is not None:
            former_programs.close()

    def _watched(self, programs: Programs, name: str) -> WatchedTable:
        with programs.table(name) as table:
            image = self._images.setdefault(name, Image(table.key, table.value))
            return WatchedTable(table.fd, table.key, table.value, image)

    def program(self, name: str) -> int:
        """File descriptor of a program by its C name; KeyError when it is not loaded."""
        assert self._programs is not None
        if name == xdp.PROGRAM:
            return self._fast_path.program
        return self._programs.fd(name)

    # ---- places --------------------------------------------------------------------------------

    def attach_endpoint(self, ifindex: int) -> None:
        """To the host side of a pod's link, or in place of what is there.

        By filters also where there are tcx links: to create a link the kernel waits for a grace period,
        10 to 20 ms each, a filter takes 0.1 ms; and the filter goes with the interface.
        """
        self._attach(Place("to_pod", ifindex, attach.EGRESS, None))
        self._attach(Place("from_pod", ifindex, attach.INGRESS, None))

    def release_endpoint(self, ifindex: int) -> None:
        """The pod's link is going."""
        for point in (attach.EGRESS, attach.INGRESS):
            self._places.pop((ifindex, point), None)

    def endpoint_attached(self, ifindex: int) -> bool:
        """Whether both of a pod's programs are in their places."""
        return all(clsact.attached(ifindex, point) for point in (attach.EGRESS, attach.INGRESS))

    def attach_uplink(self, interface: str, ifindex: int) -> None:
        self._attach_link("from_uplink", interface, ifindex, attach.INGRESS)
        self._attach_link("to_uplink", interface, ifindex, attach.EGRESS)

    def accelerate(self, uplinks: Mapping[str, int], how: Acceleration) -> None:
        """Has packets that only pass through these (names and ifindexes) meet the fast path first, or
        (DISABLED) no more."""
        for interface, ifindex in uplinks.items():
            self._fast_path.want(interface, ifindex, how)
        if self._succession is None:
            self._fast_path.renew(self._set.standing)

    def attach_overlay(self, interface: str, ifindex: int) -> None:
        self._attach_link("from_overlay", interface, ifindex, attach.INGRESS)
        self._attach_link("to_overlay", interface, ifindex, attach.EGRESS)

    def detach(self, interface: str) -> None:
        """Takes our programs off; the interface may be gone already."""
        for point in (attach.INGRESS, attach.EGRESS):
            pin = self._pin(interface, point)
            self._places = {key: each for key, each in self._places.items() if each.pin != pin}
            self._host_filter.release(pin)
            if pin.exists():
                attach.detach(0, point, pin)
        self._fast_path.release(interface)

    def guard_host(self, settings: HostSettings) -> None:
        """Says which policies for the node itself are in force. `LoadError`, `BpfError`: refused."""
        self._host_filter.enforce(settings, self._set.standing, list(self._places.values()))

    def attach_sockets(self, group: Path, points: Mapping[str, AttachType] = sockets.POINTS) -> None:
        """To all sockets of the processes in a control group (cgroup v2) and below it, these programs.

        While tables are succeeded, the predecessors' programs stay: a call is translated at one moment, by
        either, from tables that say the same; it needs no turn. What they write meanwhile and the new tables
        lack is an affinity, or the way back of a datagram's answer, of these two seconds.
        """
        self._group, self._at_sockets = group, points
        if self._succession is None:
            self._put_at_sockets()

    def detach_sockets(self) -> None:
        self._group = None
        for name in sockets.POINTS:
            links.detach(self._socket_pin(name))

    def _put_at_sockets(self) -> None:
        if self._group is None:
            return
        for name, point in self._at_sockets.items():
            sockets.attach(self.program(name), self._group, point, self._socket_pin(name))
        for name in sockets.POINTS.keys() - self._at_sockets:
            links.detach(self._socket_pin(name))

    def _socket_pin(self, program: str) -> Path:
        return sockets.pin_of(self._root / "links", program)

    def _attach_link(self, program: str, interface: str, ifindex: int, point: AttachType) -> None:
        self._attach(Place(program, ifindex, point, self._pin(interface, point)))

    def _attach(self, place: Place) -> None:
        if self._succession is None:
            self._put(place)
        else:
            self._put_ahead(self._succession, place)
        self._places[place.ifindex, place.point] = place
        self._host_filter.put(place)

    def _put_ahead(self, succession: Succession, place: Place) -> None:
        try:
            succession.place(place)
        except BpfError as error:
            log.error("%s; it follows when all is taken over", error)

    def _put(self, place: Place) -> None:
        program = self.program(place.program)
        if place.pin is None:
            clsact.attach(program, place.ifindex, place.point)
        else:
            attach.attach(program, place.ifindex, place.point, place.pin)

    def _pin(self, interface: str, point: AttachType) -> Path:
        return self._root / "links" / f"{interface}-{'ingress' if point == attach.INGRESS else 'egress'}"

    # ---- audit ---------------------------------------------------------------------------------

    def audit(self) -> Iterator[None]:
        """Looks at everything once and puts it right, in steps of less than a millisecond; `repairs` counts.

        It begins to make sense when the tables of the control plane are what they should be. Places are
        those of the caller's network namespace.
        """
        for name in _WATCHED:
            for mended in getattr(self, name).audit():
                self._note(name, mended)
                yield
        for mended in self.maglev.audit():
            self._note("maglev", mended)
            yield
        for place in list(self._places.values()):
            self._note("programs", self._mend_place(place))
            yield
        for name in self._at_sockets:
            self._note("programs", self._mend_at_sockets(name))
            yield
        self._note("programs", self._fast_path.mend())
        self._note("programs", self._host_filter.mend(list(self._places.values())))
        yield
        self._note("pins", self._mend_pins())

    def _note(self, what: str, mended: int) -> None:
        if mended:
            self.repairs[what] += mended
            log.warning("%s: %d were not as this agent left them; put right", what, mended)
            self.raise_all()  # who knows what was decided meanwhile

    def _mend_place(self, place: Place) -> int:
        if place not in self._places.values():
            return 0
        try:
            if attach.holder(place.ifindex, place.point, place.pin) == self._id(place.program):
                return 0
            self._put(place)
            attach.detach_ahead(place.ifindex, place.point, place.pin)
        except BpfError as error:
            if error.errno != errno.ENODEV:  # the interface is going
                log.error("%s", error)
            return 0
        return 1

    def _mend_at_sockets(self, program: str) -> int:
        group, point, pin = self._group, sockets.POINTS[program], self._socket_pin(program)
        if group is None or sockets.attached(group, point, pin) == self._id(program):
            return 0
        try:
            sockets.attach(self.program(program), group, point, pin)
        except OSError as error:  # perhaps the group is gone
            log.error("%s", error)
            return 0
        return 1

    def _id(self, program: str) -> int:
        assert self._programs is not None
        return self._programs.id(program)

    def _mend_pins(self) -> int:
        lost = misplaced(self._set.standing, self._root / "maps")
        pin_all(self._set.standing, self._root / "maps", lost)
        return len(lost)

    # ---- what went wrong ------------------------------------------------------------------------

    def out_of_ports(self) -> dict[str, int]:
        """Connections that could not be masqueraded for want of a port, by destination, such as
        ``203.0.113.10:443/TCP``; of the last thousand destinations."""
        keys, counts = self.exhausted.read_all()
        found = {}
        for key, count in zip(keys, counts, strict=True):
            address, protocol = unpacked(bytes(key["address"])), int(key["protocol"])
            host = f"[{address}]" if address.version == 6 else str(address)
            name = _PROTOCOLS.get(protocol, str(protocol))
            found[f"{host}:{int(key['port'])}/{name}"] = int(count["packets"])
        return found

    # ---- epochs --------------------------------------------------------------------------------

    def raise_subjects(self, identities: Iterable[int]) -> None:
        """Has the flows of these subjects decided anew on their next packet."""
        self._epochs.raise_subjects(identities)

    def raise_addresses(self, addresses: Iterable[bytes]) -> None:
        """The same for flows with these 16-byte addresses."""
        self._epochs.raise_addresses(addresses)

    def raise_all(self) -> None:
        self._epochs.raise_all()

    def close(self) -> None:
        """Lets go; what is pinned stays at work."""
        self._fast_path.close()
        self._host_filter.close()
        for name in (*_TABLES, "maglev"):
            getattr(self, name).close()
        if self._succession is not None:
            self._succession.close()
        if self._programs is not None:
            self._programs.close()
        self._set.close()
