"""Behind the agent's back links, routes and the overlay device go, addresses change: it mends, or follows."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from alone import Alone, alone

from axoneme.datapath.plane import packed
from axoneme.net import pods, proxying
from axoneme.net.commands import ip
from axoneme.net.node import OVERLAY

NODE2 = {
    "name": "node2",
    "addresses": ["172.31.0.2", "fd00:a0::2"],
    "internal_addresses": ["172.31.0.2", "fd00:a0::2"],
    "pod_cidrs": ["10.244.200.0/24", "fd00:10:244:200::/64"],
}


@pytest.fixture(scope="module")
def one() -> Iterator[Alone]:
    with alone() as made:
        made.node.write({"state/nodes/node2": NODE2})
        made.node.wait(lambda: len(ranges(made)) == 2, "routes to node2", lambda: ranges(made))
        yield made


def ranges(one: Alone) -> set[str]:
    from two_nodes import inside

    from axoneme.net import node

    with inside(one.node.namespace):
        return {str(prefix) for prefix in node.routed()}


def test_the_link_of_a_pod(one: Alone, checker: Path) -> None:
    host = pods.host_interface("b", "eth0")
    before = one.links()[host]
    ip([f"link del {host}"], one.node.namespace)
    one.node.wait(lambda: one.links().get(host, before) != before, "a new link", one.links)
    one.node.wait(lambda: one.disagreements() == [], "all agree", one.disagreements)
    with one.traffic(checker, "a pod's link deleted and made anew") as report:
        pass
    assert report.clean(), str(report)


@pytest.mark.slow
def test_the_route_to_a_pod(one: Alone, checker: Path) -> None:
    """Pods do not need it for each other, only the node does."""
    gone = one.places["b"].addresses[0]
    ip([f"route del {gone}/32"], one.node.namespace)
    one.node.wait(lambda: gone in {to for to, _ in one.routes()}, "the route", one.routes)
    with one.traffic(checker, "a route to a pod deleted and made anew") as report:
        pass
    assert report.clean(), str(report)


def test_a_route_to_another_node(one: Alone) -> None:
    before = ranges(one)
    ip([f"route del {NODE2['pod_cidrs'][0]}", f"route del {NODE2['pod_cidrs'][1]}"], one.node.namespace)
    one.node.wait(lambda: ranges(one) == before, "the routes", lambda: ranges(one))


def test_the_overlay_device(one: Alone, checker: Path) -> None:
    before, routes = one.overlay(), ranges(one)
    with one.traffic(checker, "the overlay device deleted and made anew") as report:
        ip([f"link del {OVERLAY}"], one.node.namespace)
        one.node.wait(lambda: ranges(one) == routes, "the device and its routes", lambda: ranges(one))
    assert report.clean(), str(report)
    after = one.overlay()
    for name in ("ifindex", "address", "mtu", "flags"):
        assert after[name] == before[name]
    assert after["linkinfo"]["info_data"]["external"]
    assert one.programs(OVERLAY) == 2


def test_an_address_of_the_node(one: Alone) -> None:
    """One that comes is told to the others and known to the kernel as the node's, until it goes."""
    key = packed(ip_address("172.31.0.77"))

    def known() -> tuple[bool, bool]:
        told = one.store()["state/nodes/node1"]["addresses"]
        return "172.31.0.77" in told, key in {each[4:20] for each in one.table("addresses")}

    assert known() == (False, False)
    ip(["addr add 172.31.0.77/24 dev eth0"], one.node.namespace)
    one.node.wait(lambda: known() == (True, True), "the new address", known)
    ip(["addr del 172.31.0.77/24 dev eth0"], one.node.namespace)
    one.node.wait(lambda: known() == (False, False), "the old ones", known)


def test_the_way_to_proxies(one: Alone) -> None:
    def missing() -> list[str]:
        from two_nodes import inside

        with inside(one.node.namespace):
            return proxying.missing((4, 6))

    assert missing() == []
    ip(["rule flush", "route flush table 1786"], one.node.namespace, force=True)
    ip(["rule add pref 32766 lookup main"], one.node.namespace)
    assert missing()
    one.node.wait(lambda: missing() == [], "the rules and routes", missing)
