"""The network below the nodes: one shared link, its router, and a world behind it.

    node1 eth0 ──┐
    node2 eth0 ──┼── br0 (the nodes' default gateway) ── lo (addresses of the outside)
      …          │
                 └── all of this in the namespace ``outside``

Made with ``ip -batch``: one short-lived process for `outside` and one per node build everything in some
milliseconds, where loading a netlink library takes longer than the whole job.
"""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.net import netns
from axoneme.net.commands import ip
from axoneme.sandbox.layout import OUTSIDE, Layout
from axoneme.sandbox.plan import IPV4_ROUTER, IPV4_UNDERLAY, IPV6_ROUTER, IPV6_UNDERLAY, NodePlan, Plan

UPLINK = "eth0"


def build(plan: Plan, layout: Layout) -> None:
    """Makes `outside`, the nodes' namespaces and the links between them; nothing of it may exist yet."""
    for name in (OUTSIDE, *(node.name for node in plan.all_nodes())):
        netns.make(layout.namespace(name), netns.ROUTER_SYSCTLS)
    ip(_outside_commands(plan, layout), layout.namespace(OUTSIDE))
    for node in plan.all_nodes():
        ip(_node_commands(node), layout.namespace(node.name))


def complete(plan: Plan, layout: Layout) -> bool:
    """Whether all namespaces are there (a supervisor that comes back finds them)."""
    names = (OUTSIDE, *(node.name for node in plan.all_nodes()))
    return all(netns.held(layout.namespace(name)) for name in names)


def route_pods(layout: Layout, ranges: Iterable[tuple[str, str]]) -> None:
    """Tells the router which node has which pod range, as a network with BGP would know it.

    So the world can address pods, and policies about the world's ingress have something to meet.
    `ranges`: pairs of a range and the node's underlay address.
    """
    ip([f"route replace {pods} via {node}" for pods, node in ranges], layout.namespace(OUTSIDE))


def _outside_commands(plan: Plan, layout: Layout) -> list[str]:
    commands = ["link add br0 address 02:61:78:6f:00:fe type bridge mcast_snooping 0"]
    if plan.family.ipv4:
        commands.append(f"addr add {IPV4_ROUTER}/{IPV4_UNDERLAY.prefixlen} dev br0")
    if plan.family.ipv6:
        commands.append(f"addr add {IPV6_ROUTER}/{IPV6_UNDERLAY.prefixlen} dev br0 nodad")
    for address in plan.world_addresses():
        commands.append(f"addr add {address} dev lo")
    for node in plan.all_nodes():
        namespace = layout.namespace(node.name)
        commands.append(f"link add {node.name} type veth peer name {UPLINK} netns {namespace}")
        commands.append(f"link set {node.name} master br0 up")
    return [*commands, "link set br0 up"]


def _node_commands(node: NodePlan) -> list[str]:
    commands = [f"link set {UPLINK} up"]
    if node.ipv4 is not None:
        commands += [f"addr add {node.ipv4} dev {UPLINK}", f"route add default via {IPV4_ROUTER}"]
    if node.ipv6 is not None:
        commands += [f"addr add {node.ipv6} dev {UPLINK} nodad", f"route add default via {IPV6_ROUTER}"]
    return commands
