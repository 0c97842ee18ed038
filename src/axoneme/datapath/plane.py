"""The datapath of one node: its programs, its tables, and where they are attached.

All of it is pinned under one bpffs directory, so it goes on without the process that set it up. The next
process calls `Datapath.load` again: tables that are there are shared with what they hold, programs are
verified anew and take the places of the old ones link by link, without a gap.

    <bpffs>/maps/<name>                 tables
    <bpffs>/links/<interface>-<point>   attachments to uplinks and the overlay (pods: filters on their link)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath import attach, bpffs, clsact
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import MappedArray, Table
from axoneme.datapath.schema import OBJECTS, Schema
from axoneme.datapath.uapi import AttachType

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: The programs of each object, by their C names.
PROGRAMS: Final = {
    "endpoint": ("from_pod", "to_pod"),
    "uplink": ("from_uplink",),
    "overlay": ("from_overlay", "to_overlay"),
}


@dataclass(frozen=True, slots=True)
class Constants:
    """What the programs are told when they are loaded: ``config.h``. Ports are in host byte order."""

    overlay_ifindex: int = 0
    overlay_port: int = 8472
    underlay_ipv6: int = 0
    world_ipv4: int = 2
    world_ipv6: int = 2
    masquerade: int = 1
    nat_port_first: int = 1024
    nat_port_last: int = 32767
    flow_quota: int = 32768
    answer_denied: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many entries a table holds at most; names as in ``maps.h``. Absent: as compiled."""

    entries: Mapping[str, int] = field(default_factory=dict)


def packed(address: Address) -> bytes:
    """16 bytes as the tables hold them: IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2)."""
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def prefix_bits(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    return network.prefixlen + (96 if network.version == 4 else 0)


class Datapath:
    """Programs loaded, tables open. Not thread-safe."""

    def __init__(self, root: Path, objects: Mapping[str, Object]) -> None:
        self._root = root
        self._objects = objects
        first = next(iter(objects.values()))
        self.schema = Schema((name, item.btf) for name, item in objects.items())
        self.endpoints = Table.of(first, "endpoints")
        self.addresses = Table.of(first, "addresses")
        self.policies = Table.of(first, "policies")
        self.uplinks = Table.of(first, "uplinks")
        self.flows = Table.of(first, "flows")
        self.half_open = Table.of(first, "half_open")
        self.translations = Table.of(first, "translations")
        self.half_open_translations = Table.of(first, "half_open_translations")
        self.exhausted = Table.of(first, "exhausted")
        self.drops = Table.of(first, "drops")
        self._epochs = MappedArray.of(first, "epochs").array[0]["slot"]
        epochs = self.schema.enum("epoch_range")
        self._subjects, self._address_slots = epochs["EPOCH_SUBJECTS"], epochs["EPOCH_ADDRESSES"]

    @classmethod
    def load(cls, root: Path, constants: Constants = Constants(), sizes: Sizes = Sizes()) -> Self:
        """Loads every program and opens every table, sharing what is pinned under ``root``.

        Raises `axoneme.datapath.sharing.PinMismatch` where a pinned table is of another make, and
        `axoneme.datapath.libbpf.LoadError` when the kernel refuses a program.
        """
        bpffs.mount(root)
        maps = root / "maps"
        maps.mkdir(mode=0o700, exist_ok=True)
        (root / "links").mkdir(mode=0o700, exist_ok=True)
        objects: dict[str, Object] = {}
        for name in PROGRAMS:
            item = Object.open(OBJECTS / f"{name}.o")
            for table in item.map_names:
                if table in sizes.entries:
                    item.set_max_entries(table, sizes.entries[table])
                item.share(table, maps / table)
            item.set_constants(**asdict(constants))
            item.load()
            objects[name] = item
        return cls(root, objects)

    def program(self, name: str) -> int:
        """File descriptor of a program by its C name."""
        for item, programs in PROGRAMS.items():
            if name in programs:
                return self._objects[item].program_fd(name)
        raise KeyError(name)

    # ---- places --------------------------------------------------------------------------------

    def attach_endpoint(self, ifindex: int) -> None:
        """To the host side of a pod's link, or in place of what is there.

        By filters also where there are tcx links: to create a link the kernel waits for a grace period,
        10 to 20 ms each, a filter takes 0.1 ms; and the filter goes with the interface.
        """
        clsact.attach(self.program("to_pod"), ifindex, attach.EGRESS)
        clsact.attach(self.program("from_pod"), ifindex, attach.INGRESS)

    def endpoint_attached(self, ifindex: int) -> bool:
        """Whether both of a pod's programs are in their places."""
        return all(clsact.attached(ifindex, point) for point in (attach.EGRESS, attach.INGRESS))

    def attach_uplink(self, interface: str, ifindex: int) -> None:
        self._attach("from_uplink", interface, ifindex, attach.INGRESS)

    def attach_overlay(self, interface: str, ifindex: int) -> None:
        self._attach("from_overlay", interface, ifindex, attach.INGRESS)
        self._attach("to_overlay", interface, ifindex, attach.EGRESS)

    def detach(self, interface: str) -> None:
        """Takes our programs off; the interface may be gone already."""
        for point in (attach.INGRESS, attach.EGRESS):
            pin = self._pin(interface, point)
            if pin.exists():
                attach.detach(0, point, pin)

    def _attach(self, program: str, interface: str, ifindex: int, point: AttachType) -> None:
        attach.attach(self.program(program), ifindex, point, self._pin(interface, point))

    def _pin(self, interface: str, point: AttachType) -> Path:
        return self._root / "links" / f"{interface}-{'ingress' if point == attach.INGRESS else 'egress'}"

    # ---- epochs --------------------------------------------------------------------------------

    def raise_subjects(self, identities: Iterable[int]) -> None:
        """Has the flows of these subjects decided anew on their next packet."""
        slots = np.unique(np.fromiter((i % self._subjects for i in identities), np.int64))
        self._epochs[slots] += 1

    def raise_addresses(self, addresses: Iterable[bytes]) -> None:
        """The same for flows with these 16-byte addresses."""
        packed_addresses = list(addresses)
        if packed_addresses:
            words = np.frombuffer(b"".join(packed_addresses), "<u4").reshape(-1, 4)
            self._epochs[np.unique(self._slots(words))] += 1

    def raise_all(self) -> None:
        self._epochs += 1

    def _slots(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
        """``address_slot`` of flow.h."""
        folded = words[:, 0] ^ words[:, 1] ^ words[:, 2] ^ words[:, 3]
        mixed = (folded.astype(np.uint64) * 0x9E3779B1) & 0xFFFFFFFF
        return self._subjects + (mixed >> np.uint64(16)).astype(np.int64) % self._address_slots

    def close(self) -> None:
        """Lets go; what is pinned stays at work."""
        for item in self._objects.values():
            item.close()
