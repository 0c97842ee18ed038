"""A real application of 12 workloads with its NetworkPolicies: each edge of each pair, with packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from runtime import Live, addresses, live

from axoneme.sandbox.client import Probe, Verdict
from manifests import folder, text

#: Who may call whom, by the policies: each names the callers of one service. From everywhere: frontend.
CALLERS = {
    "adservice": {"frontend"},
    "cartservice": {"frontend", "checkoutservice"},
    "checkoutservice": {"frontend"},
    "currencyservice": {"frontend", "checkoutservice"},
    "emailservice": {"checkoutservice"},
    "paymentservice": {"checkoutservice"},
    "productcatalogservice": {"frontend", "checkoutservice", "recommendationservice"},
    "recommendationservice": {"frontend"},
    "redis-cart": {"cartservice"},
    "shippingservice": {"frontend", "checkoutservice"},
    "loadgenerator": set(),
}


@pytest.fixture(scope="module")
def shop() -> Iterator[Live]:
    boutique = folder("online-boutique")
    policies = sorted((boutique / "network-policies").glob("*.yaml"))
    with live("boutique", text(boutique / "app.yaml")) as runtime:
        runtime.apply(text(*policies))
        runtime.policies_loaded(len(policies))
        yield runtime


def app(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["app"])


def ports(pod: dict[str, Any]) -> list[int]:
    return [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    ]


def test_twelve_workloads_on_two_nodes(shop: Live) -> None:
    pods = shop.pods()
    assert len({app(pod) for pod in pods}) == 12
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node1", "node2"}


def test_every_pair_is_as_the_policies_say(shop: Live) -> None:
    pods = shop.pods()
    declared = sorted({port for pod in pods for port in ports(pod)})
    assert len(declared) >= 8
    cases, wishes = [], []
    for source in pods:
        for target in pods:
            for port in declared if source is not target else ():
                for address in addresses(target):
                    cases.append((source, target, port))
                    wishes.append(Probe(shop.namespace(source), address, port, timeout=2))
    endpoints = shop.endpoints()
    verdicts: dict[tuple[str, str, int], bool] = {}
    wrong = []
    for (source, target, port), result in zip(cases, shop.probe_all(wishes), strict=True):
        pair = app(source), app(target), port
        if pair not in verdicts:
            ends = (endpoints[f"default/{pod['metadata']['name']}"] for pod in (source, target))
            verdicts[pair] = shop.why(*ends, port)
        # Where nobody listens, a packet that gets through is answered with a reset.
        got_through = result.verdict in {Verdict.CONNECTED, Verdict.REFUSED}
        if got_through != verdicts[pair] or (got_through and port in ports(target)) != (
            result.verdict is Verdict.CONNECTED
        ):
            wrong.append((pair, result.verdict, verdicts[pair]))
    assert not wrong
    for (source_app, target_app, port), allowed in verdicts.items():
        if target_app == "frontend":
            assert allowed
        elif port in next(ports(pod) for pod in pods if app(pod) == target_app):
            assert allowed == (source_app in CALLERS[target_app]), (source_app, target_app, port)


def test_what_is_dropped_names_the_policies(shop: Live) -> None:
    payment = next(pod for pod in shop.pods() if app(pod) == "paymentservice")
    frontend = next(pod for pod in shop.pods() if app(pod) == "frontend")
    assert (
        shop.probe(shop.namespace(frontend), addresses(payment)[0], 50051, timeout=1).verdict
        is Verdict.TIMEOUT
    )

    def drop() -> dict[str, Any] | None:
        found = shop.flows(
            filters=[
                {
                    "verdict": ["DROPPED"],
                    "from_workload": ["frontend"],
                    "to_workload": ["paymentservice"],
                    "port": [50051],
                }
            ]
        )
        return found[-1] if found else None

    names = {each["name"] for each in shop.wait(drop, "the drop")["ingress_denied_by"]}
    assert names == {"paymentservice", "deny-all"}
