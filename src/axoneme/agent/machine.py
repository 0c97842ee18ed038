"""The machine that a node is: its own addresses, its uplinks and overlay device, its ways to the others."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np

from axoneme.agent.config import AgentConfig
from axoneme.datapath import sockets
from axoneme.datapath.plane import Constants, Datapath, Sizes, packed
from axoneme.datapath.xdp import Acceleration
from axoneme.identity.addressbook import Address, Network
from axoneme.identity.numbers import Reserved
from axoneme.model.state import NodeState
from axoneme.net import cgroup2, netns, node, pods, proxying
from axoneme.services.facts import NodeFacts
from axoneme.sources.config import ConfigError

log = logging.getLogger(__name__)

#: The key of ``uplinks`` under which stands as whom the node answers.
_NODE_ITSELF = 0


class Machine:
    """This node's part of the network below the pods. Made once, by looking at what is there."""

    def __init__(self, config: AgentConfig) -> None:
        """`ConfigError` and `NetworkError` say what the configuration names and the machine lacks."""
        node.prepare()
        self._config = config
        self._versions = {4 if family == "ipv4" else 6 for family in config.families}
        proxying.direct(self._versions)
        self._found = node.addresses()
        for name in config.uplinks:
            if name not in self._found:
                raise ConfigError(
                    f"uplinks: there is no interface {name}; there are: {', '.join(self._found)}"
                )
        #: Whose processes' calls are translated where they are made.
        self.group = Path(config.cgroup) if config.cgroup else cgroup2.hierarchy()
        if self.group is None:
            log.warning("no cgroup v2 hierarchy is mounted: only pods can call services, packet by packet")
        elif not (self.group / "cgroup.procs").exists():
            raise ConfigError(
                f"cgroup: {self.group} is no control group (cgroup v2); name one, or leave it out for all "
                "processes of the machine"
            )
        self.underlay = [ip_address(text) for text in config.underlay_addresses] or self._first_of_uplinks()
        if not self.underlay:
            raise ConfigError(
                f"uplinks: {', '.join(config.uplinks)} has no global address; give it one, or name "
                "underlay_addresses"
            )
        self.overlay_version = self.underlay[0].version
        self.mtu = config.mtu or node.link_mtu(config.uplinks[0])
        self.overlay_ifindex = 0
        if config.routing == "overlay":
            self.overlay_ifindex = node.overlay_device(config.overlay_port, self.route_mtu)
        else:
            node.remove_overlay_device()
        self._routes: dict[str, set[node.NodeRoute]] = {}
        #: Pod ranges that an earlier agent routed, and nobody has spoken for yet.
        self._inherited = node.routed()

    def facts(self) -> NodeFacts:
        """What the balancing of services depends on."""
        own = {each: None for addresses in self._found.values() for each in addresses}
        return NodeFacts(
            self._config.node,
            addresses=tuple(own),
            versions=tuple(sorted(self._versions)),
        )

    @property
    def route_mtu(self) -> int:
        """The largest packet that a pod may send to another node."""
        overhead = node.OVERHEAD[self.overlay_version] if self._config.routing == "overlay" else 0
        return self.mtu - overhead

    def constants(self) -> Constants:
        both = len(self._versions) == 2
        return Constants(
            overlay_ifindex=self.overlay_ifindex,
            overlay_port=self._config.overlay_port,
            underlay_ipv6=int(self.overlay_version == 6),
            world_ipv4=Reserved.WORLD_IPV4 if both else Reserved.WORLD,
            world_ipv6=Reserved.WORLD_IPV6 if both else Reserved.WORLD,
            masquerade=int(self._config.masquerade),
            answer_denied=int(self._config.denied == "answer"),
            flow_quota=self._config.flow_quota,
            node_namespace=netns.cookie(),
        )

    def sizes(self) -> Sizes:
        return Sizes(self._config.tables.sizes())

    def attach(self, plane: Datapath) -> None:
        """Programs onto the uplinks, the overlay device and sockets, and what each uplink masquerades as."""
        self._name_uplinks(plane)
        uplinks = {name: socket.if_nametoindex(name) for name in self._config.uplinks}
        for name, ifindex in uplinks.items():
            plane.attach_uplink(name, ifindex)
        plane.accelerate(uplinks, Acceleration(self._config.load_balancing.acceleration))
        if self.overlay_ifindex:
            plane.attach_overlay(node.OVERLAY, self.overlay_ifindex)
        if self.group is not None:
            points = sockets.POINTS if self._config.tcp_health else sockets.CALLS
            plane.attach_sockets(self.group, points)

    def look_again(self, plane: Datapath) -> bool:
        """Whether the node has other addresses than when it was last looked at; what it masquerades as
        follows, and connections are decided anew. Of uplinks that are gone, what was known stays."""
        found = node.addresses()
        if _held(found) == _held(self._found) or not found.keys() >= set(self._config.uplinks):
            return False
        self._found = found
        if not self._config.underlay_addresses:
            self.underlay = self._first_of_uplinks() or self.underlay
        self._name_uplinks(plane)
        plane.raise_all()
        return True

    def forget_addresses(self) -> None:
        """The next look finds others."""
        self._found = {name: [] for name in self._found}

    def _name_uplinks(self, plane: Datapath) -> None:
        node_value = np.zeros((), plane.uplinks.value)
        for name in reversed(self._config.uplinks):
            ifindex = socket.if_nametoindex(name)
            value = np.zeros((), plane.uplinks.value)
            for address in reversed(self._found[name]):  # the first of each family stands
                if address.version in self._versions:
                    for each in (value, node_value):
                        each[f"ipv{address.version}"] = np.frombuffer(packed(address), "u1")
            plane.uplinks.put(ifindex, value)
        plane.uplinks.put(_NODE_ITSELF, node_value)

    def addresses_of(self, name: str) -> list[Address]:
        """Of an interface, when it was last looked at."""
        return list(self._found.get(name, ()))

    def state(self, ranges: Iterable[Network], health: Iterable[str] = ()) -> NodeState:
        """What the other nodes are told."""
        everywhere = [a for name in self._found for a in self._found[name] if a.version in self._versions]
        return NodeState(
            name=self._config.node,
            addresses=[str(a) for a in dict.fromkeys([*self.underlay, *everywhere])],
            internal_addresses=[str(a) for a in self.underlay],
            pod_cidrs=[str(prefix) for prefix in ranges],
            health_addresses=list(health),
        )

    def node_changed(self, name: str, state: NodeState | None) -> None:
        """Another node tells where it is, or is gone; the routes to its pods follow."""
        if name == self._config.node:
            return
        after = set(self._routes_to(state)) if state is not None else set()
        before = self._routes.pop(name, set())
        if after:
            self._routes[name] = after
        self._inherited -= {route.pods for route in after}
        if after != before:
            node.change_routes({route.pods for route in before}, after - before)

    def mend(self, plane: Datapath) -> list[str]:
        """Makes anew what others have deleted: the overlay device, routes, the way to proxies; what that was.

        The device gets its former number, which the programs know. `NetworkError` where that is taken.
        """
        found = []
        if self.overlay_ifindex and not pods.existing([node.OVERLAY]):
            node.overlay_device(self._config.overlay_port, self.route_mtu, self.overlay_ifindex)
            plane.attach_overlay(node.OVERLAY, self.overlay_ifindex)
            found.append(f"the device {node.OVERLAY}")
        found += proxying.direct(self._versions)
        there = node.routed()
        wanted = {route for routes in self._routes.values() for route in routes}
        if missing := {route for route in wanted if route.pods not in there}:
            node.change_routes(set(), missing)
            found += sorted(f"the route to {route.pods}" for route in missing)
        return found

    def drop_inherited_routes(self) -> None:
        """Once every node has been heard: routes of an earlier agent that lead nowhere now."""
        node.change_routes(self._inherited, set())
        self._inherited = set()

    def _routes_to(self, state: NodeState) -> Iterable[node.NodeRoute]:
        theirs = {address.version: address for address in map(ip_address, state.internal_addresses)}
        ours = {address.version: address for address in reversed(self.underlay)}
        for text in state.pod_cidrs:
            pods = ip_network(text)
            if pods.version not in self._versions:
                continue
            if self._config.routing == "overlay":
                yield node.NodeRoute(pods, None, ours.get(pods.version), self.route_mtu)
            elif pods.version in theirs:
                yield node.NodeRoute(pods, theirs[pods.version], None, self.mtu)

    def _first_of_uplinks(self) -> list[Address]:
        """The first address of each family, IPv4 first."""
        first: dict[int, Address] = {}
        for name in self._config.uplinks:
            for address in self._found[name]:
                if address.version in self._versions:
                    first.setdefault(address.version, address)
        return [first[version] for version in sorted(first)]


def _held(found: Mapping[str, list[Address]]) -> dict[str, list[Address]]:
    """Without interfaces that have no address: those of ours come and go."""
    return {name: addresses for name, addresses in found.items() if addresses}
