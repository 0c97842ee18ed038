"""The shapes that a sandbox comes in: routing, families, several at once; and the world outside."""

from __future__ import annotations

import pytest
from runtime import Live, addresses, live
from test_agent_restart import PODS

from axoneme.sandbox.client import Probe, Protocol, Verdict
from axoneme.sandbox.plan import Family, Routing

WORLD_POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: one-partner}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.20/32]}]
  - toCIDR: ["2001:db8:a::10/128"]
"""


def meet(runtime: Live) -> dict[tuple[str, str], Verdict]:
    """What becomes of connections and datagrams from everybody to everybody."""
    pods = runtime.pods()
    names, wishes = [], []
    for source in pods:
        for target in pods:
            for address in addresses(target):
                for protocol, port in ((Protocol.TCP, 7000), (Protocol.ICMP, 0)):
                    names.append((source["metadata"]["name"], f"{protocol.value}/{address}"))
                    wishes.append(
                        Probe(runtime.namespace(source), address, port, protocol, 3.0, b"x" * 900 + b"\n")
                    )
    return dict(zip(names, (each.verdict for each in runtime.probe_all(wishes)), strict=True))


@pytest.mark.parametrize("routing", Routing)
@pytest.mark.parametrize("family", Family)
def test_everybody_meets_everybody(routing: Routing, family: Family) -> None:
    with live(f"{routing.value}-{family.value}", PODS, routing=routing, family=family) as runtime:
        assert {pod["spec"]["nodeName"] for pod in runtime.pods()} == {"node1", "node2"}
        found = meet(runtime)
        assert found, "pods have addresses"
        assert set(found.values()) == {Verdict.CONNECTED}, found
        world = runtime.plan.world_addresses()
        seen = [runtime.probe(runtime.namespace("client"), address, 80) for address in world]
        assert [each.verdict for each in seen] == [Verdict.CONNECTED] * len(world)
        nodes = {address for node in runtime.plan.all_nodes() for address in node.addresses()}
        assert {each.answer.peer.address for each in seen if each.answer} <= nodes, "masqueraded"


def test_policies_about_the_world() -> None:
    with live("world", PODS) as runtime:
        runtime.apply(WORLD_POLICY)
        runtime.policies_loaded(1)
        allowed = {"203.0.113.10", "2001:db8:a::10"}
        for address in runtime.plan.world_addresses():
            found = runtime.probe(runtime.namespace("client"), address, 443, timeout=1)
            assert found.verdict is (Verdict.CONNECTED if address in allowed else Verdict.TIMEOUT), address
            other = runtime.probe(runtime.namespace("other"), address, 443)
            assert other.verdict is Verdict.CONNECTED


def test_two_sandboxes_side_by_side() -> None:
    with live("left", PODS) as left, live("right", PODS) as right:
        left.apply(WORLD_POLICY)
        left.policies_loaded(1)
        right.policies_loaded(0)
        for runtime, verdict in ((left, Verdict.TIMEOUT), (right, Verdict.CONNECTED)):
            found = runtime.probe(runtime.namespace("client"), "198.51.100.10", 80, timeout=1)
            assert found.verdict is verdict
            inside = addresses(runtime.pods(app="server")[0])[0]
            assert runtime.probe(runtime.namespace("other"), inside, 7000).verdict is Verdict.CONNECTED
