"""What an agent holds, read at each scrape: pods, identities, policies, tables, services, ways to nodes."""

from __future__ import annotations

import os
import pathlib
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from axoneme import __version__
from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointTable
from axoneme.agent.health import Health
from axoneme.agent.hostpolicies import HostPolicies
from axoneme.agent.listener import Listener
from axoneme.agent.names import Names
from axoneme.agent.pods import Pods
from axoneme.agent.proxies import Proxies
from axoneme.agent.services import Services
from axoneme.datapath import counters
from axoneme.datapath.audit import WatchedTable
from axoneme.datapath.plane import Datapath
from axoneme.flows.events import Vocabulary
from axoneme.health.ways import Path, Protocol
from axoneme.identity.numbers import FIRST_NODE_LOCAL
from axoneme.metrics.families import Counter, Family, Gauge
from axoneme.model.policy import Direction
from axoneme.proxy.plan import KINDS

#: Tables whose fill is known without walking through them.
_WATCHED: Final = (
    *("policies", "addresses", "endpoints", "frontends", "services", "slots", "backends", "source_ranges"),
)
_NONE: Final[Mapping[Any, float]] = {}
#: Reasons as Cilium's agent words them, where its words are not those of Hubble's names.
_REASONS: Final = {
    "POLICY_DENY": "Policy denied by denylist",
    "SERVICE_BACKEND_NOT_FOUND": "Service backend not found",
}


