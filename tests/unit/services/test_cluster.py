"""Services as kube-proxy serves them, case by case: where they are called, and who takes the calls."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from axoneme.model.endpointslices import EndpointPort
from axoneme.model.policy import Protocol
from axoneme.model.services import HEADLESS, PROXY_NAME, Service, ServicePort
from axoneme.services.balanced import Algorithm, Backend, FrontendKind
from axoneme.services.cluster import Changes
from axoneme.services.facts import NodeFacts, Options

from .given import active, at, balanced, cluster, endpoint, leaving, only, service, slice_of

FAR, NEAR = endpoint("10.0.2.1", node="n2", target="web-b"), endpoint("10.0.1.1", node="n1", target="web-a")


def test_a_cluster_ip() -> None:
    found = only(cluster(service(), slice_of(FAR)))
    assert (found.name, found.port, found.protocol) == ("shop/web", "http", Protocol.TCP)
    (frontend,) = found.frontends
    assert (frontend.address, frontend.port) == (ip_address("10.96.0.1"), 80)
    assert (frontend.kind, frontend.external) == (FrontendKind.CLUSTER_IP, False)
    assert found.backends == (Backend(ip_address("10.0.2.1"), 8080, node="n2", name="shop/web-b"),)
    assert (found.outside, found.affinity, found.algorithm) == (None, 0, Algorithm.RANDOM)


def test_a_node_port_is_served_at_every_address_of_the_node() -> None:
    found = only(cluster(service(type="NodePort"), slice_of(FAR)))
    assert at(found) == {"10.96.0.1 80", "0.0.0.0 30080"}
    assert [each.external for each in found.frontends] == [False, True]


def test_node_ports_at_chosen_addresses() -> None:
    options = Options(node_port_addresses=(ip_network("192.0.2.0/24"),))
    node = NodeFacts("n1", addresses=(ip_address("192.0.2.1"), ip_address("198.51.100.1")))
    found = only(cluster(service(type="NodePort"), slice_of(FAR), node=node, options=options))
    assert at(found, FrontendKind.NODE_PORT) == {"192.0.2.1 30080"}


def test_a_node_port_belongs_to_the_types_that_have_one() -> None:
    assert at(only(cluster(service()))) == {"10.96.0.1 80"}


def test_two_families() -> None:
    both = service(type="NodePort", ips=("10.96.0.1", "fd00::1"))
    found = only(cluster(both, slice_of(FAR), slice_of(endpoint("fd01::1"), name="web-2", version=6)))
    assert at(found) == {"10.96.0.1 80", "fd00::1 80", "0.0.0.0 30080", ":: 30080"}
    assert active(found.backends) == {"10.0.2.1", "fd01::1"}


def test_a_service_is_served_in_the_families_of_its_addresses() -> None:
    six = service(type="NodePort", ips=["fd00::1"], external=["192.0.2.9", "2001:db8::9"])
    found = only(cluster(six, slice_of(FAR)))
    assert at(found) == {"fd00::1 80", ":: 30080", "2001:db8::9 80"} and found.backends == ()


def test_a_node_serves_its_own_families() -> None:
    found = only(cluster(service(ips=("10.96.0.1", "fd00::1")), node=NodeFacts("n1", versions=(4,))))
    assert at(found) == {"10.96.0.1 80"}


def test_no_address_no_service() -> None:
    assert not cluster(service(type="NodePort", ips=()), slice_of(FAR)).changes()


@pytest.mark.parametrize(
    "without",
    [
        service(headless=True, ips=()),
        service(type="ExternalName", external_name="example.org"),
        service(labels={HEADLESS: ""}),
        service(labels={PROXY_NAME: "other"}),
    ],
)
def test_services_that_nobody_balances(without: Service) -> None:
    assert cluster(without, slice_of(FAR)).changes() == Changes()


def test_slices_are_for_others_by_the_same_labels() -> None:
    found = only(cluster(service(), slice_of(FAR, labels={HEADLESS: ""})))
    assert found.backends == ()


def test_a_proxy_of_a_name_has_its_own_services() -> None:
    mine = cluster(service(labels={PROXY_NAME: "axo"}), options=Options(proxy_name="axo"))
    assert at(only(mine)) == {"10.96.0.1 80"}
    assert not cluster(service(), options=Options(proxy_name="axo")).changes()


def test_ports_go_together_by_name_and_protocol() -> None:
    dns = ServicePort(53, 53, "dns", "UDP"), ServicePort(53, 53, "dns-tcp"), ServicePort(80, 80, "web")
    numbers = EndpointPort(5353, "dns", "UDP"), EndpointPort(5354, "dns-tcp"), EndpointPort(0, "web")
    found = balanced(cluster(service(*dns), slice_of(FAR, ports=numbers)))
    ports = {name: [each.port for each in port.backends] for name, port in found.items()}
    assert ports == {"dns": [5353], "dns-tcp": [5354], "web": []}
    wrong = cluster(service(dns[0]), slice_of(FAR, ports=[EndpointPort(5353, "dns", "TCP")]))
    assert only(wrong).backends == ()


def test_a_port_without_a_name() -> None:
    found = only(cluster(service(ServicePort(80, 80)), slice_of(FAR, ports=[EndpointPort(8080)])))
    assert found.port == "80/TCP" and active(found.backends) == {"10.0.2.1"}


def test_several_slices_and_an_endpoint_in_two() -> None:
    moving = endpoint("10.0.2.1", "unready", node="n2")
    found = only(cluster(service(), slice_of(FAR, NEAR), slice_of(moving, name="web-0")))
    assert active(found.backends) == {"10.0.2.1", "10.0.1.1"} and not leaving(found.backends)


def test_an_endpoint_at_two_ports_is_two() -> None:
    other = slice_of(FAR, name="web-2", ports=[EndpointPort(9090, "http")])
    found = only(cluster(service(), slice_of(FAR), other))
    assert [each.port for each in found.backends] == [8080, 9090]


def test_an_unready_endpoint_takes_no_new_connections() -> None:
    found = only(cluster(service(), slice_of(FAR, endpoint("10.0.2.2", "unready"))))
    assert (active(found.backends), leaving(found.backends)) == ({"10.0.2.1"}, {"10.0.2.2"})


def test_a_going_endpoint_serves_when_no_other_does() -> None:
    going = endpoint("10.0.2.2", "serving"), endpoint("10.0.2.3", "going"), endpoint("10.0.2.4", "unready")
    made = cluster(service(), slice_of(FAR, *going))
    assert active(only(made).backends) == {"10.0.2.1"}
    made.upsert_slice(slice_of(*going))
    found = only(made)
    assert (active(found.backends), leaving(found.backends)) == ({"10.0.2.2"}, {"10.0.2.3", "10.0.2.4"})


def test_over_udp_nobody_stays_with_an_endpoint_that_does_not_serve() -> None:
    udp = ServicePort(53, 53, "dns", "UDP")
    unready, going = endpoint("10.0.2.2", "unready"), endpoint("10.0.2.3", "serving")
    numbers = [EndpointPort(53, "dns", "UDP")]
    made = cluster(service(udp), slice_of(FAR, unready, going, ports=numbers))
    assert leaving(only(made).backends) == {"10.0.2.3"}
    made.upsert_slice(slice_of(unready, ports=numbers))
    assert leaving(only(made).backends) == {"10.0.2.2"}  # there is nowhere to move to


def test_an_endpoint_that_is_ready_while_it_goes() -> None:
    """So the controller says where publishNotReadyAddresses is set."""
    found = only(cluster(service(publish_not_ready=True), slice_of(endpoint("10.0.2.2", terminating=True))))
    assert active(found.backends) == {"10.0.2.2"}
