"""Pools of addresses and announcement policies as they are written; what services ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest

from axoneme.model.announcementpolicy import parse_announcement_policy
from axoneme.model.conditions import Condition, settle
from axoneme.model.exposure import parse_exposure
from axoneme.model.labels import K8S, Label, Labels
from axoneme.model.loadbalancerpool import parse_pool
from axoneme.model.manifests import load, validate
from axoneme.model.paths import ManifestError


def pool(**spec: object) -> dict[str, object]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": "blue"},
    } | {"spec": spec}


def labelled(**labels: str) -> Labels:
    return Labels(Label(K8S, key, value) for key, value in labels.items())


def test_a_pool_has_blocks_of_three_forms() -> None:
    found = parse_pool(
        pool(
            blocks=[
                {"cidr": "10.0.10.0/24"},
                {"cidr": "2004::0/64"},
                {"start": "20.0.20.100", "stop": "20.0.20.200"},
                {"start": "1.2.3.4"},
            ],
            serviceSelector={"matchExpressions": [{"key": "color", "operator": "In", "values": ["blue"]}]},
            disabled=True,
            allowFirstLastIPs="No",
        )
    )
    assert [block.size for block in found.blocks] == [256, 1 << 64, 101, 1]
    assert ip_address("20.0.20.200") in found.blocks[2]
    assert ip_address("20.0.20.201") not in found.blocks[2]
    assert ip_address("::1") not in found.blocks[0]
    assert found.disabled
    assert found.selector.matches(labelled(color="blue"))
    assert not found.selector.matches(labelled(color="red"))
    assert [
        found.reserves(ip_address(a)) for a in ("10.0.10.0", "10.0.10.255", "10.0.10.1", "20.0.20.100")
    ] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("cidr", ["10.0.0.4/31", "10.0.0.4/32", "fd00::/127"])
def test_a_prefix_of_ends_alone_gives_them_out(cidr: str) -> None:
    found = parse_pool(pool(blocks=[{"cidr": cidr}], allowFirstLastIPs="No"))
    assert not found.reserves(found.blocks[0].first)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"blocks": [{}]}, "spec.blocks[0].cidr"),
        ({"blocks": [{"cidr": "10.0.0.0"}]}, "spec.blocks[0].cidr"),
        ({"blocks": [{"cidr": "10.0.0.0/24", "start": "10.0.0.1"}]}, "spec.blocks[0].start"),
        ({"blocks": [{"start": "10.0.0.9", "stop": "10.0.0.1"}]}, "spec.blocks[0].stop"),
        ({"blocks": [{"start": "10.0.0.9", "stop": "fd00::1"}]}, "spec.blocks[0].stop"),
        ({"blocks": [], "allowFirstLastIPs": "yes"}, "spec.allowFirstLastIPs"),
        ({"block": []}, "spec.block"),
    ],
)
def test_what_is_no_pool_is_refused_by_its_field(spec: dict[str, object], path: str) -> None:
    with pytest.raises(ManifestError) as refused:
        parse_pool(pool(**spec))
    assert refused.value.path == path
    assert refused.value.object == "CiliumLoadBalancerIPPool blue"


def policy(**spec: object) -> Mapping[str, object]:
    return {"kind": "CiliumL2AnnouncementPolicy", "metadata": {"name": "one"}, "spec": spec}


def test_an_announcement_policy() -> None:
    found = parse_announcement_policy(
        policy(
            serviceSelector={"matchLabels": {"color": "blue"}},
            nodeSelector={"matchExpressions": [{"key": "control-plane", "operator": "DoesNotExist"}]},
            interfaces=["^eth[0-9]+", "bond"],
            loadBalancerIPs=True,
        )
    )
    assert found.services.matches(labelled(color="blue"))
    assert not found.nodes.matches(labelled(**{"control-plane": ""}))
    assert [found.on(name) for name in ("eth0", "veth0", "bond1.12")] == [True, False, True]
    assert (found.load_balancer_ips, found.external_ips) == (True, False)
    assert parse_announcement_policy(policy()).on("anything")


def test_an_expression_that_is_none_is_refused() -> None:
    with pytest.raises(ManifestError) as refused:
        parse_announcement_policy(policy(interfaces=["eth0", "eth[0"]))
    assert refused.value.path == "spec.interfaces[1]"


def service(annotations: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]} | more.pop("spec", {})
    metadata = {"name": "web", "namespace": "shop", "annotations": annotations or {}}
    return {"kind": "Service", "metadata": metadata, "spec": spec} | more


def test_what_a_service_asks_for() -> None:
    found = parse_exposure(
        service(
            {
                "lbipam.cilium.io/ips": "10.0.0.5, fd00::5,nonsense",
                "lbipam.cilium.io/sharing-key": "one",
                "lbipam.cilium.io/sharing-cross-namespace": "a,b",
            },
            spec={
                "loadBalancerIP": "10.0.0.4",
                "ipFamilies": ["IPv6", "IPv4"],
            },
            status={"loadBalancer": {"ingress": [{"ip": "10.0.0.5"}, {"hostname": "elsewhere"}]}},
        )
    )
    assert found.requested == tuple(map(ip_address, ("10.0.0.4", "10.0.0.5", "fd00::5")))
    assert found.unreadable == ("nonsense",)
    assert (found.sharing_key, found.sharing_namespaces) == ("one", {"a", "b"})
    assert found.service.families == (6, 4)
    assert found.held == (ip_address("10.0.0.5"),)


def test_annotations_have_former_names_and_selectors_special_keys() -> None:
    found = parse_exposure(service({"io.cilium/lb-ipam-ips": "10.0.0.5"}))
    assert found.requested == (ip_address("10.0.0.5"),)
    spec = pool(serviceSelector={"matchLabels": {"io.kubernetes.service.namespace": "shop"}})
    assert parse_pool(spec).selector.matches(found.labels)
    assert found.labels.get(K8S, "io.kubernetes.service.name") == "web"


def test_a_condition_keeps_its_time_while_its_status_stands() -> None:
    old = Condition(type="A", status="True", last_transition_time="then"), Condition(type="B", status="True")
    wanted = [Condition(type="A", status="True", message="7"), Condition(type="C", status="False")]
    assert settle(old, wanted, "now") == (
        Condition(type="A", status="True", message="7", last_transition_time="then"),
        old[1],
        Condition(type="C", status="False", last_transition_time="now"),
    )
    (changed,) = settle(old[:1], [Condition(type="A", status="False")], "now")
    assert changed.last_transition_time == "now"


def test_manifests_of_both_kinds_are_looked_into() -> None:
    text = """
apiVersion: cilium.io/v2alpha1
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec: {blocks: [{cidr: 10.0.10.0/24}]}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: one}
spec: {interfaces: ["eth[0"]}
"""
    good, bad = load(text, "test")
    validate(good)
    assert good.supported
    assert good.namespace == ""
    with pytest.raises(ManifestError, match=r"spec\.interfaces\[0\]"):
        validate(bad)
