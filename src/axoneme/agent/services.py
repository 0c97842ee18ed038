"""A cluster's services on this node: from what the shared state says of them to the kernel's tables.

Service, EndpointSlice, ... -> ClusterServices -> Balanced -> Balancer -> tables
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec

from axoneme.agent.balancer import Balancer
from axoneme.agent.config import LoadBalancingConfig
from axoneme.model.localredirect import parse_local_redirect
from axoneme.model.services import Service
from axoneme.model.state import NodeState
from axoneme.model.storedservices import Object, read_endpoint_slice
from axoneme.services.balanced import Address, Algorithm
from axoneme.services.cluster import ClusterServices
from axoneme.services.facts import NodeFacts, Options
from axoneme.services.view import BalancingSummary, ServiceView

ENDPOINT_SLICE, REDIRECT = "EndpointSlice", "CiliumLocalRedirectPolicy"


def options(config: LoadBalancingConfig) -> Options:
    """ValueError for what is no network."""
    return Options(
        node_port_addresses=tuple(ip_network(text) for text in config.node_port_addresses),
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
        self._own = node.addresses
        #: Addresses of every node.
        self._nodes: dict[str, tuple[Address, ...]] = {}
        self._machines_changed = True

    # ---- what is heard -------------------------------------------------------------------------

    def service_changed(self, namespace: str, name: str, service: Service | None) -> None:
        if not self._config.enabled:
            return
        if service is None:
            self._cluster.remove_service(namespace, name)
        else:
            self._cluster.upsert_service(service)

    def object_changed(self, kind: str, namespace: str, name: str, value: bytes | None) -> None:
        """A slice or a policy that redirects. ManifestError and others when it cannot be understood."""
        if not self._config.enabled:
            return
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

    def here(self, facts: NodeFacts) -> None:
        """This node has other labels or addresses."""
        self._own = facts.addresses
        self._machines_changed = True
        self._cluster.node_changed(facts)

    # ---- to the kernel -------------------------------------------------------------------------

    def settle(self) -> int:
        """Brings the kernel up to date with all that was heard; how many entries were written. The first one,
        when all has been heard, writes the difference to what an earlier agent left.

        BpfError as from `Balancer.settle`.
        """
        if self._machines_changed:
            self._machines_changed = False
            self._balancer.machines(
                {*self._own, *(each for addresses in self._nodes.values() for each in addresses)}
            )
        changes = self._cluster.changes()
        self._balancer.apply(changes.upserts, changes.removals)
        return self._balancer.settle()

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
        found = dict(self._cluster.problems)
        for (name, port), why in self._balancer.problems.items():
            found[f"{name} port {port}"] = why
        return found

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
            "snat",
            self._sockets,
        )
