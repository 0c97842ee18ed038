"""Services as an API server takes them in: everyone gets what it needs, nobody what another has."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model.paths import ManifestError
from axoneme.sandbox.plan import IPV4_SERVICES, IPV6_SERVICES
from axoneme.sandbox.services import registry
from axoneme.sandbox.services.admission import admit, repaired
from axoneme.sandbox.services.allocation import NODE_PORTS, Ranges, Taken
from axoneme.sources.sqlite import SqliteStore

Document = dict[str, Any]

DUAL = Ranges((IPV4_SERVICES, IPV6_SERVICES))
FOUR, SIX = Ranges((IPV4_SERVICES,)), Ranges((IPV6_SERVICES,))
WEB = {"port": 80, "name": "web"}


def service(name: str = "web", **spec: object) -> Document:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return {"kind": "Service", "metadata": metadata, "spec": {"ports": [dict(WEB)], **spec}}


def taken_in(wanted: Document, ranges: Ranges = DUAL, taken: Taken | None = None) -> Document:
    return admit(wanted, None, taken or Taken(), ranges)["spec"]  # type: ignore[no-any-return]


def changed(before: Document, **spec: object) -> Document:
    """The service that was there, with fields as a client's patch sets them; None takes one away."""
    fields = {**before["spec"], **spec}
    kept = {key: value for key, value in fields.items() if value is not None}
    return admit({**before, "spec": kept}, before, Taken.by([before]), DUAL)


def test_defaults() -> None:
    spec = taken_in(service())
    assert spec["type"] == "ClusterIP"
    assert ipaddress.ip_address(spec["clusterIP"]) in IPV4_SERVICES
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert spec["ports"] == [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("None", "Cluster")
    assert "externalTrafficPolicy" not in spec


@pytest.mark.parametrize(
    ("spec", "ranges", "families", "policy"),
    [
        ({}, SIX, ["IPv6"], "SingleStack"),
        ({"ipFamilyPolicy": "PreferDualStack"}, DUAL, ["IPv4", "IPv6"], "PreferDualStack"),
        ({"ipFamilyPolicy": "PreferDualStack"}, SIX, ["IPv6"], "PreferDualStack"),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, DUAL, ["IPv6", "IPv4"], None),
        ({"ipFamilies": ["IPv6"]}, DUAL, ["IPv6"], "SingleStack"),
        ({"clusterIP": "fd00:10:96::99"}, DUAL, ["IPv6"], "SingleStack"),
        ({"clusterIP": "None", "selector": {"a": "b"}}, DUAL, ["IPv4"], "SingleStack"),
        ({"clusterIP": "None"}, DUAL, ["IPv4", "IPv6"], "RequireDualStack"),
        ({"clusterIP": "None"}, FOUR, ["IPv4", "IPv6"], "RequireDualStack"),
    ],
)
def test_families(
    spec: Mapping[str, object], ranges: Ranges, families: list[str], policy: str | None
) -> None:
    made = taken_in(service(**spec), ranges)
    assert made["ipFamilies"] == families
    assert made["ipFamilyPolicy"] == (policy or spec["ipFamilyPolicy"])
    if made["clusterIP"] == "None":
        assert made["clusterIPs"] == ["None"]
    else:
        versions = [f"IPv{ipaddress.ip_address(each).version}" for each in made["clusterIPs"]]
        assert versions == families


