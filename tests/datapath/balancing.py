"""Services in the kernel's tables, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoneme.datapath.maps import Table
from axoneme.datapath.plane import Datapath, packed, unpacked
from oracle.packets import Address

RANDOM, MAGLEV, WEIGHTED = 0, 1, 2
EXTERNAL, RANGES, DIRECT, WRAPPED = 1, 2, 4, 8
LEAVING = 1
ANY: Final = {4: ip_address("0.0.0.0"), 6: ip_address("::")}
_TABLES: Final = {
    "frontends": ("frontend_key", "frontend"),
    "services": ("u4", "service"),
    "slots": ("slot_key", "u4"),
    "backends": ("u4", "backend"),
    "source_ranges": ("source_range_key", "u4"),
    "affinities": ("affinity_key", "affinity"),
    "served": ("served_key", "served"),
    "hosted": ("u4", "u4"),
}


class Balancer:
    """The tables of services, open. ``close`` it."""

    def __init__(self, plane: Datapath, root: Path) -> None:
        """``root``: where its maps are pinned."""
        schema = plane.schema
        self._plane = plane

        def type_of(name: str) -> Any:
            return np.dtype(name) if name == "u4" else schema.struct(name)

        self.tables = {
            name: Table.pinned(root / "maps" / name, type_of(key), type_of(value))
            for name, (key, value) in _TABLES.items()
        }

    def clear(self) -> None:
        for name, table in self.tables.items():
            if name == "hosted":
                table.put(0, 0)
            else:
                table.clear()

    def frontend(
        self,
        address: Address,
        port: int,
        protocol: int,
        service: int,
        flags: int = EXTERNAL,
        outside: int = 0,
    ) -> None:
        """``service`` is for everybody, if ``outside`` names no other."""
        value = np.zeros((), self.tables["frontends"].value)
        value["service"], value["outside"], value["flags"] = service, outside or service, flags
        self.tables["frontends"].put(self._frontend(address, port, protocol), value)

    def remove_frontend(self, address: Address, port: int, protocol: int) -> None:
        self.tables["frontends"].discard(self._frontend(address, port, protocol))

    def marker(self, address: Address, flags: int = EXTERNAL) -> None:
        """The address is a service's."""
        self.frontend(address, 0, 0, 0, flags)

    def _frontend(self, address: Address, port: int, protocol: int) -> Any:
        key = np.zeros((), self.tables["frontends"].key)
        key["address"], key["port"], key["protocol"] = np.frombuffer(packed(address), "u1"), port, protocol
        return key

    def service(
        self, number: int, backends: Sequence[int], algorithm: int = RANDOM, affinity: int = 0
    ) -> None:
        """``backends``: by their numbers, in their slots; ``affinity`` in ticks."""
        key = np.zeros(len(backends), self.tables["slots"].key)
        key["service"], key["slot"] = number, np.arange(len(backends))
        if len(backends):
            self.tables["slots"].write(key, np.array(backends, "u4"))
        value = np.zeros((), self.tables["services"].value)
        value["backends"], value["affinity"], value["algorithm"] = len(backends), affinity, algorithm
        self.tables["services"].put(number, value)

    def backend(self, number: int, address: Address, port: int, protocol: int, flags: int = 0) -> None:
        value = np.zeros((), self.tables["backends"].value)
        value["address"], value["port"] = np.frombuffer(packed(address), "u1"), port
        value["protocol"], value["flags"] = protocol, flags
        self.tables["backends"].put(number, value)

    def remove_backend(self, number: int) -> None:
        """It is gone, and connections to it are looked at again."""
        value = self.tables["backends"].pop(number)
        assert value is not None
        self._plane.raise_addresses([bytes(value["address"])])

    def source_range(self, service: int, address: Address, length: int) -> None:
        key = np.zeros((), self.tables["source_ranges"].key)
        key["service"], key["address"] = service, np.frombuffer(packed(address), "u1")
        key["prefix_length"] = 32 + length + (0 if isinstance(address, IPv6Address) else 96)
        self.tables["source_ranges"].put(key, 1)

    def simple(
        self,
        address: Address,
        port: int,
        protocol: int,
        backends: Mapping[int, tuple[Address, int]],
        *,
        number: int = 1,
        flags: int = EXTERNAL,
        algorithm: int = RANDOM,
        affinity: int = 0,
    ) -> None:
        """A service with one frontend."""
        for each, (where, at) in backends.items():
            self.backend(each, where, at, protocol)
        self.service(number, list(backends), algorithm, affinity)
        self.frontend(address, port, protocol, number, flags)

    def served(self) -> dict[tuple[int, int], int]:
        """How often, by service and backend."""
        keys, values = self.tables["served"].read_all()
        return {
            (int(key["service"]), int(key["backend"])): int(value["connections"])
            for key, value in zip(keys, values, strict=True)
        }

    def flows(self) -> list[dict[str, Any]]:
        """Connections of services, as their ends know them."""
        found = []
        for table in (self._plane.flows, self._plane.half_open):
            for key, flow in zip(*table.read_all(), strict=True):
                ends = [(unpacked(bytes(key[end])), int(key[f"{end}_port"])) for end in ("low", "high")]
                if not int(flow["flags"]) & 1:
                    ends.reverse()
                found.append(
                    {
                        "client": ends[0],
                        "backend": ends[1],
                        "frontend": (unpacked(bytes(flow["frontend"])), int(flow["frontend_port"])),
                        "numbers": (int(flow["service"]), int(flow["backend"])),
                        "flags": int(flow["flags"]),
                        "protocol": int(key["protocol"]),
                    }
                )
        return found

    def close(self) -> None:
        for table in self.tables.values():
            table.close()
