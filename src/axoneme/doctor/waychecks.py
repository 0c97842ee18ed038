"""Checks of what lies between this node and the others: who they are, and every hop of the way to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from itertools import combinations
from typing import Final

from axoneme.agent.healthendpoint import LINK as HEALTH_LINK
from axoneme.doctor.facts import Facts, Route, within
from axoneme.doctor.findings import Finding, Severity
from axoneme.health.pathmtu import PathMtu
from axoneme.health.ways import Measurement, Path, Protocol
from axoneme.net.node import OVERHEAD, OVERLAY, PROTOCOL

ERROR, WARNING = Severity.ERROR, Severity.WARNING
#: Seconds by which two nodes' clocks may differ.
_SKEW: Final = 1.0


def names(facts: Facts) -> Iterator[Finding]:
    """Whether what the shared state says of this node's name is this node."""
    here = {address for device in facts.devices.values() for address in device.addresses}
    for node in facts.nodes:
        strange = [address for address in node.internal_addresses if address not in here]
        if node.name == facts.config.node and here and strange:
            yield Finding(
                severity=ERROR,
                hop="shared state",
                what=f"another machine calls itself {node.name}, or this one's addresses have changed",
                evidence=(
                    f"state/nodes/{node.name} says {', '.join(node.internal_addresses)}",
                    f"this machine has {', '.join(sorted(here))}",
                ),
                remedy="give every machine a node name of its own and restart both agents; with a changed "
                "address a restart of this one is enough",
            )


def conflicts(facts: Facts) -> Iterator[Finding]:
    """Addresses and ranges that two nodes say are theirs."""
    for one, other in combinations(facts.nodes, 2):
        if facts.config.node not in (one.name, other.name):
            continue  # for their own doctors to tell
        peer = other.name if one.name == facts.config.node else one.name
        shared = sorted({*one.internal_addresses} & {*other.internal_addresses})
        theirs = list(map(ip_network, other.pod_cidrs))
        shared += [text for text in one.pod_cidrs if any(ip_network(text).overlaps(r) for r in theirs)]
        if shared:
            yield Finding(
                severity=ERROR,
                hop=f"addresses of {one.name} and {other.name}",
                what=f"both say that {', '.join(shared)} is theirs",
                evidence=(
                    f"state/nodes/{one.name}: {', '.join((*one.internal_addresses, *one.pod_cidrs))}",
                    f"state/nodes/{other.name}: {', '.join((*other.internal_addresses, *other.pod_cidrs))}",
                ),
                remedy="a node that is gone: delete its key; else give the machines addresses of their own",
                peer=peer,
            )
    for node, each in _failing(facts):
        if "answers there" in each.reason:
            yield Finding(
                severity=ERROR,
                hop=f"address {each.way.address}",
                what=f"it is not only {node}'s",
                evidence=(f"{each.way}: {each.reason}",),
                remedy="give the machines addresses of their own",
                peer=node,
            )


def watch(facts: Facts) -> Iterator[Finding]:
    """Whether the agent knows what the shared state says."""
    if facts.agent is None or facts.agent.phase != "ready":
        return
    heard = {node.node for node in facts.health.nodes} if facts.health else None
    missing = sorted({node.name for node in facts.nodes} - heard) if heard is not None else []
    behind = facts.policies - facts.agent.policies - len(facts.agent.problems)
    evidence = []
    if missing:
        evidence.append(f"nodes that it has not heard of: {', '.join(missing)}")
    if behind > 0:
        evidence.append(f"{facts.policies} objects with policies are stored, it knows {facts.agent.policies}")
    if evidence:
        yield Finding(
            severity=ERROR,
            hop="watch of the shared state",
            what="the agent lags behind it",
            evidence=tuple(evidence),
            remedy="restart the agent, which lists everything anew; its log says why the watch stands still",
        )


