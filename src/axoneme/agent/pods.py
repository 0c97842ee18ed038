"""Pods from the first request to the last packet: labels, identity, addresses, policy, link.

The order is the safety. A pod that comes gets its address, then its identity, then the identity's policy
in the kernel, then its link, and only when all of that stands is anybody told. A pod whose labels change
gets the policy of its new identity before it gets the identity. What fails half-way is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from axoneme.agent.asked import Asked
from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointRecord, EndpointTable
from axoneme.agent.podview import NamespaceView, PodView
from axoneme.datapath.bpf import BpfError
from axoneme.identity.labels import LabelFilter, pod_labels
from axoneme.ipam.pools import AddressPools
from axoneme.model.labels import Labels
from axoneme.model.state import ENDPOINTS, EndpointState, encode, endpoint_key
from axoneme.model.wishes import Wishes, wishes
from axoneme.net import pods
from axoneme.rpc import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE, RpcError
from axoneme.services.facts import LocalPod
from axoneme.sources.identities import Identities
from axoneme.sources.store import Store, StoreError, Unavailable

log = logging.getLogger(__name__)

V = TypeVar("V", PodView, NamespaceView)

PODS = "objects/Pod/"
NAMESPACES = "objects/Namespace/_/"


class Attach(msgspec.Struct, frozen=True):
    """The parameters of ``endpoint.attach``: ``netns`` is the file of the container's network namespace.

    With ``labels`` there need be no object for the pod: it is a container with these. ``network`` is
    whose it is for a runtime, ``netns_name`` what that calls the file, which it may see elsewhere.
    """

    container_id: str
    netns: str
    ifname: str
    namespace: str
    pod: str
    uid: str = ""
    labels: dict[str, str] | None = None
    network: str = ""
    netns_name: str = ""


class Detach(msgspec.Struct, frozen=True):
    container_id: str
    ifname: str


class AttachedAddress(msgspec.Struct, frozen=True):
    address: str
    prefix_length: int
    gateway: str


class Attached(msgspec.Struct, frozen=True):
    """The pod can send and receive, under its policy."""

    addresses: list[AttachedAddress]
    mac: str
    mtu: int
    host_interface: str
    identity: int
    endpoint_id: int


@dataclass(frozen=True, slots=True)
class Link:
    """What links of pods have in common: ``route_mtu`` is the largest packet to another node."""

    mtu: int
    route_mtu: int


class Balanced(Protocol):
    """Told of the pods to which the node's own services lead: host ports, local redirects."""

    def pod_here(self, pod: LocalPod) -> None: ...

    def pod_gone(self, namespace: str, name: str) -> None: ...


