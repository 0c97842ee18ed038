"""Announces service addresses on this node's links, while this node holds their leases.

    policies, services, endpoints, leases ─> candidacies ─> Tenure (which leases) ─> table `announced`
                                                                                 └─> frames to neighbours

Each entry of the table ends when the lease does, if nobody renews it: an agent that was killed answers for
nothing that another node has by then.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import numpy as np

from axoneme.agent.config import AnnouncementConfig
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.plane import Address, Datapath, packed, unpacked
from axoneme.model.announcementpolicy import KIND as POLICY
from axoneme.model.announcementpolicy import AnnouncementPolicy, parse_announcement_policy
from axoneme.model.endpointslices import KIND as SLICE
from axoneme.model.endpointslices import parse_endpoint_slice
from axoneme.model.exposure import ExposedService, parse_exposure
from axoneme.model.labels import K8S, Label, Labels
from axoneme.model.state import NODES
from axoneme.net.announcing import Device, Groups, Speaker, announcement, devices
from axoneme.services.announcements import Announcement, Key, candidacies, hesitation
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Change, Store, Unavailable
from axoneme.sources.tenure import Tenure, boot_time

log = logging.getLogger(__name__)

V = TypeVar("V")

POLICIES, SERVICES, SLICES = f"objects/{POLICY}/", "objects/Service/", f"objects/{SLICE}/"
NODE_OBJECTS = "objects/Node/_/"
LEASES = "objects/Lease/kube-system/"
_LEASE_NAME = "cilium-l2announce-"
#: What is followed; whoever follows one of them anyway calls `Announcer.hear`.
PREFIXES = (POLICIES, SERVICES, SLICES, NODE_OBJECTS, NODES, LEASES + _LEASE_NAME)

#: How often neighbours are told, and after how many seconds each time: RFC 4861, section 10.
_TIMES, _INTERVAL = 3, 1.0
#: Seconds for which news are gathered, and after which a refusal of the kernel's is tried again.
_GATHER, _RETRY = 0.02, 2.0
#: What a document of a service that has addresses for the outside holds.
_MARKS = (b'"LoadBalancer"', b'"externalIPs"')


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str = ""


class _Lease(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()


class Announcer:
    """``uplinks``: the names of the devices on which it may be done; ``versions`` of IP. ``problems`` gets
    what is wrong with a policy, by its key."""

    def __init__(
        self,
        node: str,
        store: Store,
        plane: Datapath,
        config: AnnouncementConfig,
        uplinks: Sequence[str],
        versions: Iterable[int],
        problems: dict[str, str],
    ) -> None:
        self._node = node
        self._store = store
        self._plane = plane
        self._config = config
        self._uplinks = uplinks
        self._versions = set(versions)
        self._problems = problems
        self._policies: dict[str, AnnouncementPolicy] = {}
        self._services: dict[str, ExposedService] = {}
        #: Slices that have an endpoint here, and of which service they are.
        self._here: dict[str, Key] = {}
        self._leases: dict[str, tuple[str, int]] = {}
        self._nodes: set[str] = set()
        self._labels = Labels()
        self._called = asyncio.Event()
        self._tenure = Tenure(store, config, self._called.set)
        self._free: dict[str, float] = {}
        self._told: dict[tuple[Address, int], bytes] = {}

    # ---- what is heard -------------------------------------------------------------------------

    def hear(self, changes: Iterable[Change]) -> None:
        """News of what stands under `PREFIXES`, and of anything else, which is passed over."""
        for change in changes:
            if not change.key.startswith(PREFIXES):
                continue
            try:
                if self._hear(change):
                    self._called.set()
            except (ValueError, RecursionError, msgspec.MsgspecError) as error:
                log.warning("%s: %s; what it said before stays in force", change.key, error)
                if change.key.startswith(POLICIES):  # of the others, others tell
                    self._problems[change.key] = str(error)
            else:
                if change.key.startswith(POLICIES):
                    self._problems.pop(change.key, None)

    def _hear(self, change: Change) -> bool:
        """Whether it may alter what this node announces: services and slices change all the time."""
        key, value = change.key, change.value
        if key.startswith(POLICIES):
            return _put(self._policies, key, parse_announcement_policy(_object(value)) if value else None)
        if key.startswith(SERVICES):
            matters = value is not None and any(mark in value for mark in _MARKS)
            return _put(self._services, key, parse_exposure(_object(value)) if value and matters else None)
        if key.startswith(SLICES):
            return _put(self._here, key, self._served_here(value))
        if key.startswith(NODE_OBJECTS):
            before = self._labels
            if key == NODE_OBJECTS + self._node:
                self._labels = _labels_of_node(value)
            return self._labels != before
        if key.startswith(NODES):
            (self._nodes.discard if value is None else self._nodes.add)(key.removeprefix(NODES))
            return False  # it matters when there is a lease to take
        return self._hear_lease(change)

    def _served_here(self, value: bytes | None) -> Key | None:
        """The service of a slice that has an endpoint on this node."""
        if value is None or self._node.encode() not in value:
            return None
        found = parse_endpoint_slice(_object(value))
        here = any(each.node == self._node and (each.ready or each.serving) for each in found.endpoints)
        return (found.metadata.namespace, found.service) if here else None

    def _hear_lease(self, change: Change) -> bool:
        if change.value is None:
            self._leases.pop(change.key, None)
        else:
            holder = msgspec.json.decode(change.value, type=_Lease).spec.holder_identity
            self._leases[change.key] = holder, change.revision
        held = self._tenure.held.get(change.key)
        if held is not None and held < change.revision:
            self._tenure.gone(change.key)
        return True

    # ---- what is done about it -----------------------------------------------------------------

    async def run(self, heard: Iterable[str] = ()) -> None:
        """Until cancelled. ``heard``: prefixes of which others tell, and have told all that there is."""
        speaker, groups = Speaker(), Groups()
        self._adopt()
        own = [prefix for prefix in PREFIXES if prefix not in set(heard)]
        synced = [asyncio.Event() for _ in own]
        try:
            async with asyncio.TaskGroup() as tasks:
                for prefix, event in zip(own, synced, strict=True):
                    tasks.create_task(self._follow(prefix, event))
                for event in synced:
                    await event.wait()
                tenure = tasks.create_task(self._tenure.run())
                self._called.set()
                try:
                    while True:
                        await self._called.wait()
                        await asyncio.sleep(_GATHER)
                        self._called.clear()
                        await self._settle(tasks, speaker, groups)
                finally:
                    if self._config.release_on_stop:
                        self._write({})  # before the leases go
                    else:
                        self._tenure.keep()
                    tenure.cancel()
        finally:
            speaker.close()
            groups.close()

    async def _follow(self, prefix: str, synced: asyncio.Event) -> None:
        async with aclosing(follow(self._store, prefix)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    synced.set()
                else:
                    self.hear(changes)

    async def _settle(self, tasks: asyncio.TaskGroup, speaker: Speaker, groups: Groups) -> None:
        there = devices(self._uplinks)
        wanted = {_lease_key(key): (key, what) for key, what in self._candidacies(there).items()}
        leaving = self._tenure.held.keys() - wanted.keys()
        self._show(wanted, leaving, there, tasks, speaker, groups)
        for key in leaving:
            await self._tenure.release(key)
        self._free = {key: since for key, since in self._free.items() if key in wanted}
        taken = [await self._stand(key, service) for key, (service, _) in wanted.items()]
        if any(taken):
            self._show(wanted, (), there, tasks, speaker, groups)

    def _candidacies(self, there: Mapping[str, Device]) -> dict[Key, frozenset[Announcement]]:
        if not self._policies:
            return {}
        here = set(self._here.values())
        return candidacies(
            self._services.values(), list(self._policies.values()), self._labels, there, here.__contains__
        )

    async def _stand(self, key: str, service: Key) -> bool:
        """Takes the lease if it is free and it is this node's turn; whether it has it now and had it not."""
        if key in self._tenure.held:
            return False
        holder, revision = self._leases.get(key, ("", 0))
        if revision and holder != self._node:
            self._free.pop(key, None)
            return False
        now = boot_time()
        wait = 0.0 if revision else hesitation(service, self._node, self._nodes)
        if (left := self._free.setdefault(key, now) + wait - now) > 0:
            self._later(left)
            return False
        try:
            return await self._tenure.take(key, self._lease_object(key), revision)
        except Unavailable as error:
            log.warning("%s: %s; trying again", key, error)
            self._later(self._config.retry)
            return False

    def _later(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._called.set)

    def _lease_object(self, key: str) -> bytes:
        now = datetime.now(UTC)
        # Complete, so that nobody who completes objects writes it anew: it would be off its lease.
        return msgspec.json.encode(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": key.removeprefix(LEASES),
                    "namespace": "kube-system",
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                "spec": {
                    "holderIdentity": self._node,
                    "leaseDurationSeconds": max(1, round(self._config.lease_duration)),
                    "acquireTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                },
            }
        )

    # ---- what the kernel answers, and neighbours are told --------------------------------------

    def _adopt(self) -> None:
        """What an earlier agent announced and nobody has taken over yet goes on."""
        keys, values = self._plane.announced.adopt()
        now = int(boot_time() * 1e9)
        for key, value in zip(keys, values, strict=True):
            if int(value["until"]) > now:
                self._told[unpacked(bytes(key["address"])), int(key["ifindex"])] = bytes(value["mac"])

    def _show(
        self,
        wanted: Mapping[str, tuple[Key, frozenset[Announcement]]],
        leaving: Iterable[str],
        there: Mapping[str, Device],
        tasks: asyncio.TaskGroup,
        speaker: Speaker,
        groups: Groups,
    ) -> None:
        held = self._tenure.held.keys() - set(leaving)
        shown = {each for key in held & wanted.keys() for each in wanted[key][1]}
        shown = {each for each in shown if each.address.version in self._versions}
        entries = {(each.address, there[each.device].number): there[each.device].mac for each in shown}
        new = [each for each in shown if self._told.get(_place(each, there)) != there[each.device].mac]
        for problem in groups.join(entries):
            log.warning("who asks for an address by multicast may not be heard: %s", problem)
        self._write(entries)
        if new:
            tasks.create_task(self._announce(new, there, speaker))

    def _write(self, entries: Mapping[tuple[Address, int], bytes]) -> None:
        table = self._plane.announced
        values = np.zeros(len(entries), table.value)
        values["until"] = int(self._tenure.until * 1e9)
        values["mac"] = np.frombuffer(b"".join(entries.values()), "u1").reshape(-1, 6)
        gone = self._told.keys() - entries.keys()
        try:
            if entries:
                table.write(_keys(table.key, entries), values)
            if gone:
                table.delete(_keys(table.key, gone))
        except BpfError as error:
            log.error("announced addresses: %s; trying again", error)
            self._later(_RETRY)
        else:
            self._told = dict(entries)

    async def _announce(
        self, new: Iterable[Announcement], there: Mapping[str, Device], speaker: Speaker
    ) -> None:
        """Tells neighbours of addresses that this node did not have before."""
        for each in new:
            log.info("%s is announced on %s", each.address, each.device)
        for _ in range(_TIMES):
            for each in new:
                mac = there[each.device].mac
                if self._told.get(_place(each, there)) == mac:
                    try:
                        speaker.send(each.device, announcement(each.address, mac))
                    except OSError as error:
                        log.warning("%s is not announced on %s: %s", each.address, each.device, error)
            await asyncio.sleep(_INTERVAL)


def _put(known: dict[str, V], key: str, value: V | None) -> bool:
    """Whether it is other than before."""
    before = known.pop(key, None)
    if value is not None:
        known[key] = value
    return value != before


def _object(value: bytes) -> dict[str, Any]:
    return msgspec.json.decode(value, type=dict[str, Any])


def _labels_of_node(value: bytes | None) -> Labels:
    labels = _object(value)["metadata"].get("labels") if value is not None else None
    return Labels(Label(K8S, key, text) for key, text in (labels or {}).items())


def _lease_key(service: Key) -> str:
    """A dot between the two: with a hyphen, two services could have one."""
    return f"{LEASES}{_LEASE_NAME}{'.'.join(service)}"


def _place(each: Announcement, there: Mapping[str, Device]) -> tuple[Address, int]:
    return each.address, there[each.device].number


def _keys(dtype: Any, places: Collection[tuple[Address, int]]) -> Any:
    keys = np.zeros(len(places), dtype)
    addresses = b"".join(packed(address) for address, _ in places)
    keys["address"] = np.frombuffer(addresses, "u1").reshape(-1, 16)
    keys["ifindex"] = [index for _, index in places]
    return keys