def routes(facts: Facts) -> Iterator[Finding]:
    """The way that packets to other nodes' pods take out of here, by the kernel's table."""
    versions = {4 if family == "ipv4" else 6 for family in facts.config.families}
    for node in facts.others:
        vias = {ip_address(address).version: address for address in node.internal_addresses}
        for pods in map(ip_network, node.pod_cidrs):
            if pods.version not in versions:
                continue
            if facts.overlay:
                wanted = Route(pods, OVERLAY, protocol=PROTOCOL)
            elif pods.version in vias:
                wanted = Route(pods, "", vias[pods.version], PROTOCOL)
            else:
                continue
            yield from _route(facts.routes, wanted, node.name)


def _route(routes: Iterable[Route], wanted: Route, peer: str) -> Iterator[Finding]:
    same = [each for each in routes if each.destination == wanted.destination]
    device = f"dev {wanted.device}" if wanted.device else f"via {wanted.via}"
    if not any(_agrees(each, wanted) for each in same):
        around = [each for each in routes if within(wanted.destination, each.destination)]
        yield Finding(
            severity=ERROR,
            hop=f"route to {peer}'s pods",
            what=f"{wanted.destination} does not lead {device}",
            evidence=tuple(map(str, around)) or (f"no route leads to {wanted.destination}",),
            remedy=f"restart the agent, or: ip route replace {wanted.destination} {device} proto {PROTOCOL}",
            peer=peer,
        )


def _agrees(route: Route, wanted: Route) -> bool:
    return route.device == wanted.device if wanted.device else route.via == wanted.via


def underlay(facts: Facts) -> Iterator[Finding]:
    """Plain packets between the nodes' own addresses."""
    for node, failed in _by_node(facts, Path.UNDERLAY).items():
        pings = [each for each in failed if each.way.protocol is Protocol.ICMP]
        if pings:
            addresses = {each.way.address for each in pings}
            unresolved = [a for a in facts.unresolved if a in addresses]
            yield Finding(
                severity=ERROR,
                hop=f"underlay between {facts.config.node} and {node}",
                what=f"{node} is not reached at {', '.join(sorted(addresses))}",
                evidence=(
                    *(f"{each.way}: {each.reason}" for each in failed),
                    *(f"nobody answers for {a} on the link (neighbour table)" for a in unresolved),
                ),
                remedy=f"look at {node}: is it up, is its link? Then at routes and firewalls between the two",
                peer=node,
            )


def agents(facts: Facts) -> Iterator[Finding]:
    """A node that is there, with an agent that is not."""
    for node, failed in _by_node(facts, Path.UNDERLAY).items():
        if all(each.way.protocol is Protocol.TCP for each in failed):
            yield Finding(
                severity=ERROR,
                hop=f"agent of {node}",
                what="the node answers, its agent does not",
                evidence=tuple(f"{each.way}: {each.reason}" for each in failed),
                remedy=f"start the agent on {node}; refused means that none listens, no answer that it hangs "
                "or a firewall drops TCP 4240",
                peer=node,
            )


def path_mtu(facts: Facts) -> Iterator[Finding]:
    """What is lost because it is large."""
    found: dict[tuple[str, Path], list[PathMtu]] = {}
    for each in facts.mtus:
        if each.carries < each.expected:
            found.setdefault((each.node, each.way.path), []).append(each)
    for (node, path), ways in found.items():
        worst = min(ways, key=lambda each: each.carries)
        overhead = OVERHEAD[worst.way.version] if facts.overlay else 0
        where = "underlay" if path is Path.UNDERLAY else "pod network"
        yield Finding(
            severity=ERROR,
            hop=f"path MTU between {facts.config.node} and {node}",
            what=f"the {where} carries {worst.carries} bytes, of {worst.expected} that are sent",
            evidence=tuple(
                f"{each.way}: {each.carries} bytes pass unfragmented, {each.carries + 1} are "
                + ("refused by this node's own device" if each.device else "lost")
                for each in ways
            ),
            remedy=f"raise the MTU on the way to {worst.expected}, or set mtu: {worst.carries} on all nodes"
            + (f" (pods then send {worst.carries - overhead})" if overhead else ""),
            peer=node,
        )