@pytest.mark.parametrize(
    ("spec", "ranges", "path", "words"),
    [
        ({"clusterIP": "10.0.0.1"}, DUAL, "spec.clusterIPs[0]", "10.96.0.0/16"),
        ({"clusterIP": "10.96.0.0"}, DUAL, "spec.clusterIPs[0]", "10.96.0.0/16"),
        ({"clusterIP": "10.96.7.7"}, DUAL, "spec.clusterIPs[0]", "service other/had has it"),
        ({"clusterIP": "nowhere"}, DUAL, "spec.clusterIPs[0]", "IP address"),
        ({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.8"]}, DUAL, "spec.clusterIPs[0]", "10.96.0.9"),
        ({"clusterIP": "fd00:10:96::9"}, FOUR, "spec.ipFamilies[0]", "IPv4 only"),
        ({"ipFamilies": ["IPv6"]}, FOUR, "spec.ipFamilies[0]", "IPv4 only"),
        ({"ipFamilies": ["IPv4", "IPv6"]}, DUAL, "spec.ipFamilyPolicy", "PreferDualStack"),
        ({"ipFamilyPolicy": "RequireDualStack"}, SIX, "spec.ipFamilyPolicy", "PreferDualStack"),
        ({"ipFamilyPolicy": "Both"}, DUAL, "spec.ipFamilyPolicy", "SingleStack"),
        ({"type": "NodePort", "clusterIP": "None"}, DUAL, "spec.clusterIP", "leave it away"),
        ({"type": "ExternalName", "clusterIP": "10.96.0.9"}, DUAL, "spec.clusterIPs", "leave it away"),
        ({"ports": [{**WEB, "nodePort": 30001}]}, DUAL, "spec.ports[0].nodePort", "NodePort"),
        (
            {"type": "NodePort", "ports": [{**WEB, "nodePort": 80}]},
            DUAL,
            "spec.ports[0].nodePort",
            "30000 to 32767",
        ),
        (
            {"type": "NodePort", "ports": [{**WEB, "nodePort": 30777}]},
            DUAL,
            "spec.ports[0].nodePort",
            "other/had",
        ),
        ({"healthCheckNodePort": 30001}, DUAL, "spec.healthCheckNodePort", "externalTrafficPolicy Local"),
        ({"ipFamilies": "IPv4"}, DUAL, "spec", "ipFamilies"),
    ],
)
def test_what_cannot_be_had_is_refused(
    spec: Mapping[str, object], ranges: Ranges, path: str, words: str
) -> None:
    taken = Taken({"10.96.7.7": ("other", "had")}, {30777: ("other", "had")})
    with pytest.raises(ManifestError) as refused:
        taken_in(service(**spec), ranges, taken)
    assert refused.value.path == path
    assert words in str(refused.value)
    assert "Service default/web" in str(refused.value)


def test_tcp_and_udp_of_one_number_share_a_node_port() -> None:
    ports = [
        {"name": "a", "port": 53, "protocol": "UDP"},
        {"name": "b", "port": 53, "protocol": "TCP"},
        {"name": "c", "port": 54, "protocol": "TCP"},
    ]
    made = taken_in(service(type="NodePort", ports=ports))["ports"]
    assert made[0]["nodePort"] == made[1]["nodePort"] != made[2]["nodePort"]
    assert all(each["nodePort"] in NODE_PORTS for each in made)


def test_a_load_balancer_may_go_without_node_ports() -> None:
    with_ = taken_in(service(type="LoadBalancer"))
    assert with_["ports"][0]["nodePort"] in NODE_PORTS
    assert with_["allocateLoadBalancerNodePorts"] is True
    without = taken_in(service(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert "nodePort" not in without["ports"][0]


def test_a_local_load_balancer_has_a_health_check_port() -> None:
    made = taken_in(service(type="LoadBalancer", externalTrafficPolicy="Local"))
    assert made["healthCheckNodePort"] in NODE_PORTS
    assert made["healthCheckNodePort"] != made["ports"][0]["nodePort"]
    asked = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    assert taken_in(asked)["healthCheckNodePort"] == 31000


def test_what_a_service_has_it_keeps_over_changes() -> None:
    before = {**service(), "spec": taken_in(service(type="NodePort"))}
    had = before["spec"]
    renumbered = changed(before, ports=[{**WEB, "port": 81}], clusterIP=None, clusterIPs=None)["spec"]
    assert renumbered["clusterIP"] == had["clusterIP"]
    assert renumbered["ports"][0]["nodePort"] == had["ports"][0]["nodePort"]
    with pytest.raises(ManifestError, match="cannot be changed"):
        changed(before, clusterIP="10.96.0.77", clusterIPs=None)


def test_a_changed_type_lets_go_of_what_it_has_no_use_for() -> None:
    spec = taken_in(service(type="LoadBalancer", externalTrafficPolicy="Local"))
    balanced = {**service(), "spec": spec}
    inside = changed(balanced, type="ClusterIP")
    assert inside["spec"]["clusterIP"] == spec["clusterIP"]
    assert "nodePort" not in inside["spec"]["ports"][0]
    for gone in ("healthCheckNodePort", "externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
        assert gone not in inside["spec"]
    named = changed(inside, type="ExternalName", externalName="example.com")
    for gone in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        assert gone not in named["spec"]
    again = changed(named, type="ClusterIP")
    assert ipaddress.ip_address(again["spec"]["clusterIP"]) in IPV4_SERVICES
    assert "externalName" not in again["spec"]


def test_a_second_family_comes_and_goes_with_the_policy() -> None:
    one = {**service(), "spec": taken_in(service())}
    two = changed(one, ipFamilyPolicy="PreferDualStack")
    assert two["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert two["spec"]["clusterIPs"][0] == one["spec"]["clusterIP"]
    assert ipaddress.ip_address(two["spec"]["clusterIPs"][1]) in IPV6_SERVICES
    assert changed(two, ipFamilyPolicy="SingleStack")["spec"]["clusterIPs"] == one["spec"]["clusterIPs"]
    with pytest.raises(ManifestError, match="SingleStack gives the second family back"):
        changed(two, clusterIPs=two["spec"]["clusterIPs"][:1])


KINDS = st.sampled_from(
    [
        {},
        {"type": "NodePort"},
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
        {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
        {"type": "ExternalName", "externalName": "example.com"},
        {"clusterIP": "None", "selector": {"a": "b"}},
        {"ipFamilyPolicy": "PreferDualStack"},
    ]
)
SMALL = Ranges(
    (ipaddress.IPv4Network("10.96.0.0/26"), ipaddress.IPv6Network("fd00:10:96::/122")), range(30000, 30100)
)


@given(st.lists(st.tuples(st.integers(0, 25), KINDS), max_size=30))
def test_nothing_is_given_twice_and_what_is_complete_rests(
    steps: list[tuple[int, dict[str, object]]],
) -> None:
    """Whatever kinds services have had one after the other."""
    there: dict[str, Document] = {}
    for number, spec in steps:
        name = f"s{number}"
        before = there.get(name)
        try:
            there[name] = admit(service(name, **spec), before, Taken.by(there.values()), SMALL)
        except ManifestError:
            assert before is not None
            assert before["spec"].get("clusterIP") in {"None", *before["spec"].get("clusterIPs", ())}
    addresses = [
        each for made in there.values() for each in made["spec"].get("clusterIPs", ()) if each != "None"
    ]
    assert len(set(addresses)) == len(addresses)
    numbers = [
        each
        for made in there.values()
        for each in (
            *{port["nodePort"] for port in made["spec"]["ports"] if "nodePort" in port},
            *filter(None, [made["spec"].get("healthCheckNodePort")]),
        )
    ]
    assert len(set(numbers)) == len(numbers)
    assert repaired(there, SMALL) == ({}, [])


def test_a_full_range_is_said_to_be_full() -> None:
    tiny = Ranges((ipaddress.IPv4Network("10.96.0.0/29"),), range(30000, 30003))
    taken = Taken()
    for number in range(6):
        taken.add(admit(service(f"s{number}"), None, taken, tiny))
    with pytest.raises(ManifestError, match=r"no address of 10\.96\.0\.0/29 is free"):
        admit(service("more"), None, taken, tiny)


def test_of_two_that_hold_the_same_the_older_counts() -> None:
    def stored(name: str, time: str) -> Document:
        made = admit(service(name, clusterIP="10.96.0.50"), None, Taken(), DUAL)
        return {**made, "metadata": {**made["metadata"], "creationTimestamp": time}}

    fixed, wrong = repaired({"a": stored("a", "2026-02-01"), "b": stored("b", "2026-01-01")}, DUAL)
    assert not fixed
    assert [str(each) for each in wrong] == [
        'Service default/a: spec.clusterIPs[0]: found "10.96.0.50"; service default/b has it: '
        "give another one, or none"
    ]


async def test_repairs_at_once_give_out_nothing_twice(tmp_path: Path) -> None:
    """Many that find the same incomplete services, each through a connection of its own."""
    store = SqliteStore(tmp_path / "store.db")
    for number in range(20):
        key = f"{registry.SERVICES}default/s{number}"
        await store.put(key, json.dumps(service(f"s{number}", type="NodePort")).encode())
    others = [SqliteStore(tmp_path / "store.db") for _ in range(4)]
    done = await asyncio.gather(*(registry.repair(each, DUAL) for each in others))
    assert sum(done) == 20
    found = [json.loads(entry.value)["spec"] for entry in (await store.list(registry.SERVICES)).entries]
    assert len({each["clusterIP"] for each in found}) == 20
    assert len({each["ports"][0]["nodePort"] for each in found}) == 20
    assert await registry.repair(store, DUAL) == 0
    for each in (store, *others):
        await each.close()
