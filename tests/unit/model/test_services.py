"""Services, EndpointSlices and local redirect policies: what is read from them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from axoneme.model.endpointslices import EndpointPort, EndpointSlice, parse_endpoint_slice
from axoneme.model.labels import Label, Labels
from axoneme.model.localredirect import RedirectPort, parse_local_redirect
from axoneme.model.manifests import read
from axoneme.model.paths import ManifestError
from axoneme.model.serviceannotations import PREFIX, Forwarding
from axoneme.model.services import Ingress, Service, parse_service, refuse_unknown

from .given import Object


def service(annotations: dict[str, Any] | None = None, status: object = None, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "shop", "annotations": annotations or {}},
        "spec": {"ports": [{"port": 80}], **spec},
        "status": status or {},
    }


def annotated(name: str, value: object) -> Object:
    return service({PREFIX + name: value})


def at(annotation: str) -> str:
    """The path of the annotation."""
    return f'metadata.annotations["{PREFIX}{annotation}"]'


def endpoint_slice(*endpoints: object, **fields: object) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        **fields,
    }


def redirect(frontend: object, backend: dict[str, Any] | None = None, **spec: object) -> Object:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLocalRedirectPolicy",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "redirectFrontend": frontend,
            "redirectBackend": {
                "localEndpointSelector": {"matchLabels": {"app": "dns"}},
                "toPorts": [{"port": "53", "protocol": "UDP"}],
                **(backend or {}),
            },
            **spec,
        },
    }


def by_address(*ports: object, ip: str = "169.254.20.10") -> Object:
    return {"addressMatcher": {"ip": ip, "toPorts": list(ports)}}


def by_service(**matcher: object) -> Object:
    return {"serviceMatcher": {"serviceName": "dns", "namespace": "shop", **matcher}}


NAMED = {"hostname": "a.b"}
UDP53 = {"port": "53", "protocol": "UDP"}


def test_a_service_with_everything() -> None:
    document = service(
        {PREFIX + "lb-algorithm": "maglev", PREFIX + "forwarding-mode": "DSR", PREFIX + "global": "true"},
        {
            "loadBalancer": {
                "ingress": [
                    {"ip": "192.0.2.7"},
                    {"ip": "192.0.2.8", "ipMode": "Proxy"},
                    {"hostname": "a.b"},
                ]
            }
        },
        type="LoadBalancer",
        ports=[{"port": 80, "appProtocol": "http", "nodePort": 30080}],
        ipFamilies=["IPv6", "IPv4"],
        ipFamilyPolicy="RequireDualStack",
        loadBalancerIP="192.0.2.7",
        loadBalancerClass="io.cilium/bgp",
        allocateLoadBalancerNodePorts=False,
        loadBalancerSourceRanges=["198.51.100.0/24", " 2001:db8::/32 "],
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        healthCheckNodePort=31000,
        publishNotReadyAddresses=True,
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10_800}},
        trafficDistribution="PreferSameNode",
    )
    refuse_unknown(document)
    found = parse_service(document)
    assert found.families == (6, 4) and found.family_policy == "RequireDualStack"
    assert (found.load_balancer_ip, found.load_balancer_class) == (ip_address("192.0.2.7"), "io.cilium/bgp")
    assert not found.allocate_node_ports and found.publish_not_ready and found.external_local
    assert found.source_ranges == (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    assert (found.health_check_node_port, found.affinity_timeout) == (31000, 10_800)
    assert found.traffic_distribution == "PreferSameNode" and found.ports[0].app_protocol == "http"
    assert found.ingress == (
        Ingress(ip_address("192.0.2.7")),
        Ingress(ip_address("192.0.2.8"), proxy=True),
        Ingress(None, "a.b"),
    )
    assert (found.annotations.algorithm, found.annotations.forwarding) == ("maglev", Forwarding.DSR)


@pytest.mark.parametrize(
    ("object", "message"),
    [
        (
            service(ports=[{"port": 80, "targetprt": 8080}]),
            r"spec\.ports\[0\]\.targetprt: .*is it targetPort",
        ),
        (service(externalTraficPolicy="Local"), r"spec\.externalTraficPolicy: .*is it externalTrafficPolicy"),
        (
            service(sessionAffinityConfig={"clientIP": {"timeout": 5}}),
            r"clientIP\.timeout: .*known are timeoutSeconds",
        ),
    ],
)
def test_who_writes_a_service_is_told_of_a_slip_in_a_field(object: Object, message: str) -> None:
    """A stored one is read all the same: it may be of a later version."""
    parse_service(object)
    with pytest.raises(ManifestError, match=message):
        refuse_unknown(object)
    with pytest.raises(ManifestError, match=message):
        read(json.dumps(object), "a file")


@pytest.mark.parametrize(("spec", "local"), [({}, False), ({"externalIPs": ["192.0.2.1"]}, True)])
def test_an_external_policy_needs_a_way_in_from_outside(spec: Object, local: bool) -> None:
    assert parse_service(service(externalTrafficPolicy="Local", **spec)).external_local == local


@pytest.mark.parametrize(
    ("annotation", "value", "labels", "matches"),
    [
        ("node", "a", {PREFIX + "node": "a"}, True),
        ("node", "a", {}, False),
        ("node-selector", "zone in (a, b),!spare", {"zone": "b"}, True),
        ("node-selector", "zone in (a, b),!spare", {"zone": "b", "spare": ""}, False),
    ],
)
def test_a_service_may_be_for_some_nodes(
    annotation: str, value: str, labels: dict[str, str], matches: bool
) -> None:
    found = parse_service(annotated(annotation, value)).annotations
    assert found.nodes.matches(Labels(Label("node", *item) for item in labels.items())) == matches


def test_a_selector_of_nodes_stands_above_their_label() -> None:
    both = {PREFIX + "node": "a", PREFIX + "node-selector": "x=y"}
    assert str(parse_service(service(both)).annotations.nodes) == "x=y"


def test_an_endpoint_that_says_nothing_is_ready() -> None:
    found = parse_endpoint_slice(endpoint_slice({"addresses": ["10.0.0.1", "10.0.0.2"]}))
    (endpoint,) = found.endpoints
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (True, True, False)
    assert endpoint.addresses == (ip_address("10.0.0.1"), ip_address("10.0.0.2"))
    assert (found.service, found.version, found.weight) == ("s", 4, 1)


def test_an_endpoint_slice_with_everything() -> None:
    found = parse_endpoint_slice(
        endpoint_slice(
            {
                "addresses": ["fd00::1"],
                "conditions": {"ready": False, "serving": True, "terminating": True},
                "nodeName": "n1",
                "zone": "z1",
                "hints": {"forZones": [{"name": "z1"}, {"name": "z2"}], "forNodes": [{"name": "n1"}]},
                "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop"},
                "hostname": "web-0",
                "deprecatedTopology": {"x": "y"},
            },
            addressType="IPv6",
            ports=[{"port": 80, "appProtocol": "http"}, {"name": "all", "protocol": "UDP"}],
        )
    )
    (endpoint,) = found.endpoints
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (False, True, True)
    assert (endpoint.node, endpoint.zone, endpoint.target, endpoint.hostname) == (
        "n1",
        "z1",
        "web-0",
        "web-0",
    )
    assert (endpoint.zones, endpoint.nodes) == ({"z1", "z2"}, {"n1"})
    assert found.ports == (EndpointPort(80, app_protocol="http"), EndpointPort(0, "all", "UDP"))


def test_a_slice_may_belong_to_no_service_and_have_a_weight() -> None:
    metadata = {"name": "x", "annotations": {PREFIX + "weight": "0"}}
    found: EndpointSlice = parse_endpoint_slice(endpoint_slice(metadata=metadata, ports=None, endpoints=None))
    assert (found.service, found.weight, found.endpoints, found.ports) == ("", 0, (), ())


def test_redirect_of_an_address() -> None:
    ports = [{**UDP53, "name": "DNS"}, {"port": "53", "protocol": "TCP", "name": "dns-tcp"}]
    found = parse_local_redirect(redirect(by_address(*ports), {"toPorts": ports}))
    assert found.address == ip_address("169.254.20.10") and not found.service
    assert found.ports == (RedirectPort(53, "UDP", "dns"), RedirectPort(53, "TCP", "dns-tcp"))
    assert found.backend_ports == found.ports
    assert found.backends.matches(Labels.parse(["k8s:app=dns"]))


def test_redirect_of_a_service() -> None:
    found = parse_local_redirect(redirect(by_service(), skipRedirectFromBackend=False, description="x"))
    assert (found.address, found.service, found.ports) == (None, "dns", ())


@pytest.mark.parametrize(
    ("object", "path", "remedy"),
    [
        (service(externalIPs=["127.0.0.1"]), "spec.externalIPs[0]", "loopback"),
        (service(clusterIP="::ffff:10.0.0.1"), "spec.clusterIP", "written as one"),
        (service(ipFamilies=["IPv4", "IPv4"]), "spec.ipFamilies", "once"),
        (service(ipFamilies=["ipv4"]), "spec.ipFamilies[0]", "is it IPv4?"),
        (service(trafficDistribution="PreferSame"), "spec.trafficDistribution", "PreferSameZone"),
        (service(loadBalancerSourceRanges=["10.0.0.1"]), "spec.loadBalancerSourceRanges[0]", "10.0.0.0/8"),
        (service(loadBalancerIP="x"), "spec.loadBalancerIP", "an IP address"),
        (annotated("lb-algorithm", "least"), at("lb-algorithm"), "maglev"),
        (annotated("src-range-policy", "deny"), at("src-range-policy"), "no such"),
        (annotated("proxy-delegation", "delegate-if-local"), at("proxy-delegation"), "none"),
        (annotated("node-selector", "a b"), at("node-selector"), "a label selector"),
        (annotated("type", "Nodeport"), at("type"), "is it NodePort?"),
    ],
)
def test_services_that_are_refused(object: Object, path: str, remedy: str) -> None:
    refused(parse_service, object, path, remedy)


@pytest.mark.parametrize(
    ("object", "path", "remedy"),
    [
        (endpoint_slice(addressType="FQDN"), "addressType", "ExternalName"),
        (endpoint_slice(addressType=None), "addressType", "required"),
        (endpoint_slice({"addresses": []}), "endpoints[0].addresses", "1 to 100"),
        (endpoint_slice({"addresses": ["fd00::1"]}), "endpoints[0].addresses[0]", "is IPv4"),
        (endpoint_slice({"addresses": ["127.0.0.1"]}), "endpoints[0].addresses[0]", "loopback"),
        (endpoint_slice({"addresses": ["169.254.169.254"]}), "endpoints[0].addresses[0]", "link-local"),
        (
            endpoint_slice({"addresses": ["10.0.0.1"], "conditions": {"ready": "yes"}}),
            "endpoints[0].conditions.ready",
            "true or false",
        ),
        (endpoint_slice(ports=[{"port": 1}, {"port": 2}]), "ports[1].name", "a name of its own"),
        (endpoint_slice(ports=[{"port": 65536}]), "ports[0].port", "65535"),
        (endpoint_slice(*[{"addresses": ["10.0.0.1"]}] * 1001), "endpoints", "make more slices"),
        (
            endpoint_slice(metadata={"name": "x", "annotations": {PREFIX + "weight": "9" * 5000}}),
            at("weight"),
            "65535",
        ),
    ],
)
def test_slices_that_are_refused(object: Object, path: str, remedy: str) -> None:
    refused(parse_endpoint_slice, object, path, remedy)


@pytest.mark.parametrize(
    ("object", "path", "remedy"),
    [
        (redirect({}), "spec.redirectFrontend", "either addressMatcher or serviceMatcher"),
        (redirect(by_address(UDP53) | by_service()), "spec.redirectFrontend", "either"),
        (redirect(by_address()), "spec.redirectFrontend.addressMatcher.toPorts", "at least one"),
        (redirect(by_address(UDP53, ip="127.0.0.1")), "spec.redirectFrontend.addressMatcher.ip", "loopback"),
        (
            redirect(by_service(namespace="other")),
            "spec.redirectFrontend.serviceMatcher.namespace",
            "its own",
        ),
        (
            redirect(by_address({"port": 53, "protocol": "UDP"})),
            "spec.redirectFrontend.addressMatcher.toPorts[0].port",
            "in quotes",
        ),
        (
            redirect(by_address(UDP53, {"port": "53", "protocol": "TCP"})),
            "spec.redirectFrontend.addressMatcher.toPorts[0].name",
            "several ports",
        ),
        (redirect(by_address({"port": "53", "protocol": "TCP"})), "spec.redirectBackend.toPorts", "TCP"),
        (
            redirect(by_address({"port": "53", "protocol": "SCTP"})),
            "spec.redirectFrontend.addressMatcher.toPorts[0].protocol",
            "UDP",
        ),
        (redirect(by_service(), {"toPorts": []}), "spec.redirectBackend.toPorts", "at least one"),
        (
            redirect(by_service(), skipRedirectFromBackend=True),
            "spec.skipRedirectFromBackend",
            "only be false",
        ),
        (
            redirect(by_service(), skipRedirectFromBackends=True),
            "spec.skipRedirectFromBackends",
            "is it skip",
        ),
    ],
)
def test_redirects_that_are_refused(object: Object, path: str, remedy: str) -> None:
    refused(parse_local_redirect, object, path, remedy)


def test_manifests_know_the_kinds() -> None:
    text = (
        "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: a}\naddressType: FQDN\n",
        "kind: CiliumLocalRedirectPolicy\napiVersion: cilium.io/v2\nmetadata: {name: a}\nspec: {}\n",
    )
    for each in text:
        with pytest.raises(ManifestError) as caught:
            read(each, "f")
        assert caught.value.object.endswith("default/a") and caught.value.origin.startswith("f")


def refused(parse: Callable[[Object], Service | object], object: Object, path: str, remedy: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(object)
    assert caught.value.path == path and remedy in f"{caught.value}"
