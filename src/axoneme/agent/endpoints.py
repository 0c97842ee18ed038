"""Pods come to this node and go: addresses, links, programs, in an order that fails closed.

A pod gets its link only when its identity's policy is in the kernel, and its link goes up only when the
programs are attached. What is known of an endpoint is written to the node's own disk before anybody is
told of it, so a restarted agent finds every pod again, the store reachable or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from axoneme.agent import files
from axoneme.datapath.plane import Datapath, packed
from axoneme.identity.numbers import Reserved
from axoneme.model.state import EndpointState
from axoneme.net import pods

log = logging.getLogger(__name__)


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as this node remembers it: what others see of it, and how it is plugged in."""

    container_id: str
    interface: str
    namespace_path: str
    mac: str
    mtu: int
    route_mtu: int
    ifindex: int
    state: EndpointState
    network: str = ""  # a runtime's name for what it attached to


class EndpointTable:
    """The endpoints of this node: records on disk, links, and entries in the kernel."""

    def __init__(self, folder: Path, plane: Datapath) -> None:
        self._folder = folder
        self._plane = plane
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        #: By (container, interface).
        self.records: dict[tuple[str, str], EndpointRecord] = {}
        #: By file: why a record could not be read when the agent started. Its pod is cut off by `sweep`.
        self.unreadable: dict[str, str] = {}
        self._last_id = 0

    def of_pods(self) -> list[EndpointRecord]:
        """All but the node's health endpoint, which no runtime asked for and no object describes."""
        return [each for each in self.records.values() if each.state.identity != Reserved.HEALTH]

    def identities(self) -> set[int]:
        """Those of its pods."""
        return {each.state.identity for each in self.of_pods()}

    def next_id(self, taken: Iterable[int] = ()) -> int:
        """A number from 1 to 65535 that no record has, and that is not ``taken``: the next one, all the way
        round, for connections of the pod that had a number may outlive it."""
        used = {record.state.id for record in self.records.values()}.union(taken)
        last = self._last_id or max(used, default=0)
        round_trip = (1 + (last + step) % 0xFFFF for step in range(0xFFFF))
        self._last_id = next(number for number in round_trip if number not in used)
        return self._last_id

    # ---- records -------------------------------------------------------------------------------

    def restore(self) -> tuple[list[EndpointRecord], list[EndpointRecord]]:
        """Reads the records: those whose link is there, and those whose link has gone."""
        alive, dead = [], []
        for path in sorted(self._folder.glob("*.json")):
            record = self._read(path)
            if record is None:
                continue
            here = pods.existing([record.state.host_interface])
            if record.state.host_interface in here:
                record = msgspec.structs.replace(record, ifindex=here[record.state.host_interface])
                self.records[record.container_id, record.interface] = record
                alive.append(record)
            else:
                dead.append(record)
        return alive, dead

    def _read(self, path: Path) -> EndpointRecord | None:
        """None for what is no record; it is put aside to be looked at, and nobody takes it for one again."""
        try:
            record = msgspec.json.decode(path.read_bytes(), type=EndpointRecord)
            self.link(record)
            bytes.fromhex(record.mac.replace(":", ""))
        except (msgspec.MsgspecError, ValueError) as error:
            aside = path.with_suffix(".unreadable")
            path.rename(aside)
            self.unreadable[f"endpoints/{path.name}"] = problem = (
                f"{error}; its pod is cut off: remove it and make it anew (the record is kept as {aside})"
            )
            log.error("%s: %s", path, problem)
            return None
        return record

    def remember(self, record: EndpointRecord) -> None:
        """OSError when the disk does not take it; the former record stands then."""
        files.replace(self._path(record), msgspec.json.encode(record))
        self.records[record.container_id, record.interface] = record

    def forget(self, record: EndpointRecord) -> None:
        self._path(record).unlink(missing_ok=True)
        self.records.pop((record.container_id, record.interface), None)

    def _path(self, record: EndpointRecord) -> Path:
        return self._folder / f"{record.state.host_interface}.json"

    # ---- kernel --------------------------------------------------------------------------------

    def link(self, record: EndpointRecord, namespace: Path | None = None) -> pods.PodLink:
        """``namespace`` is a path by which this process sees it, if not the record's."""
        return pods.PodLink(
            namespace or Path(record.namespace_path),
            record.interface,
            record.state.host_interface,
            tuple(ip_address(text) for text in record.state.addresses),
            record.mac,
            record.mtu,
            record.route_mtu,
        )

    async def plug(self, record: EndpointRecord, namespace: Path | None = None) -> EndpointRecord:
        """Makes the link, attaches the programs, lets traffic through; undone when a step fails.

        What waits for the kernel's locks waits in a thread; tables are written in this one.
        """
        link = self.link(record, namespace)
        pods.remove(link.host_interface)
        try:
            ifindex = await asyncio.to_thread(pods.create, link)
            record = msgspec.structs.replace(record, ifindex=ifindex)
            self.write(record)
            self._plane.attach_endpoint(record.ifindex)
            await asyncio.to_thread(pods.connect, link)
        except BaseException:
            self.unplug(record)
            raise
        return record

    def unplug(self, record: EndpointRecord) -> None:
        """Takes the pod off the network; nothing of it needs to be there any more."""
        self.cut_off(record)
        pods.remove(record.state.host_interface)

    def cut_off(self, record: EndpointRecord) -> None:
        """Nothing reaches the pod, or leaves it, from now on; its link is still there."""
        self._plane.endpoints.delete(self._keys(record))
        self._plane.raise_addresses(_packed(record))
        self._plane.release_endpoint(record.ifindex)

    def write(self, record: EndpointRecord) -> None:
        """The kernel's entries for the pod's addresses, and a new decision for what used them before."""
        self._plane.endpoints.write(self._keys(record), self._values(record))
        self._plane.raise_addresses(_packed(record))

    def faults(self, record: EndpointRecord) -> list[str]:
        """How this node's side of the endpoint differs from its record: link, programs, tables' entries."""
        here = pods.existing([record.state.host_interface])
        if record.state.host_interface not in here:
            return [f"its link {record.state.host_interface} has gone"]
        if here[record.state.host_interface] != record.ifindex:
            return [f"its link {record.state.host_interface} is another one"]
        found = []
        if not self._plane.endpoint_attached(record.ifindex):
            found.append(f"its link {record.state.host_interface} has no programs")
        keys, values = self._plane.endpoints.read_all()
        known = {bytes(key["address"]): value for key, value in zip(keys, values, strict=True)}
        for text, address in zip(record.state.addresses, _packed(record), strict=True):
            value = known.get(address)
            if value is None:
                found.append(f"the datapath does not know {text}")
            elif (int(value["identity"]), int(value["ifindex"])) != (record.state.identity, record.ifindex):
                found.append(f"the datapath knows {text} as another's")
        if not self._path(record).exists():
            found.append("its record has gone from the disk")
        return found

    def mend(self, record: EndpointRecord) -> bool:
        """Makes anew all of this node's side but the link; False when that is what has gone."""
        if pods.existing([record.state.host_interface]) != {record.state.host_interface: record.ifindex}:
            return False
        self._plane.attach_endpoint(record.ifindex)
        self.write(record)
        pods.connect_outside(self.link(record))
        self.remember(record)
        return True

    async def look_after(self) -> list[str]:
        """Makes links and routes of pods anew that others have deleted; what those were.

        Where the pod's network namespace has gone as well, the pod is over: for its runtime to say.
        """
        found = []
        here = pods.existing([record.state.host_interface for record in self.records.values()])
        routed = pods.routed()
        for record in list(self.records.values()):
            host, name = record.state.host_interface, f"{record.state.namespace}/{record.state.pod}"
            if host not in here:
                if Path(record.namespace_path).exists():
                    self.remember(await self.plug(record))
                    found.append(f"the link {host} of {name}")
            elif missing := [a for a in record.state.addresses if (a, host) not in routed]:
                self.mend(record)
                found += [f"the route to {address} of {name}" for address in missing]
        return found

    def _keys(self, record: EndpointRecord) -> Any:
        keys = np.zeros(len(record.state.addresses), self._plane.endpoints.key)
        for row, address in enumerate(_packed(record)):
            keys[row]["address"] = np.frombuffer(address, "u1")
        return keys

    def _values(self, record: EndpointRecord) -> Any:
        values = np.zeros(len(record.state.addresses), self._plane.endpoints.value)
        values["ifindex"] = record.ifindex
        values["identity"] = record.state.identity
        values["id"] = record.state.id
        values["mac"] = np.frombuffer(bytes.fromhex(record.mac.replace(":", "")), "u1")
        return values

    def adopt(self) -> None:
        """Takes over the entries that an earlier agent left, and puts right those of the records."""
        keys, values = self._plane.endpoints.adopt()
        held = {bytes(key["address"]): value for key, value in zip(keys, values, strict=True)}
        for record in self.records.values():
            rows = zip(_packed(record), self._values(record), strict=True)
            if any(address not in held or held[address] != value for address, value in rows):
                self.write(record)

    def sweep(self, coming: Collection[EndpointRecord] = ()) -> None:
        """Removes entries and links of endpoints that no record names: left by an agent that was killed."""
        wanted = {a for record in (*self.records.values(), *coming) for a in _packed(record)}
        keys, _ = self._plane.endpoints.read_all()
        stale = [key for key in keys if bytes(key["address"]) not in wanted]
        if stale:
            self._plane.endpoints.delete(np.array(stale, self._plane.endpoints.key))
        names = {record.state.host_interface for record in (*self.records.values(), *coming)}
        for name in pods.host_interfaces():
            if name not in names:
                pods.remove(name)


def _packed(record: EndpointRecord) -> list[bytes]:
    return [packed(ip_address(text)) for text in record.state.addresses]
