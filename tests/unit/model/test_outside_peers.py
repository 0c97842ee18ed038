"""Peers by address, by group of addresses, by service; and the groups themselves."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.ciliumpeers import ENTITIES
from axoneme.model.paths import ManifestError
from axoneme.model.policy import CIDRGroup, CIDRGroupPeer, CIDRPeer, ServicePeer
from axoneme.policy import peers

from .given import Object, cilium, clusterwide, only_rule


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_range_may_be_one_address(text: str, network: str) -> None:
    rule = only_rule(cilium(ingress=[{"fromCIDR": [text, text]}]))
    assert rule.peers == (CIDRPeer(ip_network(network)),)


def test_a_range_with_excepts() -> None:
    item = {"cidr": "10.0.0.0/8", "except": ["10.96.0.0/12", "10.0.0.0/8", "10.96.0.0/12"]}
    rule = only_rule(cilium(egress=[{"toCIDRSet": [item, {"cidr": "::/1"}]}]))
    assert rule.peers == (
        CIDRPeer(ip_network("10.0.0.0/8"), (ip_network("10.96.0.0/12"), ip_network("10.0.0.0/8"))),
        CIDRPeer(ip_network("::/1")),
    )


def test_groups_by_name_and_by_labels() -> None:
    items = [{"cidrGroupRef": "offices"}, {"cidrGroupSelector": {"matchLabels": {"zone": "a"}}, "except": []}]
    by_name, by_labels = only_rule(cilium(ingress=[{"fromCIDRSet": items}])).peers
    assert by_name == CIDRGroupPeer(name="offices")
    assert isinstance(by_labels, CIDRGroupPeer) and str(by_labels.selector) == "zone=a"


@pytest.mark.parametrize(
    ("service", "own", "anywhere"),
    [
        ({"serviceName": "a"}, "shop", None),
        ({"serviceName": "a", "namespace": ""}, "shop", None),
        ({"serviceName": "a", "namespace": "b"}, "b", "b"),
    ],
)
def test_services_by_name(service: Object, own: str, anywhere: str | None) -> None:
    egress = [{"toServices": [{"k8sService": service}]}]
    assert only_rule(cilium(egress=egress)).peers == (ServicePeer(own, name="a"),)
    assert only_rule(clusterwide(egress=egress)).peers == (ServicePeer(anywhere, name="a"),)


def test_services_by_labels() -> None:
    service = {"k8sServiceSelector": {"selector": {"matchLabels": {"a": "b"}}, "namespace": "c"}}
    (peer,) = only_rule(cilium(egress=[{"toServices": [service]}])).peers
    assert isinstance(peer, ServicePeer)
    assert (peer.namespace, peer.name, str(peer.selector)) == ("c", None, "a=b")


@pytest.mark.parametrize("label", ["reserved:host", "cidr:a", "k8s:a"])
def test_a_group_has_no_labels_of_other_things(label: str) -> None:
    with pytest.raises(ManifestError, match="labels of the object itself"):
        only_rule(cilium(ingress=[{"fromCIDRSet": [{"cidrGroupSelector": {"matchLabels": {label: ""}}}]}]))


def test_every_entity_can_be_resolved_and_no_other_is_accepted() -> None:
    assert set(ENTITIES) == peers.ENTITIES


# ---- CiliumCIDRGroup ---------------------------------------------------------------------------


def group(**spec: object) -> Object:
    metadata = {"name": "offices", "labels": {"zone": "a"}}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": metadata, "spec": spec}


def test_a_group() -> None:
    assert parse_cidr_group(group(externalCIDRs=["10.0.0.1", "2001:db8::/32", "10.0.0.1/32"])) == CIDRGroup(
        "offices", (ip_network("10.0.0.1/32"), ip_network("2001:db8::/32")), (("zone", "a"),)
    )


def test_a_group_may_be_empty_but_not_unclear() -> None:
    assert parse_cidr_group(group(externalCIDRs=[])).cidrs == ()
    wrong: list[Object] = [{}, {"externalCIDRs": None}, {"externalCidrs": []}, {"externalCIDRs": ["x"]}]
    for spec in wrong:
        with pytest.raises(ManifestError, match=r"CiliumCIDRGroup offices: spec\.externalC"):
            parse_cidr_group(group(**spec))
