"""Services as kube-proxy serves them, case by case: who takes the calls, and what a change changes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from axoneme.model.endpointslices import Endpoint, EndpointPort
from axoneme.model.metadata import Metadata
from axoneme.model.policy import Protocol
from axoneme.model.services import HEADLESS, PROXY_NAME, Service, ServicePort
from axoneme.services.balanced import Algorithm, Backend, FrontendKind
from axoneme.services.cluster import Changes, ClusterServices
from axoneme.services.facts import LocalPod, NodeFacts, Options, PodPort

from .given import HTTP, NODE, active, at, balanced, cluster, endpoint, leaving, only, service, slice_of

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


def test_of_two_entries_the_one_of_this_node_counts_before_the_ready_one() -> None:
    here = endpoint("10.0.1.1", "unready", node="n1")
    elsewhere = endpoint("10.0.1.1", node="n2")
    for first, second in ((here, elsewhere), (elsewhere, here)):
        found = only(cluster(service(), slice_of(first), slice_of(second, name="web-2")))
        assert not active(found.backends) and leaving(found.backends) == {"10.0.1.1"}


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


# ---- traffic policies ----------------------------------------------------------------------------


def test_internal_policy_local_gives_endpoints_of_this_node() -> None:
    found = only(cluster(service(internal_policy="Local"), slice_of(FAR, NEAR)))
    assert active(found.backends) == {"10.0.1.1"}


def test_internal_policy_local_without_an_endpoint_here_refuses() -> None:
    assert only(cluster(service(internal_policy="Local"), slice_of(FAR))).backends == ()


def test_internal_policy_local_does_not_bind_who_calls_by_an_outer_address() -> None:
    made = cluster(service(type="NodePort", internal_policy="Local"), slice_of(FAR, NEAR))
    found = balanced(made)
    assert at(found["http"]) == {"10.96.0.1 80"} and active(found["http"].backends) == {"10.0.1.1"}
    outer = found["http/external"]
    assert at(outer) == {"0.0.0.0 30080"} and outer.outside is None
    assert active(outer.backends) == {"10.0.1.1", "10.0.2.1"}


def test_external_policy_local_is_for_callers_from_outside() -> None:
    found = only(cluster(service(type="NodePort", external_policy="Local"), slice_of(FAR, NEAR)))
    assert active(found.backends) == {"10.0.1.1", "10.0.2.1"}  # pods and nodes are short-circuited
    assert active(found.outside) == {"10.0.1.1"}


def test_external_policy_local_uses_a_going_endpoint_of_this_node_before_none() -> None:
    going = endpoint("10.0.1.2", "serving", node="n1")
    found = only(cluster(service(type="NodePort", external_policy="Local"), slice_of(FAR, going)))
    assert (active(found.backends), active(found.outside)) == ({"10.0.2.1"}, {"10.0.1.2"})


def test_external_policy_local_without_a_way_in_from_outside_changes_nothing() -> None:
    assert only(cluster(service(external_policy="Local"), slice_of(FAR))).outside is None


def test_both_policies_local() -> None:
    both = service(type="NodePort", external_policy="Local", internal_policy="Local")
    found = balanced(cluster(both, slice_of(FAR, NEAR)))
    assert found["http"].outside is None and active(found["http"].backends) == {"10.0.1.1"}
    outer = found["http/external"]
    assert (active(outer.backends), active(outer.outside)) == ({"10.0.1.1", "10.0.2.1"}, {"10.0.1.1"})


# ---- topology ------------------------------------------------------------------------------------

IN_A = endpoint("10.0.2.1", node="n2", zone="a", zones=frozenset("a"))
IN_B = endpoint("10.0.3.1", node="n3", zone="b", zones=frozenset("b"))
UNHINTED = endpoint("10.0.4.1", node="n4", zone="b")


def test_hints_keep_callers_in_their_zone() -> None:
    found = only(cluster(service(), slice_of(IN_A, IN_B)))
    assert (active(found.backends), leaving(found.backends)) == ({"10.0.2.1"}, {"10.0.3.1"})


@pytest.mark.parametrize(
    ("node", "endpoints"),
    [
        (NODE, (IN_A, IN_B, UNHINTED)),  # one endpoint without a hint
        (NodeFacts("n1", {"topology.kubernetes.io/zone": "c"}), (IN_A, IN_B)),  # none for this zone
        (NodeFacts("n1"), (IN_A, IN_B)),  # the node has no zone
    ],
)
def test_hints_that_do_not_fit_are_passed_over(node: NodeFacts, endpoints: tuple[Endpoint, ...]) -> None:
    found = only(cluster(service(), slice_of(*endpoints), node=node))
    assert active(found.backends) == {f"{each.addresses[0]}" for each in endpoints}


def test_endpoints_that_are_not_ready_need_no_hints() -> None:
    unready = endpoint("10.0.4.1", "unready")
    assert active(only(cluster(service(), slice_of(IN_A, IN_B, unready))).backends) == {"10.0.2.1"}


def test_the_same_node_comes_before_the_same_zone() -> None:
    here = endpoint("10.0.1.1", node="n1", zones=frozenset("a"), nodes=frozenset({"n1"}))
    near = endpoint("10.0.2.1", node="n2", zones=frozenset("a"), nodes=frozenset({"n2"}))
    assert active(only(cluster(service(), slice_of(here, near, IN_B))).backends) == {"10.0.1.1", "10.0.2.1"}
    assert active(only(cluster(service(), slice_of(here, near))).backends) == {"10.0.1.1"}


def test_without_an_endpoint_for_the_node_the_zone_counts() -> None:
    near = endpoint("10.0.2.1", node="n2", zones=frozenset("a"), nodes=frozenset({"n2"}))
    far = endpoint("10.0.3.1", node="n3", zones=frozenset("b"), nodes=frozenset({"n3"}))
    assert active(only(cluster(service(), slice_of(near, far))).backends) == {"10.0.2.1"}


def test_hints_mean_nothing_to_policies_local() -> None:
    here = endpoint("10.0.1.1", node="n1", zones=frozenset("b"))
    found = only(cluster(service(internal_policy="Local"), slice_of(here, IN_A)))
    assert active(found.backends) == {"10.0.1.1"}


def test_traffic_distribution_acts_through_hints_alone() -> None:
    found = only(cluster(service(traffic_distribution="PreferSameNode"), slice_of(FAR, NEAR)))
    assert active(found.backends) == {"10.0.1.1", "10.0.2.1"}


# ---- change by change ----------------------------------------------------------------------------


def test_nothing_new_is_no_change() -> None:
    made = cluster(service(), slice_of(FAR))
    assert made.changes() and not made.changes()
    made.upsert_service(service())
    made.upsert_slice(slice_of(FAR))
    assert not made.changes()


def test_one_slice_changes_one_service() -> None:
    made = ClusterServices(NODE)
    for number in range(20):
        made.upsert_service(service(name=f"s{number}", ips=[f"10.96.0.{number + 1}"]))
        made.upsert_slice(slice_of(FAR, name=f"s{number}-1", of=f"s{number}"))
    assert len(made.changes().upserts) == 20
    made.upsert_slice(slice_of(FAR, NEAR, name="s7-1", of="s7"))
    assert [each.name for each in made.changes().upserts] == ["shop/s7"]


def test_a_slice_may_come_before_its_service_and_go_to_another() -> None:
    made = ClusterServices(NODE)
    made.upsert_slice(slice_of(FAR))
    assert not made.changes()
    made.upsert_service(service())
    made.upsert_service(service(name="api", ips=["10.96.0.2"]))
    assert {each.name: active(each.backends) for each in made.changes().upserts} == {
        "shop/web": {"10.0.2.1"},
        "shop/api": set(),
    }
    made.upsert_slice(slice_of(FAR, of="api"))
    assert {each.name: active(each.backends) for each in made.changes().upserts} == {
        "shop/web": set(),
        "shop/api": {"10.0.2.1"},
    }
    made.remove_slice("shop", "web-1")
    assert [each.name for each in made.changes().upserts] == ["shop/api"]
    made.remove_slice("shop", "web-1")
    assert not made.changes()


def test_a_port_that_goes() -> None:
    two = service(HTTP, ServicePort(443, 8443, "https"))
    made = cluster(two, slice_of(FAR))
    made.changes()
    made.upsert_service(service())
    assert made.changes() == Changes((), (("shop/web", "https"),))
    made.remove_service("shop", "web")
    assert made.changes() == Changes((), (("shop/web", "http"),))
    made.remove_service("shop", "web")
    assert not made.changes()


def test_a_service_without_selector_has_the_slices_that_somebody_writes() -> None:
    made = cluster(service(selector={}), slice_of(endpoint("203.0.113.5")))
    assert active(only(made).backends) == {"203.0.113.5"}
    assert made.addresses("shop", "web") == {ip_address("203.0.113.5")}


def test_a_service_knows_its_age() -> None:
    old = replace(service(), metadata=Metadata("web", "shop", created="2026-01-01T00:00:00Z"))
    assert only(cluster(old)).created == "2026-01-01T00:00:00Z"


def test_changes_can_be_asked_for_a_few_services_at_a_time() -> None:
    made = ClusterServices(NODE)
    for n in range(5):
        made.upsert_service(service(name=f"web-{n}", ips=[f"10.96.0.{n + 1}"]))
    assert made.waiting == 5
    found = [made.changes(2) for _ in range(4)]
    assert [len(each.upserts) for each in found] == [2, 2, 1, 0]
    assert len({each.name for changes in found for each in changes.upserts}) == 5 and made.waiting == 0


def test_what_a_pod_needs_does_not_wait_for_what_others_changed() -> None:
    made = cluster(service())
    ports = (PodPort(8080, host_port=80),)
    made.upsert_pod(LocalPod("shop", "cache", (ip_address("10.0.1.1"),), ports=ports))
    assert [each.frontends[0].kind for each in made.changes(0).upserts] == [FrontendKind.HOST_PORT]
    assert [each.name for each in made.changes().upserts] == ["shop/web"]