class Pods:
    """The pods of this node. All methods are for one event loop; `begin` comes first."""

    def __init__(
        self,
        node: str,
        cluster: str,
        store: Store,
        control: Control,
        endpoints: EndpointTable,
        identities: Identities,
        labels: LabelFilter,
        link: Link,
        services: Balanced | None = None,
        tell: Callable[[EndpointState, bool], None] = lambda _pod, _gone: None,
    ) -> None:
        """``tell``: is told of each pod that has been attached, or detached (True)."""
        self._node = node
        self._cluster = cluster
        self._store = store
        self._control = control
        self._endpoints = endpoints
        self._identities = identities
        self._pools: AddressPools
        self._filter = labels
        self._link = link
        self._services = services
        self._tell = tell
        self._busy: dict[str, asyncio.Lock] = {}
        self._confirmed = False
        self._ids: set[int] = set()
        #: Pods that are being plugged in, by link.
        self._coming: dict[str, EndpointRecord] = {}
        #: Links of pods that have gone, by name.
        self._removing: dict[str, asyncio.Task[None]] = {}
        #: As far as they were heard.
        self.namespaces: dict[str, NamespaceView] = {}
        self._asked = Asked(control)
        #: Whether a change of some pod was missed, because the shared state could not be asked.
        self.outdated = False
        #: Keys of the shared state that are to be deleted once it can be reached.
        self._unpublish: set[str] = set()
        #: Entered while a pod is attached, and while it gets another identity: for who wants to measure that.
        self.attaching: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self.becoming: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    # ---- a pod comes ---------------------------------------------------------------------------

    def capacity(self) -> dict[int, int]:
        """How many addresses the node can give out, by version."""
        return {version: pool.capacity for version, pool in self._pools.pools.items()}

    async def attach(self, wish: Attach) -> Attached:
        """RpcError: CONFLICT when it is there already, NOT_FOUND when nobody has told of the pod."""
        host = pods.host_interface(wish.container_id, wish.ifname)
        async with self._lock(host):
            if (wish.container_id, wish.ifname) in self._endpoints.records:
                raise RpcError(
                    CONFLICT, f"{wish.ifname} of container {wish.container_id} is attached; detach it first"
                )
            if not Path(wish.netns).exists():
                raise RpcError(INVALID, f"netns: {wish.netns} does not exist")
            if removal := self._removing.get(host):
                await asyncio.wait([removal])
            try:
                view = await self._pod(wish)
                with self.attaching():
                    made = await self._plug(wish, view, host)
                self._introduce(wish.namespace, wish.pod, [each.address for each in made.addresses], view)
                return made
            except OSError as error:
                reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            except Unavailable as error:
                reason = str(error)
            raise RpcError(UNAVAILABLE, f"{reason}; the pod was not attached, and nothing of it is left")

    async def _plug(self, wish: Attach, view: PodView, host: str) -> Attached:
        labels = await self._labels(wish.namespace, view)
        addresses = self._pools.allocate()
        number = self._next_id()
        record: EndpointRecord | None = None
        try:
            identity = await self._identities.acquire(labels, host)
            kind, workload = view.workload
            asked = self._wishes(wish.namespace, wish.pod, view)
            state = EndpointState(
                id=number,
                node=self._node,
                identity=identity,
                addresses=[str(address) for address in addresses],
                namespace=wish.namespace,
                pod=wish.pod,
                uid=wish.uid,
                workload_kind=kind,
                workload=workload,
                labels=labels.texts(),
                named_ports=view.named_ports,
                host_interface=host,
                audit=asked.audit,
                visibility=[str(watch) for watch in asked.watches],
            )
            record = EndpointRecord(
                container_id=wish.container_id,
                interface=wish.ifname,
                namespace_path=wish.netns_name or wish.netns,
                mac=pods.mac_of(wish.container_id, wish.ifname),
                mtu=self._link.mtu,
                route_mtu=self._link.route_mtu,
                ifindex=0,
                state=state,
                network=wish.network,
            )
            self._enter(record)
            self._coming[host] = record
            plugged = await self._endpoints.plug(record, Path(wish.netns))
            self._endpoints.remember(plugged)
            await self._store.put(self._key(state), encode(state))
            self._tell(state, False)
            return attached(plugged)
        except BaseException:
            if record is not None:
                self._endpoints.unplug(record)
                self._endpoints.forget(record)
                self._leave(record)
                await self._withdraw(record.state)
            self._pools.release(addresses)
            await self._let_go(labels, host)
            raise
        finally:
            self._coming.pop(host, None)
            self._ids.discard(number)

    # ---- a pod goes ----------------------------------------------------------------------------

    async def detach(self, wish: Detach) -> bool:
        """RpcError(NOT_FOUND) when there is none."""
        async with self._lock(pods.host_interface(wish.container_id, wish.ifname)):
            record = self._endpoints.records.get((wish.container_id, wish.ifname))
            if record is None:
                raise RpcError(NOT_FOUND, f"{wish.ifname} of container {wish.container_id} is not attached")
            await self._remove(record)
            return True

    async def _remove(self, record: EndpointRecord) -> None:
        """Returns when the pod is cut off; the kernel takes its time (some 30 ms) to remove a link."""
        host = record.state.host_interface
        self._endpoints.cut_off(record)
        self._endpoints.forget(record)
        if self._services and self.here(record.state.namespace, record.state.pod) is None:
            self._services.pod_gone(record.state.namespace, record.state.pod)
        self._leave(record)
        self._pools.release(self._endpoints.link(record).addresses)
        self._removing[host] = asyncio.create_task(self._remove_link(host))
        self._tell(record.state, True)
        await self._withdraw(record.state)
        await self._let_go(Labels.parse(record.state.labels), host)

    async def _remove_link(self, host: str) -> None:
        """An agent that is killed meanwhile leaves the link to the next one's `EndpointTable.sweep`."""
        try:
            await asyncio.to_thread(pods.remove, host)
        finally:
            del self._removing[host]

    # ---- a pod changes -------------------------------------------------------------------------

    async def namespace_changed(self, name: str, view: NamespaceView | None) -> None:
        """Its labels are in its pods' identities, its annotations may ask for something; None: it is gone."""
        if view is None:
            self.namespaces.pop(name, None)
        elif name not in self.namespaces or self.namespaces[name].telling != view.telling:
            self.namespaces[name] = view
            await self.refresh(name)

    async def refresh(self, namespace: str | None = None) -> None:
        """Looks at the objects of all pods of this node (in the namespace) anew."""
        for record in self._endpoints.of_pods():
            if namespace in (None, record.state.namespace):
                try:
                    await self.pod_changed(record.state.namespace, record.state.pod)
                except RpcError as error:
                    log.warning("%s; its pod stays as it was", error.message)

    def here(self, namespace: str, pod: str) -> EndpointRecord | None:
        """The endpoint of a pod of this node."""
        return next(
            (
                record
                for record in self._endpoints.of_pods()
                if (record.state.namespace, record.state.pod) == (namespace, pod)
            ),
            None,
        )

    async def pod_changed(self, namespace: str, pod: str, value: bytes | None = None) -> None:
        """The object of a pod has (perhaps) other labels or ports than when it was attached.

        Does nothing before `confirm_restored`: the policies are not all known then.
        """
        if not self._confirmed or (record := self.here(namespace, pod)) is None:
            return
        async with self._lock(record.state.host_interface):
            if (record := self.here(namespace, pod)) is None:
                return
            if value is None:
                entry = await self._store.get(f"{PODS}{namespace}/{pod}")
                if entry is None:
                    return  # its container is about to go as well
                value = entry.value
            view = _read(value, PodView, f"Pod {namespace}/{pod}")
            if record.state.uid and view.metadata.uid and view.metadata.uid != record.state.uid:
                return  # another pod of this name, which has not been attached yet
            self._introduce(namespace, pod, record.state.addresses, view)
            labels = await self._labels(namespace, view)
            kind, workload = view.workload
            asked = self._wishes(namespace, pod, view)
            wanted = msgspec.structs.replace(
                record.state,
                workload_kind=kind,
                workload=workload,
                named_ports=view.named_ports,
                labels=labels.texts(),
                audit=asked.audit,
                visibility=[str(watch) for watch in asked.watches],
            )
            if wanted != record.state:
                with self.becoming():
                    await self._become(record, wanted, labels)

    async def _become(self, record: EndpointRecord, wanted: EndpointState, labels: Labels) -> None:
        """From one identity (or set of ports) to another, on the fly."""
        before = record.state
        host = before.host_interface
        wanted = msgspec.structs.replace(wanted, identity=await self._identities.acquire(labels, host))
        after = msgspec.structs.replace(record, state=wanted)
        self._enter(after)
        self._endpoints.write(after)
        self._endpoints.remember(after)
        await self._store.put(self._key(wanted), encode(wanted))
        if before.identity != wanted.identity:
            self._control.local_subject(before.identity, self._key(before), False)
            self._settle()
        former = Labels.parse(before.labels)
        if former != labels:
            await self._let_go(former, host)
            log.info("%s/%s: identity %d in place of %d", wanted.namespace, wanted.pod, wanted.identity,
                     before.identity)  # fmt: skip

    def _introduce(self, namespace: str, pod: str, addresses: Iterable[str], view: PodView) -> None:
        if self._services:
            self._services.pod_here(view.local(namespace, pod, addresses))

    # ---- after a restart -----------------------------------------------------------------------

    def begin(self, pools: AddressPools) -> None:
        """Takes up the pods of before; nothing is written, for what they need is in the kernel."""
        self._pools = pools
        for record in self._endpoints.records.values():
            self._pools.reserve(self._endpoints.link(record).addresses)
            self._control.endpoint_changed(self._key(record.state), record.state)
            self._asked.put(self._key(record.state), record.state)
            self._control.local_subject(record.state.identity, self._key(record.state), True)

    async def introduce(self) -> None:
        """Tells of the pods of before as their objects are now; without, what leads to them would be taken
        away until they are looked at. Unavailable when the shared state is."""
        for record in self._endpoints.of_pods():
            state = record.state
            entry = await self._store.get(f"{PODS}{state.namespace}/{state.pod}")
            if entry is not None:
                with contextlib.suppress(RpcError):  # it is said when the pod is looked at
                    view = _read(entry.value, PodView, f"Pod {state.namespace}/{state.pod}")
                    self._introduce(state.namespace, state.pod, state.addresses, view)

    async def confirm_restored(self) -> None:
        """Compares the pods of before with the shared state, once that can be reached."""
        for record in self._endpoints.of_pods():
            state = record.state
            labels = Labels.parse(state.labels)
            async with self._lock(state.host_interface):
                identity = await self._identities.acquire(labels, state.host_interface)
                if identity != state.identity:  # the shared state has been made anew
                    with self.becoming():
                        await self._become(record, state, labels)
                    continue
                entry = await self._store.get(self._key(state))
                if entry is None or entry.value != encode(state):
                    await self._store.put(self._key(state), encode(state))
        own = {self._key(record.state) for record in self._endpoints.records.values()}
        for entry in (await self._store.list(f"{ENDPOINTS}{self._node}/")).entries:
            if entry.key not in own:
                await self._store.delete(entry.key)
        await self._identities.prune()
        self._confirmed = True

    async def retry(self) -> None:
        """What could not be done while the shared state was away; Unavailable when it still is."""
        if self.outdated:
            await self.refresh()
            self.outdated = False
        while self._unpublish:
            key = next(iter(self._unpublish))
            if not any(self._key(record.state) == key for record in self._endpoints.records.values()):
                await self._store.delete(key)
            self._unpublish.discard(key)

    async def look_after(self) -> list[str]:
        """`EndpointTable.look_after` while nobody comes, goes, or changes."""
        async with contextlib.AsyncExitStack() as stack:
            for record in list(self._endpoints.records.values()):
                await stack.enter_async_context(self._lock(record.state.host_interface))
            return await self._endpoints.look_after()

    # ---- parts ---------------------------------------------------------------------------------

    def _enter(self, record: EndpointRecord) -> None:
        """Its policy into the kernel; RpcError while the kernel lacks something, be it of another's."""
        self._control.endpoint_changed(self._key(record.state), record.state)
        self._asked.put(self._key(record.state), record.state)
        self._control.local_subject(record.state.identity, self._key(record.state), True)
        self._settle()
        if self._control.broken:
            raise RpcError(
                UNAVAILABLE, "the kernel refused a part of the policy tables; it is tried again: see the log"
            )

    def _leave(self, record: EndpointRecord) -> None:
        self._control.endpoint_changed(self._key(record.state), None)
        self._asked.remove(self._key(record.state))
        self._control.local_subject(record.state.identity, self._key(record.state), False)
        self._settle()

    def _settle(self) -> None:
        """What the kernel refuses is mended later: `Control.broken`."""
        try:
            self._control.settle()
        except BpfError as error:
            log.error("%s; the tables will be compared and mended", error)

    async def _withdraw(self, state: EndpointState) -> None:
        key = self._key(state)
        try:
            await self._store.delete(key)
        except StoreError as error:
            log.warning("%s: %s; it will be deleted later", key, error)
            self._unpublish.add(key)

    async def _let_go(self, labels: Labels, user: str) -> None:
        try:
            await self._identities.release(labels, user)
        except StoreError as error:
            log.warning("an identity could not be given back: %s; the next start does it", error)

    def sweep(self) -> None:
        """Removes what no pod of this node accounts for."""
        self._endpoints.sweep(list(self._coming.values()))

    @property
    def broken(self) -> bool:
        """Whether the kernel lacks a part of the policy tables."""
        return self._control.broken

    def exhausted(self) -> str:
        """Which pool of addresses is empty, as a sentence; empty when none is."""
        full = [
            f"all {pool.capacity} IPv{version} addresses of this node are in use"
            for version, pool in self._pools.pools.items()
            if len(pool.used) >= pool.capacity
        ]
        return "; ".join(full)

    async def _pod(self, wish: Attach) -> PodView:
        if wish.labels is not None:
            return PodView.of_container(wish.namespace, wish.pod, wish.labels)
        entry = await self._store.get(f"{PODS}{wish.namespace}/{wish.pod}")
        if entry is None:
            raise RpcError(NOT_FOUND, f"there is no Pod {wish.namespace}/{wish.pod}: create it first")
        view = _read(entry.value, PodView, f"Pod {wish.namespace}/{wish.pod}")
        if wish.uid and view.metadata.uid and view.metadata.uid != wish.uid:
            raise RpcError(
                NOT_FOUND,
                f"Pod {wish.namespace}/{wish.pod} has uid {view.metadata.uid}, not {wish.uid}: it is another",
            )
        return view

    async def _labels(self, namespace: str, view: PodView) -> Labels:
        if namespace not in self.namespaces:
            entry = await self._store.get(NAMESPACES + namespace)
            if entry is not None:
                found = _read(entry.value, NamespaceView, f"Namespace {namespace}")
                self.namespaces[namespace] = found
        around = self.namespaces.get(namespace)
        return self._filter.apply(
            pod_labels(
                view.metadata.labels,
                namespace=namespace,
                namespace_labels=around.metadata.labels if around else None,
                service_account=view.spec.service_account_name or "default",
                cluster=self._cluster,
            )
        )

    def _wishes(self, namespace: str, pod: str, view: PodView) -> Wishes:
        """After `_labels`, which asks for the namespace. Annotations that mean nothing ask for nothing."""
        around = self.namespaces.get(namespace)
        inherited = around.metadata.annotations if around else None
        try:
            return wishes(view.metadata.annotations or {}, inherited or {})
        except ValueError as error:
            log.warning("Pod %s/%s: %s", namespace, pod, error)
            return Wishes()

    def _next_id(self) -> int:
        number = self._endpoints.next_id(self._ids)
        self._ids.add(number)
        return number

    def _key(self, state: EndpointState) -> str:
        return endpoint_key(self._node, state.id)

    def _lock(self, host_interface: str) -> asyncio.Lock:
        if len(self._busy) > 64 + 2 * len(self._endpoints.records):
            self._busy = {name: lock for name, lock in self._busy.items() if lock.locked()}
        return self._busy.setdefault(host_interface, asyncio.Lock())


def _read(value: bytes, kind: type[V], title: str) -> V:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise RpcError(INVALID, f"{title}: {error}") from error


def attached(record: EndpointRecord) -> Attached:
    """What a runtime is told of an endpoint that is plugged in."""
    state = record.state
    return Attached(
        addresses=[
            AttachedAddress(text, 128, pods.IPV6_GATEWAY)
            if ":" in text
            else AttachedAddress(text, 32, pods.IPV4_GATEWAY)
            for text in state.addresses
        ],
        mac=record.mac,
        mtu=record.mtu,
        host_interface=state.host_interface,
        identity=state.identity,
        endpoint_id=state.id,
    )
