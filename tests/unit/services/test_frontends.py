"""Where a Service is called from outside, case by case, and what load balancers ask about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from axoneme.model.selectortext import parse_selector
from axoneme.model.serviceannotations import Annotations, Forwarding
from axoneme.model.services import Ingress, Service, ServicePort
from axoneme.services.balanced import Algorithm, Balanced, FrontendKind
from axoneme.services.compile import HealthCheck
from axoneme.services.facts import Options

from .given import NODE, active, at, cluster, endpoint, leaving, only, service, slice_of

FAR, NEAR = endpoint("10.0.2.1", node="n2", target="web-b"), endpoint("10.0.1.1", node="n1", target="web-a")


def balancer(**fields: Any) -> Service:
    return service(type="LoadBalancer", ingress=["192.0.2.80"], **fields)


def test_a_load_balancer_has_its_addresses_from_its_status() -> None:
    found = only(cluster(balancer(), slice_of(FAR)))
    assert at(found) == {"10.96.0.1 80", "192.0.2.80 80", "0.0.0.0 30080"}
    assert [each.kind.value for each in found.frontends] == ["ClusterIP", "LoadBalancer", "NodePort"]


def test_a_load_balancer_that_is_a_proxy_is_called_itself() -> None:
    proxy = replace(
        balancer(), ingress=(Ingress(ip_address("192.0.2.80"), proxy=True), Ingress(None, "lb.example"))
    )
    assert at(only(cluster(proxy)), FrontendKind.LOAD_BALANCER) == set()


def test_a_load_balancer_without_node_ports() -> None:
    port = ServicePort(80, 8080, "http")
    found = only(
        cluster(service(port, type="LoadBalancer", ingress=["192.0.2.80"], allocate_node_ports=False))
    )
    assert at(found) == {"10.96.0.1 80", "192.0.2.80 80"}


def test_only_the_status_of_a_load_balancer_counts() -> None:
    assert at(only(cluster(service(ingress=["192.0.2.80"])))) == {"10.96.0.1 80"}


def test_external_addresses() -> None:
    found = only(cluster(service(external=["192.0.2.9"]), slice_of(FAR)))
    assert at(found, FrontendKind.EXTERNAL_IP) == {"192.0.2.9 80"}
    assert found.frontends[-1].external


def ranges(found: Balanced) -> dict[str, Sequence[str] | None]:
    return {
        f"{each.address}": None if each.source_ranges is None else [f"{one}" for one in each.source_ranges]
        for each in found.frontends
    }


def test_source_ranges_are_for_addresses_of_load_balancers() -> None:
    of = (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    found = only(cluster(balancer(source_ranges=of, external=["192.0.2.9"])))
    expected = {"10.96.0.1": None, "192.0.2.80": ["198.51.100.0/24"], "192.0.2.9": None, "0.0.0.0": None}
    assert ranges(found) == expected


def test_source_ranges_of_one_family_shut_out_the_other() -> None:
    found = only(cluster(balancer(source_ranges=(ip_network("2001:db8::/32"),))))
    assert ranges(found)["192.0.2.80"] == []


def test_source_ranges_as_a_deny_list() -> None:
    denied = balancer(source_ranges=(ip_network("128.0.0.0/1"), ip_network("64.0.0.0/3")))
    found = only(cluster(replace(denied, annotations=Annotations(ranges_deny=True))))
    assert ranges(found)["192.0.2.80"] == ["0.0.0.0/2", "96.0.0.0/3"]


@pytest.mark.parametrize(
    ("forwarding", "annotation", "protocol", "direct"),
    [
        ("snat", None, "TCP", False),
        ("dsr", None, "UDP", True),
        ("hybrid", None, "TCP", True),
        ("hybrid", None, "UDP", False),
        ("snat", Forwarding.DSR, "UDP", True),
        ("dsr", Forwarding.SNAT, "TCP", False),
    ],
)
def test_direct_server_return(
    forwarding: Any, annotation: Forwarding | None, protocol: str, direct: bool
) -> None:
    port = ServicePort(80, 80, "http", protocol, 30080)
    wanted = service(port, type="NodePort", annotations=Annotations(forwarding=annotation))
    found = only(cluster(wanted, options=Options(forwarding=forwarding)))
    assert [each.direct for each in found.frontends] == [False, direct]
    local = replace(wanted, external_policy="Local")
    found = only(cluster(local, options=Options(forwarding=forwarding)))
    assert not any(each.direct for each in found.frontends)  # backends of this node see the client anyway


def test_an_algorithm_of_its_own() -> None:
    maglev = cluster(service(annotations=Annotations("maglev")))
    assert only(maglev).algorithm is Algorithm.MAGLEV
    assert only(cluster(service(), options=Options(algorithm=Algorithm.MAGLEV))).algorithm is Algorithm.MAGLEV


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("ClusterIP", {"10.96.0.1 80", "192.0.2.9 80"}),
        ("NodePort", {"0.0.0.0 30080", "192.0.2.9 80"}),
        ("LoadBalancer", {"192.0.2.80 80", "192.0.2.9 80"}),
    ],
)
def test_only_one_type_of_frontends(type_: str, expected: set[str]) -> None:
    one = balancer(external=["192.0.2.9"], annotations=Annotations(exposed=type_))
    assert at(only(cluster(one))) == expected


def test_a_service_of_other_nodes() -> None:
    elsewhere = service(annotations=Annotations(nodes=parse_selector("disk=ssd")))
    made = cluster(elsewhere)
    assert not made.changes()
    made.node_changed(replace(NODE, labels={"disk": "ssd"}))
    assert at(only(made)) == {"10.96.0.1 80"}


def test_session_affinity_is_told_in_seconds() -> None:
    assert only(cluster(service(affinity_timeout=10_800))).affinity == 10_800


def test_weights_of_slices() -> None:
    made = cluster(service(), slice_of(FAR, weight=3), slice_of(NEAR, name="web-2", weight=0))
    found = only(made)
    assert [(each.weight, each.state.value) for each in found.backends] == [(3, "active"), (0, "leaving")]


def test_endpoints_without_weight_do_not_keep_a_going_one_from_serving() -> None:
    going = endpoint("10.0.1.2", "serving", node="n1")
    for policy in ("Cluster", "Local"):
        made = cluster(
            service(internal_policy=policy), slice_of(going), slice_of(NEAR, name="web-2", weight=0)
        )
        found = only(made)
        assert (active(found.backends), leaving(found.backends)) == ({"10.0.1.2"}, {"10.0.1.1"})


# ---- the health check's port ---------------------------------------------------------------------


def test_a_health_check_counts_ready_endpoints_of_this_node() -> None:
    here = (NEAR, endpoint("10.0.1.2", "serving", node="n1"), endpoint("10.0.1.3", node="n1"), FAR)
    made = cluster(balancer(external_policy="Local", health_check_node_port=31000), slice_of(*here))
    made.changes()
    assert made.health_checks == {("shop", "web"): HealthCheck(31000, 2)}
    made.remove_service("shop", "web")
    made.changes()
    assert made.health_checks == {}


@pytest.mark.parametrize(
    "without",
    [
        balancer(health_check_node_port=31000),
        balancer(external_policy="Local"),
        service(type="NodePort", external_policy="Local", health_check_node_port=31000),
    ],
)
def test_services_without_health_check(without: Service) -> None:
    made = cluster(without, slice_of(NEAR))
    made.changes()
    assert made.health_checks == {}