@dataclass(frozen=True)
class Gauges:
    """``cluster`` and ``node``: names."""

    prefix: str
    cluster: str
    node: str
    plane: Datapath
    control: Control
    endpoints: EndpointTable
    pods: Pods
    listener: Listener
    services: Services
    names: Names
    proxies: Proxies
    hosts: HostPolicies
    health: Health | None

    def collect(self) -> Iterator[Family]:
        yield self._gauge(
            "version",
            "The agent's version",
            ("version", "revision", "arch"),
            {(__version__, "", os.uname().machine): 1},
        )
        yield from self._pods()
        yield from self._policies()
        yield from self._tables()
        yield from self._packets()
        yield from self._services()
        yield from self._proxies()
        yield from self._health()

    def _gauge(
        self, name: str, help: str, labels: tuple[str, ...], values: Mapping[Any, float] | float = _NONE
    ) -> Gauge:
        """Names of ours begin with ``axoneme_``, others with the prefix. ``values`` by those of the labels,
        in a tuple where they are several."""
        made = Gauge(name if name.startswith("axoneme_") else f"{self.prefix}_{name}", help, labels)
        if not isinstance(values, Mapping):
            made.set(values)
            return made
        for key, value in values.items():
            made.set(value, *((key,) if isinstance(key, str) else key))
        return made

    def _pods(self) -> Iterator[Family]:
        records = self.endpoints.of_pods()
        yield self._gauge("endpoint", "Number of endpoints managed by this agent", (), len(records))
        states = Tally({"ready": 0, **Tally(record.state.state for record in records)})
        yield self._gauge(
            "endpoint_state",
            "Count of all endpoints",
            ("endpoint_state",),
            states,
        )
        versions = Tally({"ipv4": 0, "ipv6": 0})
        for record in records:
            versions.update("ipv6" if ":" in address else "ipv4" for address in record.state.addresses)
        yield self._gauge("ip_addresses", "Number of allocated IP addresses", ("family",), versions)
        room = {(f"ipv{version}",): float(size) for version, size in self.pods.capacity().items()}
        yield self._gauge("ipam_capacity", "Total number of IPs in the node's pools", ("family",), room)
        local = sum(number >= FIRST_NODE_LOCAL for number in self.control.identities)
        all_ = self.control.counts.identities
        kinds = {"node_local": local, "cluster_local": all_ - local}
        yield self._gauge("identity", "Number of identities known to this agent", ("type",), kinds)
        yield self._gauge("nodes_all_num", "Number of nodes managed", (), self.control.counts.nodes)

    def _policies(self) -> Iterator[Family]:
        given = self.control.policies - self.hosts.given
        yield self._gauge("policy", "Number of policies currently loaded", (), given)
        refused = len(self.control.refused)
        yield self._gauge("axoneme_policies_refused", "Policies that do not fit the tables", (), refused)
        status = Tally(
            {
                "none": 0,
                "ingress": 0,
                "egress": 0,
                "both": 0,
                "audit-both": 0,
                "audit-ingress": 0,
                "audit-egress": 0,
            }
        )
        for record in self.endpoints.of_pods():
            closed, tried = self.control.closed(record.state.identity)
            status[_enforcement(closed) or _enforcement(tried, "audit-") or "none"] += 1
        help = "Number of endpoints labeled by policy enforcement status"
        yield self._gauge("policy_endpoint_enforcement_status", help, ("enforcement",), status)
        if summary := self.names.summary():
            yield self._gauge("fqdn_selectors", "DNS names that policies select by", (), summary.selectors)
            yield self._gauge("axoneme_fqdn_names", "Names known", (), summary.names)
            yield self._gauge("axoneme_fqdn_addresses", "Addresses of names", (), summary.addresses)
        problems = float(len(self.listener.problems) + refused)
        yield self._gauge(
            "axoneme_problems", "Objects and parts with something wrong (axo status)", (), problems
        )

    def _tables(self) -> Iterator[Family]:
        plane = self.plane
        fill, room = {}, {}
        for name in _WATCHED:
            table: WatchedTable = getattr(plane, name)
            fill[(name,)] = len(table) / table.room
            room[(name,)] = float(table.room)
        for name in ("flows", "half_open", "translations"):
            room[(name,)] = float(getattr(plane, name).info.max_entries)
        yield self._gauge("bpf_map_pressure", "Fill percentage of a map, from 0 to 1", ("map_name",), fill)
        yield self._gauge("bpf_map_capacity", "Entries that a map has room for", ("map_group",), room)
        for kind, octets in _bpf_memory().items():
            help = f"The {kind} that this process holds open: bytes of the kernel's memory for them"
            yield self._gauge(f"bpf_{kind}_virtual_memory_max_bytes", help, (), octets)
        written = Counter(
            f"{self.prefix}_bpf_map_ops_total",
            "Number of writes to maps",
            ("map_name", "operation", "outcome"),
        )
        for name, count in (self.control.writes | self.services.writes).items():
            written.add(name, "update", "success", by=count)
        yield written
        repaired = Counter(
            "axoneme_repairs_total", "What others had changed in the kernel, and was put right", ("what",)
        )
        for what, count in plane.repairs.items():
            repaired.add(what, by=count)
        yield repaired
        lost = Counter(
            "axoneme_ring_lost_events_total", "Events that found their ring buffer full", ("ring",)
        )
        numbers, counts = plane.lost.sums()
        rings = {
            number: name.removeprefix("RING_").lower() for name, number in plane.schema.enum("ring").items()
        }
        for number, one in zip(numbers.tolist(), counts, strict=True):
            lost.add(rings.get(number, str(number)), by=int(one["packets"]))
        yield lost
        ports = Counter(
            "axoneme_masquerading_ports_exhausted_total", "Connections for which there was no port"
        )
        ports.add(by=sum(plane.out_of_ports().values()))
        yield ports

    def _packets(self) -> Iterator[Family]:
        plane, prefix = self.plane, self.prefix
        reasons = Vocabulary.read(plane.schema.struct("event"), plane.schema.enums).reasons
        labels = ("reason", "direction")
        packets = Counter(f"{prefix}_drop_count_total", "Total dropped packets", labels)
        octets = Counter(f"{prefix}_drop_bytes_total", "Total dropped bytes", labels)
        for drop in counters.drops(plane.drops, plane.schema):
            reason = worded(reasons.get(drop.reason, f"REASON_{drop.reason}"))
            packets.add(reason, drop.direction, by=drop.packets)
            octets.add(reason, drop.direction, by=drop.bytes)
        yield packets
        yield octets
        packets = Counter(f"{prefix}_forward_count_total", "Total forwarded packets", ("direction",))
        octets = Counter(f"{prefix}_forward_bytes_total", "Total forwarded bytes", ("direction",))
        for each in counters.forwards(plane.forwards, plane.schema):
            packets.add(each.direction, by=each.packets)
            octets.add(each.direction, by=each.bytes)
        yield packets
        yield octets

    def _services(self) -> Iterator[Family]:
        if found := self.services.summary():
            yield self._gauge("axoneme_services", "Ports of services balanced here", (), found.services)
            yield self._gauge("axoneme_service_frontends", "Addresses that they have", (), found.frontends)
            yield self._gauge(
                "axoneme_service_backends", "Backends that take connections", (), found.backends
            )
            help = "Ports of services that refuse their callers, for they have no backend"
            yield self._gauge("axoneme_services_without_backends", help, (), found.empty)

    def _proxies(self) -> Iterator[Family]:
        states = Tally((state.kind, state.state) for state in self.proxies.states())
        help = "Listeners of the node's proxies: ready, waiting for their proxy, or failed (refused by it)"
        values = {key: float(count) for key, count in states.items()}
        yield self._gauge("axoneme_proxy_listeners", help, ("kind", "state"), values)
        redirects = Tally({"http": 0, "dns": 0, "kafka": 0})
        protocols = {"envoy": "http"}
        for (kind, _), count in states.items():
            redirects[protocols.get(kind, kind)] += count
        help = "Number of redirects installed for endpoints"
        yield self._gauge("proxy_redirects", help, ("protocol",), redirects)
        runs = {(kind,): float(self.proxies.heard(kind)) for kind in KINDS}
        yield self._gauge("axoneme_proxy_up", "Whether a proxy runs and reports", ("kind",), runs)

    def _health(self) -> Iterator[Family]:
        if self.health is None:
            return
        here = ("source_cluster", "source_node_name")
        where = (self.cluster, self.node)
        status = Tally(
            {
                (kind, state): 0
                for kind in ("node", "endpoint")
                for state in ("reachable", "unreachable", "unknown")
            }
        )
        latency = self._gauge(
            "node_health_connectivity_latency_seconds",
            "Round trip in seconds when it was measured last, over all nodes: the longest",
            (*here, "type", "protocol", "address_type"),
        )
        each_ = self._gauge(
            "axoneme_node_latency_seconds",
            "Round trip to a node when it was measured last",
            ("node", "path", "protocol", "family"),
        )
        up = self._gauge(
            "axoneme_node_reachable",
            "Whether a node is reached by every way; absent: not known yet",
            ("node",),
        )
        longest: dict[tuple[str, str, str], float] = {}
        for found in self.health.monitor.nodes():
            for path, kind in ((Path.UNDERLAY, "node"), (Path.PODS, "endpoint")):
                ways = [each for each in found.measurements if each.way.path is path]
                bad = any(each.given_up for each in ways)
                good = bool(ways) and all(each.works for each in ways)
                status[kind, "unreachable" if bad else "reachable" if good else "unknown"] += 1
                for each in ways:
                    if each.answer is None:
                        continue
                    protocol = "icmp" if each.way.protocol is Protocol.ICMP else "tcp"
                    seconds, family = each.answer.latency, f"ipv{each.way.version}"
                    each_.set(seconds, found.node, path.value, protocol, family)
                    key = (
                        kind,
                        "icmp" if protocol == "icmp" else "http",
                        "primary" if family == "ipv4" else "secondary",
                    )
                    longest[key] = max(longest.get(key, 0.0), seconds)
            if found.reachable is not None:
                up.set(float(found.reachable), found.node)
        for key, seconds in longest.items():
            latency.set(seconds, *where, *key)
        values = {(*where, *key): float(count) for key, count in status.items()}
        help = "Number of nodes and their health endpoints by last observed status"
        yield self._gauge("node_health_connectivity_status", help, (*here, "type", "status"), values)
        yield self._gauge(
            "unreachable_nodes",
            "Number of nodes that cannot be reached",
            (),
            status["node", "unreachable"],
        )
        help = "Number of health endpoints that cannot be reached"
        yield self._gauge("unreachable_health_endpoints", help, (), status["endpoint", "unreachable"])
        yield from (latency, each_, up)


def _bpf_memory() -> dict[str, int]:
    """By ``maps`` and ``progs``, as the kernel says of each descriptor (``memlock``)."""
    found = {"maps": 0, "progs": 0}
    for link in pathlib.Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            kind = {"anon_inode:bpf-map": "maps", "anon_inode:bpf-prog": "progs"}.get(str(link.readlink()))
            if kind:
                info = pathlib.Path("/proc/self/fdinfo", link.name).read_text()
                found[kind] += int(info.partition("memlock:")[2].split()[0])
    return found


def worded(reason: str) -> str:
    """``POLICY_DENIED``: Policy denied."""
    return _REASONS.get(reason, reason.replace("_", " ").capitalize())


def _enforcement(directions: frozenset[Direction], prefix: str = "") -> str:
    if len(directions) == 2:
        return f"{prefix}both"
    return next((f"{prefix}{each.name.lower()}" for each in directions), "")
