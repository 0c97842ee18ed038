"""Cases of the admin network policies' conformance tests, with real packets between two nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from runtime import Live, addresses, live

from axoneme.sandbox.client import Probe, Protocol, Verdict
from oracle.adminpolicies import CASES, NAMESPACES, PORTS, Case, Object, Try

#: Between them every tier decides, and passes on.
PLAYED = (
    "an admin policy alone",
    "a pass with more priority than a deny",
    "an admin's pass to a NetworkPolicy, which the baseline cannot change",
    "a pass inside an allow, where a NetworkPolicy isolates",
    "a baseline alone",
)
_PACKETS = {"TCP": Protocol.TCP, "UDP": Protocol.UDP}


def workloads() -> list[Object]:
    ports = [
        {"containerPort": number, "protocol": protocol} for protocol in _PACKETS for number in PORTS[protocol]
    ]
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", "namespace": namespace, "labels": {"app": "head"}},
            "spec": {"containers": [{"name": "echo", "image": "echo", "ports": ports}]},
        }
        for namespace in NAMESPACES
    ]
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]
    return [*spaces, *pods]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Live]:
    with live("admins", yaml.safe_dump_all(workloads())) as runtime:
        yield runtime


def exchange(cluster: Live, policies: tuple[Object, ...]) -> None:
    """Puts these in place of all that are there."""
    wanted = {(each["kind"], each["metadata"]["name"]) for each in policies}
    for kind in ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "NetworkPolicy"):
        for each in cluster.every(kind):
            if (kind, each["metadata"]["name"]) not in wanted:
                cluster.delete(kind, each["metadata"]["name"], each["metadata"].get("namespace", ""))
    cluster.apply(yaml.safe_dump_all(policies))
    cluster.policies_loaded(len(policies))


def play(cluster: Live, tries: list[Try]) -> dict[str, bool]:
    """Which of them get through, all at once, over both families."""
    pods = {namespace: cluster.pod("pod", namespace) for namespace in NAMESPACES}
    probes = {
        f"{each} by {address}": Probe(
            cluster.namespace(pods[each.source]), address, each.port, _PACKETS[each.protocol], 1.5, b"hello\n"
        )
        for each in tries
        for address in addresses(pods[each.destination])
    }
    results = cluster.probe_all(list(probes.values()))
    return {name: result.verdict is Verdict.CONNECTED for name, result in zip(probes, results, strict=True)}


@pytest.mark.parametrize("name", PLAYED)
def test_packets_go_where_the_tiers_let_them(cluster: Live, name: str) -> None:
    case: Case = next(case for case in CASES if case.name == name)
    tries = [each for each in case.tries if each.protocol in _PACKETS]
    exchange(cluster, case.policies)

    def wanted(found: dict[str, bool]) -> dict[str, bool]:
        return {key: each.allowed for each in tries for key in found if key.startswith(f"{each} by ")}

    def all_as_wanted() -> bool | None:
        found = play(cluster, tries)
        return found == wanted(found) or None

    assert len({pod["spec"]["nodeName"] for pod in cluster.every("Pod")}) == 2
    cluster.wait(all_as_wanted, f"{name}: {play(cluster, tries)}")


def test_flows_name_the_tier_that_decided(cluster: Live) -> None:
    case = next(case for case in CASES if case.name == "an admin policy alone")
    exchange(cluster, case.policies)
    denied = Try("north", "west", "TCP", 8080, False)
    cluster.wait(lambda: not any(play(cluster, [denied]).values()) or None, "it is denied")

    def by_the_admin() -> bool | None:
        wanted = {"verdict": ["DROPPED"], "from_pod": ["north/pod"], "to_pod": ["west/pod"]}
        flows = cluster.flows(filters=[wanted])
        return any(named(flow) == [("AdminNetworkPolicy", "rules")] for flow in flows) or None

    def named(flow: dict[str, Any]) -> list[tuple[str, str]]:
        return [(each["kind"], each["name"]) for each in flow.get("egress_denied_by", ())]

    cluster.wait(by_the_admin, "its drops are seen")
