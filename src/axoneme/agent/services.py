"""A cluster's services on this node: from what the shared state says of them to the kernel's tables.

Service, EndpointSlice, pods, ... -> ClusterServices -> Balanced -> Balancer -> tables
                                          └─> health checks -> ServiceHealth
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec

from axoneme.agent.balancer import Balancer
from axoneme.agent.config import LoadBalancingConfig
from axoneme.agent.podview import NodeView
from axoneme.agent.servicehealth import NodeHealth, ServiceHealth
from axoneme.datapath.bpf import BpfError
from axoneme.model.localredirect import parse_local_redirect
from axoneme.model.services import Service
from axoneme.model.state import NodeState
from axoneme.model.storedservices import Object, read_endpoint_slice
from axoneme.rpc.listening import listening_at
from axoneme.services.balanced import Address, Algorithm
from axoneme.services.cluster import Changes, ClusterServices
from axoneme.services.facts import LocalPod, NodeFacts, Options
from axoneme.services.view import BalancingSummary, ServiceView

log = logging.getLogger(__name__)

#: Units that are settled before others get their turn, and for how many seconds: an answer takes several
#: turns of the loop, and must not wait for as many parts.
AT_ONCE: Final = 32
_PAUSE: Final = 0.001
#: Seconds for which more news is waited for at most, while it goes on coming in.
_LONGEST_WAIT: Final = 0.5

ENDPOINT_SLICE, REDIRECT = "EndpointSlice", "CiliumLocalRedirectPolicy"


def options(config: LoadBalancingConfig) -> Options:
    """ValueError for what is no network."""
    return Options(
        node_port_addresses=tuple(ip_network(text) for text in config.node_port_addresses),
        forwarding=config.forwarding,
        algorithm=Algorithm(config.algorithm),
        proxy_name=config.proxy_name,
    )


class Services:
    """Takes changes in; `settle` then makes them true."""

    def __init__(
        self, node: NodeFacts, config: LoadBalancingConfig, balancer: Balancer, sockets: str = ""
    ) -> None:
        """``sockets``: the control group whose processes' calls are translated where they are made."""
        self._config = config
        self._cluster = ClusterServices(node, options(config))
        self._balancer = balancer
        self._sockets = sockets
        self._node = node
        self._eligible = True
        self._settled = False
        self._health = ServiceHealth(lambda: self._settled and not self.broken)
        #: Addresses of every node.
        self._nodes: dict[str, tuple[Address, ...]] = {}
        self._machines_changed = True
        self._news = asyncio.Event()
        self._heard = 0

    # ---- what is heard -------------------------------------------------------------------------

    def service_changed(self, namespace: str, name: str, service: Service | None) -> None:
        self._hear()
        if service is None:
            self._cluster.remove_service(namespace, name)
        else:
            self._cluster.upsert_service(service)

    def object_changed(self, kind: str, namespace: str, name: str, value: bytes | None) -> None:
        """A slice or a policy that redirects. ManifestError and others when it cannot be understood."""
        self._hear()
        if kind == ENDPOINT_SLICE:
            if value is None:
                self._cluster.remove_slice(namespace, name)
            else:
                self._cluster.upsert_slice(read_endpoint_slice(value))
        elif value is None:
            self._cluster.remove_redirect(namespace, name)
        else:
            self._cluster.upsert_redirect(parse_local_redirect(msgspec.json.decode(value, type=Object)))

    def node_changed(self, name: str, state: NodeState | None) -> None:
        """A node says where it is, or is gone. ValueError for what is no address."""
        if state is None:
            self._nodes.pop(name, None)
        else:
            texts = (*state.addresses, *state.internal_addresses)
            self._nodes[name] = tuple({ip_address(text) for text in texts})
        self._machines_changed = True
        self._hear()

    def here(self, facts: NodeFacts) -> None:
        """This node has other addresses."""
        self._machines_changed = True
        self._node = replace(facts, labels=self._node.labels)
        self._cluster.node_changed(self._node)
        self._hear()

    def node_object_changed(self, value: bytes | None) -> None:
        """Of this node: its labels, and whether it is about to be taken away."""
        view = NodeView() if value is None else msgspec.json.decode(value, type=NodeView)
        self._eligible = view.eligible
        self._node = replace(self._node, labels=view.metadata.labels)
        self._cluster.node_changed(self._node)
        self._hear()

    def pod_here(self, pod: LocalPod) -> None:
        """A pod of this node, new or other than before; services that lead to it follow at once."""
        self._cluster.upsert_pod(pod)
        self._follow()

    def pod_gone(self, namespace: str, name: str) -> None:
        self._cluster.remove_pod(namespace, name)
        self._follow()

    def _follow(self) -> None:
        if self._settled:  # else not all has been heard
            self._try_to_settle(0)

    def _hear(self) -> None:
        self._heard += 1
        self._news.set()

    # ---- to the kernel -------------------------------------------------------------------------

    async def keep_settled(self) -> None:
        """After the first `settle`, until cancelled: settles what is heard, part by part, so that others have
        their turn; but first hears what comes at once: a Service and its slices are one change."""
        while True:
            await self._news.wait()
            await self._silence()
            self._news.clear()
            self._try_to_settle(AT_ONCE)
            if self._config.enabled and self._cluster.waiting:
                self._news.set()
                await asyncio.sleep(_PAUSE)

    async def _silence(self) -> None:
        """Until a turn of the loop in which nothing was heard."""
        until, heard = time.monotonic() + _LONGEST_WAIT, -1
        while heard != self._heard and time.monotonic() < until:
            heard = self._heard
            await asyncio.sleep(0)

    def _try_to_settle(self, most: int) -> None:
        try:
            self.settle(most)
        except BpfError as error:
            log.error("%s; the tables will be compared and mended", error)

    def settle(self, most: int | None = None) -> int:
        """Brings the kernel up to date with all that was heard, or with ``most`` units of it; how many
        entries were written. The first one, when all has been heard, writes the difference to what an earlier
        agent left.

        BpfError as from `Balancer.settle`.
        """
        if self._machines_changed:
            self._machines_changed = False
            nodes = (each for addresses in self._nodes.values() for each in addresses)
            self._balancer.machines({*self._node.addresses, *nodes})
        changes = self._cluster.changes(most) if self._config.enabled else Changes()
        self._settled = True
        self._health.tell(self._cluster.health_checks)
        self._balancer.apply(changes.upserts, changes.removals)
        return self._balancer.settle()

    async def serve(self) -> None:
        """Answers load balancers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._health.run())
            if at := self._config.healthz:
                node = NodeHealth(lambda: not self.broken, lambda: self._eligible)
                tasks.create_task(node.run(*listening_at(at, "load_balancing.healthz")))

    @property
    def broken(self) -> bool:
        return self._balancer.broken

    def mend(self) -> None:
        """What could not be done when it was due, and what can wait."""
        if self._balancer.broken:
            self._balancer.reconcile()
        self._balancer.tidy()

    # ---- what is told --------------------------------------------------------------------------

    @property
    def problems(self) -> dict[str, str]:
        """By object: what of it is not in force, and why."""
        found = {**self._cluster.problems, **self._health.problems}
        for (name, port), why in self._balancer.problems.items():
            found[f"{name} port {port}"] = why
        return found

    def addresses(self, namespace: str, name: str) -> frozenset[Address]:
        """Of all endpoints of a Service."""
        return self._cluster.addresses(namespace, name)

    def service_of(self, namespace: str, slice_: str) -> str | None:
        """The Service that a slice belongs to."""
        return self._cluster.service_of(namespace, slice_)

    @property
    def writes(self) -> dict[str, int]:
        return dict(self._balancer.writes)

    def list(self) -> list[ServiceView]:
        return self._balancer.services()

    def summary(self) -> BalancingSummary | None:
        if not self._config.enabled:
            return None
        counts = self._balancer.tables.counts
        return BalancingSummary(
            counts.services,
            counts.frontends,
            counts.backends,
            counts.empty,
            self._config.algorithm,
            self._config.forwarding,
            self._sockets,
        )