def pod_network(facts: Facts) -> Iterator[Finding]:
    """Packets from this node to the health endpoint of another, and back."""
    for node, failed in _by_node(facts, Path.PODS).items():
        pings = [each for each in failed if each.way.protocol is Protocol.ICMP]
        evidence = tuple(f"{each.way}: {each.reason}" for each in failed)
        if node == facts.config.node:
            yield Finding(
                severity=ERROR,
                hop="health endpoint",
                what="this node does not reach its own",
                evidence=evidence,
                remedy="restart the agent, which plugs it in anew",
            )
        elif pings and facts.overlay:
            yield Finding(
                severity=ERROR,
                hop=f"VXLAN between {facts.config.node} and {node}",
                what=f"pods of {node} are not reached, though the node is: "
                f"UDP {facts.config.overlay_port} is lost on the way",
                evidence=(*evidence, *_counted(facts)),
                remedy=f"let UDP {facts.config.overlay_port} pass in both directions, in every firewall and "
                "security group between the two",
                peer=node,
            )
        elif pings:
            yield Finding(
                severity=ERROR,
                hop=f"pods' packets between {facts.config.node} and {node}",
                what=f"pods of {node} are not reached, though the node is",
                evidence=evidence,
                remedy="let the pods' addresses pass between the two: source checks of a cloud or a switch "
                "drop them; nodes that share no link need routing: overlay",
                peer=node,
            )
        else:
            yield Finding(
                severity=WARNING,
                hop=f"policy of {node}'s health endpoint, or its agent",
                what="pings pass through the pod network, TCP 4240 does not",
                evidence=evidence,
                remedy=f"axo observe --verdict DROPPED on {node} names the policy; see docs/health.md",
                peer=node,
            )


def _counted(facts: Facts) -> tuple[str, ...]:
    before, after = facts.devices_before.get(OVERLAY), facts.devices.get(OVERLAY)
    if before is None or after is None:
        return ()
    return (
        f"while probing {OVERLAY} here has sent {after.sent - before.sent} packets and received "
        f"{after.received - before.received}",
    )


def clocks(facts: Facts) -> Iterator[Finding]:
    for node in facts.health.nodes if facts.health else ():
        skews = [each.answer.skew for each in node.measurements if each.answer and each.answer.node]
        if skews and min(map(abs, skews)) > _SKEW:
            yield Finding(
                severity=WARNING,
                hop=f"clock of {node.node}",
                what=f"it differs from this node's by {skews[0]:+.1f} s, so their flows are out of order",
                evidence=tuple(f"by {skew:+.3f} s when asked by TCP" for skew in skews),
                remedy="run NTP on all nodes",
                peer=node.node,
            )


def answering(facts: Facts) -> Iterator[Finding]:
    """What keeps others from getting answers from this node, however well the ways to it are."""
    for pod in facts.pods:
        if pod.name == HEALTH_LINK and pod.faults:
            yield Finding(
                severity=ERROR,
                hop="health endpoint",
                what="it is not plugged in as it should be",
                evidence=pod.faults,
                remedy="restart the agent, which mends it",
            )
    for problem in facts.health.problems if facts.health else ():
        yield Finding(
            severity=ERROR,
            hop="health endpoint",
            what="others do not get answers from this node",
            evidence=(problem,),
            remedy="free the port, or give what is missing, and restart the agent",
        )


def _failing(facts: Facts) -> Iterator[tuple[str, Measurement]]:
    for node in facts.health.nodes if facts.health else ():
        for each in node.measurements:
            if each.known and not each.works:
                yield node.node, each


def _by_node(facts: Facts, path: Path) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for node, each in _failing(facts):
        if each.way.path is path and "answers there" not in each.reason:
            found.setdefault(node, []).append(each)
    return found
