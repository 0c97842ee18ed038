"""The loop that keeps services complete and their slices in line with the pods.

Level-triggered, as that of the workloads: a change only marks the services that it concerns, and what is done
follows from how things stand when their turn comes. Changes that come together are one look.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator

from axoneme.model.paths import ManifestError
from axoneme.sandbox.cluster import Cluster, ObjectChange, Stored
from axoneme.sandbox.objects import Node, ObjectKey, Pod, Service
from axoneme.sandbox.services import slices
from axoneme.sandbox.services.admission import admit
from axoneme.sandbox.services.allocation import Ranges, Taken
from axoneme.sandbox.services.registry import repair
from axoneme.sandbox.services.slices import EndpointSlice
from axoneme.sandbox.workloads.changes import Surroundings
from axoneme.sources.store import Store

log = logging.getLogger(__name__)


class ServiceController:
    """Of all namespaces."""

    def __init__(
        self, store: Store, cluster: Cluster, ranges: Ranges, surroundings: Callable[[], Surroundings]
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._ranges = ranges
        self._surroundings = surroundings
        self._marked: dict[ObjectKey, None] = {}
        self._incomplete = False
        #: The keys of slices, by the service that they name.
        self._slices: dict[ObjectKey, set[ObjectKey]] = {}
        self._services: dict[str, set[ObjectKey]] = {}
        self._called = asyncio.Event()
        cluster.listen(self._hear)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._called.wait()
            self._called.clear()
            if self._incomplete:
                self._incomplete = False
                await repair(self._store, self._ranges)
            while self._marked:
                key = next(iter(self._marked))
                del self._marked[key]
                await self._attend(key)

    # ---- what a change concerns --------------------------------------------------------------------

    def _hear(self, news: list[ObjectChange]) -> None:
        for change in news:
            match change.key.kind:
                case "Service":
                    self._hear_service(change)
                case "Pod":
                    self._mark_selecting(change)
                case slices.KIND:
                    self._hear_slice(change)
                case "Node" if _zone(change.before) != _zone(change.after):
                    self._marked |= dict.fromkeys(self._cluster.keys("Service"))
        self._called.set()

    def _hear_service(self, change: ObjectChange) -> None:
        key, after = change.key, change.after
        if after is None:
            self._services.get(key.namespace, set()).discard(key)
            return  # its slices go with it, as what an object controls does
        self._services.setdefault(key.namespace, set()).add(key)
        self._marked[key] = None
        if after.metadata.uid and self._lacks(after):
            self._incomplete = True

    def _lacks(self, stored: Stored) -> bool:
        document = json.loads(stored.document)
        try:
            return bool(admit(document, None, Taken(), self._ranges) != document)
        except ManifestError as failure:
            log.warning("%s", failure)
            return False

    def _mark_selecting(self, change: ObjectChange) -> None:
        labels = [each.metadata.labels for each in (change.before, change.after) if each]
        for key in self._services.get(change.key.namespace, ()):
            service = self._cluster.parsed(key, Service)
            if service is not None and any(map(service.spec.selects, labels)):
                self._marked[key] = None

    def _hear_slice(self, change: ObjectChange) -> None:
        for stored, there in ((change.before, False), (change.after, True)):
            name = stored.metadata.labels.get(slices.SERVICE_NAME, "") if stored else ""
            if not name:
                continue
            service = ObjectKey("Service", change.key.namespace, name)
            self._marked[service] = None
            keys = self._slices.setdefault(service, set())
            keys.add(change.key) if there else keys.discard(change.key)
            if not keys:
                del self._slices[service]

    # ---- what is done about it ---------------------------------------------------------------------

    async def _attend(self, key: ObjectKey) -> None:
        service = self._cluster.parsed(key, Service)
        if service is None or not service.metadata.uid:
            return
        if not service.spec.ip_families and service.spec.type != "ExternalName":
            return  # it has no addresses yet, and is heard of again when it has
        changes = slices.reconcile(
            service,
            self._selected(service),
            {node.metadata.name: node for node in self._cluster.all("Node", Node)},
            [each for each in self._slices_of(key) if slices.ours(each, service)],
            self._surroundings(),
        )
        for new in changes.create:
            await self._cluster.create(new)
        for each in changes.update:
            await self._cluster.update(
                each.key,
                lambda document, each=each: slices.changed(document, each),  # type: ignore[misc]
                each.metadata.uid,
            )
        for gone in changes.delete:
            await self._cluster.remove(gone)

    def _selected(self, service: Service) -> Iterator[Pod]:
        for key in self._cluster.keys("Pod"):
            if key.namespace != service.metadata.namespace:
                continue
            stored = self._cluster.get(key)
            if stored and service.spec.selects(stored.metadata.labels) and stored.metadata.uid:
                pod = self._cluster.parsed(key, Pod)
                if pod is not None:
                    yield pod

    def _slices_of(self, service: ObjectKey) -> Iterator[EndpointSlice]:
        for key in sorted(self._slices.get(service, ())):
            found = self._cluster.parsed(key, EndpointSlice)
            if found is not None:
                yield found


def _zone(node: Stored | None) -> str:
    return node.metadata.labels.get(slices.ZONE, "") if node else ""
