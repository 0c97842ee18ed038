"""The process of all name servers of a sandbox: `python -m axoneme.sandbox.dns NAME`.

It plays the pods of the cluster's DNS and the name server of the world, as the supervisor tells it, and
follows the shared state by itself.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from axoneme.sandbox import planfile
from axoneme.sandbox.dns.answering import Zone
from axoneme.sandbox.dns.cluster import ClusterNames
from axoneme.sandbox.dns.forwarding import Forwarder
from axoneme.sandbox.dns.listeners import NameListeners
from axoneme.sandbox.dns.zonefile import WatchedZone, ZoneNames, world
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.objects import OBJECTS, ObjectKey, Service, read
from axoneme.sandbox.plan import Plan
from axoneme.sandbox.playing import Players, Serve
from axoneme.sandbox.services.slices import EndpointSlice
from axoneme.sources.follow import Sync, follow
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Change, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The key under which the name server of the world is played.
WORLD = "world"


def run(name: str) -> None:
    """Until it is ended."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    layout = Layout(name)
    asyncio.run(serve(planfile.load(layout), layout))


async def serve(plan: Plan, layout: Layout) -> None:
    """Until cancelled."""
    names = ClusterNames(plan.dns_addresses())
    following = {
        "Namespace": asyncio.Event(),
        "Service": asyncio.Event(),
        "EndpointSlice": asyncio.Event(),
    }
    ready = asyncio.Event()
    always = asyncio.Event()
    always.set()
    outside: Zone = WatchedZone(Path(plan.zone)) if plan.zone else ZoneNames(world(plan.world_addresses()))

    def part(wish: Serve) -> NameListeners:
        forwarder = Forwarder(Path(wish.netns), plan.name_servers())
        if wish.key == WORLD:
            return NameListeners(Path(wish.netns), outside, forwarder.ask, always)
        return NameListeners(Path(wish.netns), names, forwarder.ask, ready)

    store = SqliteStore(layout.store)
    try:
        async with asyncio.TaskGroup() as group:
            for kind, synced in following.items():
                group.create_task(_follow(store, kind, names, synced))
            group.create_task(Players(part).listen(layout.dns_socket))
            for synced in following.values():
                await synced.wait()
            ready.set()
    finally:
        await store.close()


async def _follow(store: Store, kind: str, names: ClusterNames, synced: asyncio.Event) -> None:
    async for news in follow(store, f"{OBJECTS}{kind}/"):
        if isinstance(news, Sync):
            synced.set()
        else:
            for change in news:
                _tell(names, change)


def _tell(names: ClusterNames, change: Change) -> None:
    key = ObjectKey.parse(change.key)
    match key.kind:
        case "Namespace":
            names.set_namespace(key.name, change.value is not None)
        case "Service":
            names.set_service(key.namespace, key.name, _parsed(change, Service))
        case "EndpointSlice":
            names.set_slice(key.namespace, key.name, _parsed(change, EndpointSlice))


def _parsed(change: Change, kind: type[T]) -> T | None:
    if change.value is None:
        return None
    try:
        return read(change.value, kind)
    except msgspec.DecodeError as failure:
        log.warning("%s has no names: %s", change.key, failure)
        return None
