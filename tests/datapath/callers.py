"""A node for programs that call services: what is at a control group's sockets, and tables written by hand.

This process is in the group, and this thread in a network namespace of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
from bench_node import private_network

from axoneme.datapath import bpffs
from axoneme.datapath.maps import Table
from axoneme.datapath.plane import Constants, Datapath, packed
from axoneme.net import netns
from axoneme.sandbox import cgroups
from oracle.packets import Address

#: An address and a port, as `socket` has them and as people write them.
Place = tuple[Address, int]
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
RANDOM, MAGLEV, WEIGHTED = range(3)

_TABLES = {
    "frontends": ("frontend_key", "frontend"),
    "services": ("u4", "service"),
    "slots": ("slot_key", "u4"),
    "backends": ("u4", "backend"),
    "served": ("served_key", "served"),
    "affinities": ("affinity_key", "affinity"),
    "datagrams": ("datagram_key", "call"),
}


def place(text: str, port: int) -> Place:
    return ip_address(text), port


class Services:
    """The tables of services of a datapath, and of its node's addresses."""

    def __init__(self, root: Path, plane: Datapath) -> None:
        self.root, self.plane = root, plane
        schema = plane.schema
        self._tables = {
            name: Table.pinned(
                root / "maps" / name, *(np.dtype(t) if t == "u4" else schema.struct(t) for t in types)
            )
            for name, types in _TABLES.items()
        }

    def __getitem__(self, name: str) -> Table:
        return self._tables[name]

    def serve(
        self,
        number: int,
        frontends: Sequence[Place],
        backends: dict[int, Place],
        protocol: int = TCP,
        affinity: int = 0,
        algorithm: int = RANDOM,
    ) -> None:
        """A service, by its number; backends by theirs."""
        for key, (address, port) in backends.items():
            value = self._record("backends", address, port)
            value["protocol"] = protocol
            self["backends"].put(key, value)
        for slot, key in enumerate(backends):
            self["slots"].put((number, slot), key)
        self["services"].put(number, (len(backends), affinity, algorithm))
        for address, port in frontends:
            key_record = np.zeros((), self["frontends"].key)
            key_record["address"], key_record["port"] = np.frombuffer(packed(address), "u1"), port
            key_record["protocol"] = protocol
            self["frontends"].put(key_record, (number, number, 0))

    def lose(self, number: int, backend: int) -> None:
        """A service's backend is gone; its only one."""
        self["services"].put(number, (0, 0, RANDOM))
        self["slots"].discard((number, 0))
        self["backends"].discard(backend)

    def own(self, address: Address) -> None:
        """An address of the node."""
        key = np.zeros((), self.plane.addresses.key)
        key["prefix_length"], key["address"] = 128, np.frombuffer(packed(address), "u1")
        value = np.zeros((), self.plane.addresses.value)
        value["identity"], value["flags"] = 1, 1
        self.plane.addresses.put(key, value)

    def served(self, number: int) -> dict[int, int]:
        """How often each backend was chosen for a service."""
        keys, values = self["served"].read_all()
        return {
            int(key["backend"]): int(value["connections"])
            for key, value in zip(keys, values, strict=True)
            if key["service"] == number
        }

    def reset(self) -> None:
        for table in self._tables.values():
            table.clear()

    def _record(self, table: str, address: Address, port: int) -> Any:
        record = np.zeros((), self[table].value)
        record["address"], record["port"] = np.frombuffer(packed(address), "u1"), port
        return record

    def close(self) -> None:
        for table in self._tables.values():
            table.close()


class Callers(Services):
    """Who calls are this process's own sockets."""

    def __init__(self, root: Path, group: Path, constants: Constants) -> None:
        super().__init__(root, Datapath.load(root, constants))
        self.group = group
        self.plane.attach_sockets(group)

    def reset(self) -> None:
        super().reset()
        self.plane.addresses.clear()

    def close(self) -> None:
        super().close()
        self.plane.close()


@contextmanager
def own_group(name: str) -> Iterator[Path]:
    """This process in a control group of its own, until the end."""
    hierarchy = cgroups.hierarchy()
    (home,) = (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
    group = cgroups.make(hierarchy / "axoneme" / f"test-{name}-{os.getpid()}")
    cgroups.join(group, os.getpid())
    try:
        yield group
    finally:
        cgroups.join(hierarchy / home.strip("/"), os.getpid())
        cgroups.remove(group)


@contextmanager
def callers(root: Path, *addresses: str) -> Iterator[Callers]:
    """`addresses` are there to be listened at."""
    with private_network(), own_group("sockets") as group:
        commands = ["link set lo up", *(f"addr add {address} dev lo" for address in addresses)]
        subprocess.run(["ip", "-batch", "-"], text=True, check=True, input="\n".join(commands))
        made = Callers(root, group, Constants(node_namespace=netns.cookie()))
        try:
            yield made
        finally:
            made.close()
            bpffs.unmount(root)
