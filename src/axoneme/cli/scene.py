"""Makes the connections that expectations are about, in a running sandbox.

Every pod of one end connects to every pod of the other, over each family, all at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_network
from typing import NamedTuple

from axoneme.cli import state
from axoneme.cli.failures import Failure
from axoneme.cli.kinds import KINDS
from axoneme.cli.objects import listing, work
from axoneme.cli.place import Place
from axoneme.cli.trials import Connection, Fate, Made, Outcome, Party
from axoneme.flows.flow import Flow, ObserveRequest
from axoneme.flows.render import item
from axoneme.model.policies import POLICY_KINDS
from axoneme.model.policytest import End, Expectation, Node, Outside, Pods
from axoneme.model.state import EndpointState
from axoneme.net.commands import ip
from axoneme.rpc import Client
from axoneme.sandbox import planfile
from axoneme.sandbox.client import probe_all
from axoneme.sandbox.layout import OUTSIDE, Layout
from axoneme.sandbox.plan import IPV4_PODS, IPV4_UNDERLAY, IPV6_PODS, IPV6_UNDERLAY, Plan

#: Seconds after which a connection that nobody answers counts as lost; and for the second attempt, which
#: one gets that no policy has dropped.
_TIMEOUT, _MORE_TIME = 1.0, 5.0
#: Seconds for flows to arrive at those who keep them, and for agents to hear of all pods and policies.
_FLOWS_WITHIN, _AGENTS_WITHIN = 3.0, 30.0
_LOOK = 0.05

_OWN_RANGES = (IPV4_UNDERLAY, IPV6_UNDERLAY, ip_network(IPV4_PODS[0]), ip_network(IPV6_PODS[0]))


def run(place: Place, expectations: Sequence[Expectation]) -> list[Outcome]:
    """Tries all expectations at once; `Failure` when an end names nobody, or agents do not settle."""
    scene = Scene.of(place)
    wanted = [list(scene.connections(each)) for each in expectations]
    scene.make_addresses(expectations)
    scene.settle()
    since = time.time_ns()
    connections = [each for group in wanted for each in group]
    made = scene.make(connections, since, _TIMEOUT)
    lost = [index for index, each in enumerate(made) if each.fate is Fate.LOST]
    for index, again in zip(
        lost, scene.make([connections[i] for i in lost], time.time_ns(), _MORE_TIME), strict=True
    ):
        made[index] = again
    found = iter(made)
    return [
        Outcome(expectation, tuple(next(found) for _ in group))
        for expectation, group in zip(expectations, wanted, strict=True)
    ]


class Scene(NamedTuple):
    """A sandbox with all that is in it."""

    place: Place
    layout: Layout
    plan: Plan
    endpoints: list[EndpointState]

    @classmethod
    def of(cls, place: Place) -> Scene:
        layout = place.existing
        return cls(place, layout, planfile.load(layout), work(place, state.endpoints))

    # ---- who is meant --------------------------------------------------------------------------

    def connections(self, wanted: Expectation) -> Iterator[Connection]:
        sources: Sequence[Party | None] = self._parties(wanted.source, wanted) or [None]
        targets: Sequence[Party | None] = self._parties(wanted.target, wanted) or [None]
        versions = wanted.families or tuple(4 if name == "ipv4" else 6 for name in self.plan.family.names())
        found = False
        for source in sources:
            for target in targets:
                for connection in self._between(wanted, source, target, versions):
                    found = True
                    yield connection
        if not found:
            raise Failure(f"{wanted.path}: {wanted}: there is nobody else to connect with")

    def _between(
        self, wanted: Expectation, source: Party | None, target: Party | None, versions: Iterable[int]
    ) -> Iterator[Connection]:
        """None stands for the node on which the other is."""
        source = source or self._node(target.node if target else "")
        target = target or self._node(source.node)
        if source == target:
            return
        for address in target.addresses:
            version = 6 if ":" in address else 4
            if version not in versions or (source.bind and (":" in source.bind) != (version == 6)):
                continue
            port = self._port(wanted, target)
            yield Connection(source, target, address, wanted.protocol, port)

    def _parties(self, end: End, wanted: Expectation) -> list[Party]:
        match end:
            case Pods():
                return self._pods(end, wanted)
            case Node(""):
                return []
            case Node(name):
                if name not in {node.name for node in self.plan.all_nodes()}:
                    raise Failure(
                        f"{wanted.path}: there is no {name}; the sandbox has {self.plan.nodes} nodes"
                    )
                return [self._node(name)]
            case Outside(None):
                addresses = self.plan.world_addresses()
                firsts = {":" in address: address for address in reversed(addresses)}
                one_each = tuple(firsts[six] for six in sorted(firsts))
                return [Party(str(end), OUTSIDE, self.layout.namespace(OUTSIDE), one_each)]
            case Outside(address):
                if any(address in network for network in _OWN_RANGES):
                    raise Failure(
                        f"{wanted.path}: {address} belongs to the sandbox's nodes and pods: call them by name"
                    )
                name = str(address)
                return [Party(name, OUTSIDE, self.layout.namespace(OUTSIDE), (name,), bind=name)]

    def _pods(self, end: Pods, wanted: Expectation) -> list[Party]:
        inside = [each for each in self.endpoints if each.namespace == end.namespace]
        found = [each for each in inside if each.pod == end.name] or [
            each for each in inside if each.workload == end.name
        ]
        if not found:
            names = sorted({each.workload or each.pod for each in inside})
            known = (
                f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else "there is none"
            )
            raise Failure(
                f"{wanted.path}: {end} is no pod and no workload; of namespace {end.namespace}, {known}"
            )
        return [
            Party(
                f"{each.namespace}/{each.pod}",
                each.node,
                self.layout.pod_namespace(each.uid),
                tuple(each.addresses),
                each,
            )
            for each in found
        ]

    def _node(self, name: str) -> Party:
        found = next((node for node in self.plan.all_nodes() if node.name == name), None)
        if found is None:
            raise Failure("host is the node of the pod at the other end: that end must be a pod")
        return Party(name, name, self.layout.namespace(name), found.addresses())

    def _port(self, wanted: Expectation, target: Party) -> int:
        if isinstance(wanted.port, int):
            return wanted.port
        named = target.endpoint.named_ports if target.endpoint else []
        for port in named:
            if (port.name, port.protocol) == (wanted.port, wanted.protocol.name):
                return port.port
        known = ", ".join(f"{port.name}/{port.protocol}" for port in named) or "none"
        raise Failure(
            f"{wanted.path}: {target.name} has no port {wanted.service}; the named ones are {known}"
        )

    # ---- making ready --------------------------------------------------------------------------

    def make_addresses(self, expectations: Iterable[Expectation]) -> None:
        """Gives the outside the addresses that the expectations name."""
        ends = [end for each in expectations for end in (each.source, each.target)]
        named = {str(end.address) for end in ends if isinstance(end, Outside) and end.address is not None}
        missing = sorted(named - set(self.plan.world_addresses()))
        if missing:
            lengths = {address: 128 if ":" in address else 32 for address in missing}
            ip(
                [f"addr replace {each}/{bits} dev lo" for each, bits in lengths.items()],
                self.layout.namespace(OUTSIDE),
            )

    def settle(self) -> None:
        """Waits until every agent knows all policies and all pods."""
        policies = sum(
            len(work(self.place, partial(listing, kind=kind, namespace=None)))
            for kind in KINDS
            if kind.name in POLICY_KINDS
        )
        until = time.monotonic() + _AGENTS_WITHIN
        for node in self.plan.all_nodes():
            agent = Client(self.layout.node(node.name).agent_socket)
            while waits := self._unknown(agent, node.name, policies):
                if time.monotonic() > until:
                    raise Failure(f"the agent of {node.name} has not heard of {waits} in time")
                time.sleep(_LOOK)

    def _unknown(self, agent: Client, node: str, policies: int) -> str:
        """What the agent has yet to hear of; empty when nothing."""
        if agent.call("status")["policies"] < policies:
            return "all policies"
        known = {(line["prefix"].partition("/")[0], line["identity"]) for line in agent.call("address.list")}
        for each in self.endpoints:
            if each.node != node and not {(address, each.identity) for address in each.addresses} <= known:
                return f"pod {each.namespace}/{each.pod}"
        return ""

    # ---- connections ---------------------------------------------------------------------------

    def make(self, connections: Sequence[Connection], since: int, timeout: float) -> list[Made]:
        """Makes them all, and waits for what the nodes have to say about them."""
        if not connections:
            return []
        results = asyncio.run(probe_all(each.probe(timeout) for each in connections))
        until = time.monotonic() + _FLOWS_WITHIN
        while True:
            seen = self._flows(since)
            made = [
                Made(
                    each,
                    result,
                    tuple(f for f in seen[result.local_address, each.address] if each.made(f, result)),
                )
                for each, result in zip(connections, results, strict=True)
            ]
            if all(each.complete for each in made) or time.monotonic() > until:
                return made
            time.sleep(_LOOK)

    def _flows(self, since: int) -> dict[tuple[str, str], list[Flow]]:
        """Of all nodes, by source and destination address."""
        found: defaultdict[tuple[str, str], list[Flow]] = defaultdict(list)
        for node in self.plan.all_nodes():
            client = Client(self.layout.node(node.name).flows_socket)
            for each in client.stream("flows.observe", ObserveRequest(since=since)):
                if (flow := item(each).flow) is not None:
                    found[flow.IP.source, flow.IP.destination].append(flow)
        return found
