"""Host ports, and what is redirected to the pods of the caller's node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from axoneme.model.labels import K8S, Selector, equals
from axoneme.model.localredirect import LocalRedirectPolicy, RedirectPort
from axoneme.model.metadata import Metadata
from axoneme.model.services import ServicePort
from axoneme.services.balanced import Balanced, Frontend, FrontendKind
from axoneme.services.cluster import Changes, ClusterServices
from axoneme.services.facts import LocalPod, NodeFacts, PodPort

from .given import NODE, active, at, balanced, cluster, endpoint, only, service, slice_of

DNS, DNS_TCP = RedirectPort(53, "UDP", "dns"), RedirectPort(53, "TCP", "dns-tcp")
PORTS = (PodPort(5353, "UDP", "dns"), PodPort(5353, "TCP", "dns-tcp"))
TO, TO_TCP = RedirectPort(5353, "UDP", "dns"), RedirectPort(5353, "TCP", "dns-tcp")


def pod(
    name: str = "cache",
    addresses: Iterable[str] = ("10.0.1.9",),
    ports: tuple[PodPort, ...] = PORTS,
    *,
    app: str = "dns",
    ready: bool = True,
    namespace: str = "shop",
) -> LocalPod:
    return LocalPod(namespace, name, tuple(map(ip_address, addresses)), {"app": app}, ports, ready)


def policy(
    ports: tuple[RedirectPort, ...] = (DNS,),
    to: tuple[RedirectPort, ...] = (TO,),
    *,
    address: str = "169.254.20.10",
    of: str = "",
    name: str = "r",
) -> LocalRedirectPolicy:
    selector = Selector((equals(K8S, "app", "dns"),))
    where = None if of else ip_address(address)
    return LocalRedirectPolicy(Metadata(name, "shop"), selector, to, where, of, ports)


def told(*things: LocalPod | LocalRedirectPolicy, into: ClusterServices | None = None) -> ClusterServices:
    made = into or ClusterServices(NODE)
    for each in things:
        if isinstance(each, LocalPod):
            made.upsert_pod(each)
        else:
            made.upsert_redirect(each)
    return made


# ---- host ports ----------------------------------------------------------------------------------


def hosted(ip: str | None = None, addresses: Iterable[str] = ("10.0.1.9", "fd01::9")) -> LocalPod:
    at = None if ip is None else ip_address(ip)
    return pod(addresses=addresses, ports=(PodPort(8080, "TCP", "http", 80, at), PodPort(9090)))


def test_a_host_port_is_served_at_every_address_of_the_node() -> None:
    found = only(told(hosted()))
    assert (found.name, found.port) == ("shop/cache", "host:80/TCP")
    assert at(found) == {"0.0.0.0 80", ":: 80"} and active(found.backends) == {"10.0.1.9", "fd01::9"}
    assert all(each.external and each.kind is FrontendKind.HOST_PORT for each in found.frontends)


def test_a_pod_of_one_family_has_host_ports_of_it() -> None:
    assert at(only(told(hosted(addresses=["10.0.1.9"])))) == {"0.0.0.0 80"}


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("192.0.2.1", "192.0.2.1 80"), ("0.0.0.0", "0.0.0.0 80"), ("2001:db8::1", "2001:db8::1 80")],
)
def test_a_host_port_at_one_address(ip: str, expected: str) -> None:
    found = only(told(hosted(ip)))
    assert at(found) == {expected} and found.port == f"host:{ip}:80/TCP"


def test_a_host_port_at_a_loopback_address_is_not_served_but_said() -> None:
    made = told(hosted("127.0.0.1"))
    assert not made.changes()
    assert "at 127.0.0.1" in made.problems["Pod shop/cache"]
    made.remove_pod("shop", "cache")
    made.changes()
    assert not made.problems


def test_a_host_port_goes_with_its_pod() -> None:
    made = told(hosted())
    made.changes()
    made.remove_pod("shop", "cache")
    assert made.changes() == Changes((), (("shop/cache", "host:80/TCP"),))


def test_a_host_port_does_not_wait_for_readiness() -> None:
    assert only(told(replace(hosted(), ready=False))).backends


# ---- redirects of addresses ----------------------------------------------------------------------


def test_an_address_leads_to_the_pods_of_this_node() -> None:
    found = only(told(policy(), pod(), pod("second", ["10.0.1.10", "fd01::9"])))
    assert (found.name, found.port) == ("shop/r", "redirect:53/UDP")
    (frontend,) = found.frontends
    assert frontend == Frontend(ip_address("169.254.20.10"), 53, found.protocol, FrontendKind.LOCAL_REDIRECT)
    assert active(found.backends) == {"10.0.1.9", "10.0.1.10", "fd01::9"}
    assert {each.port for each in found.backends} == {5353}


@pytest.mark.parametrize(
    "other",
    [
        pod(app="web"),
        pod(ready=False),
        pod(namespace="other"),
        pod(ports=()),
        pod(ports=(PodPort(5353, "TCP", "dns"),)),
    ],
)
def test_without_a_pod_to_go_to_nothing_is_redirected(other: LocalPod) -> None:
    assert not told(policy(), other).changes()
    of_service = cluster(service(ServicePort(53, 53, "dns", "UDP")), slice_of(endpoint("10.0.2.1")))
    before = only(of_service)
    told(policy((), of="web"), other, into=of_service)
    assert not of_service.changes() and before.backends == ()


def test_names_say_which_ports_belong_together() -> None:
    found = balanced(told(policy((DNS, DNS_TCP), (TO, TO_TCP)), pod()))
    assert {name: [each.port for each in one.backends] for name, one in found.items()} == {
        "redirect:53/UDP": [5353],
        "redirect:53/TCP": [5353],
    }
    unnamed = pod(ports=tuple(replace(each, name="") for each in PORTS))
    assert not told(policy((DNS, DNS_TCP), (TO, TO_TCP)), unnamed).changes()


def test_a_redirect_comes_and_goes_with_its_pods() -> None:
    made = told(policy())
    assert not made.changes()
    made.upsert_pod(pod())
    assert only(made).backends
    made.upsert_pod(pod(ready=False))
    assert made.changes() == Changes((), (("shop/r", "redirect:53/UDP"),))
    made.upsert_pod(pod())
    made.changes()
    made.remove_redirect("shop", "r")
    assert made.changes() == Changes((), (("shop/r", "redirect:53/UDP"),))


def test_a_node_without_the_family_redirects_nothing() -> None:
    made = ClusterServices(NodeFacts("n1", versions=(6,)))
    assert not told(policy(), pod(), into=made).changes()


# ---- redirects of services -----------------------------------------------------------------------

DNS_SERVICE = service(
    ServicePort(53, 53, "dns", "UDP", 30053), ServicePort(53, 53, "dns-tcp", "TCP", 30053), name="web"
)


def redirected(*things: LocalPod | LocalRedirectPolicy, type_: str = "ClusterIP") -> dict[str, Balanced]:
    from axoneme.model.endpointslices import EndpointPort

    numbers = [EndpointPort(53, "dns", "UDP"), EndpointPort(53, "dns-tcp")]
    made = cluster(replace(DNS_SERVICE, type=type_), slice_of(endpoint("10.0.2.1"), ports=numbers))
    return balanced(told(*things, into=made))


def test_all_ports_of_a_service() -> None:
    found = redirected(policy((), (TO, TO_TCP), of="web"), pod())
    assert {name: active(one.backends) for name, one in found.items()} == {
        "dns": {"10.0.1.9"},
        "dns-tcp": {"10.0.1.9"},
    }


def test_some_ports_of_a_service() -> None:
    found = redirected(policy((DNS,), (TO,), of="web"), pod())
    assert active(found["dns"].backends) == {"10.0.1.9"}
    assert active(found["dns-tcp"].backends) == {"10.0.2.1"}


def test_a_service_without_a_local_pod_keeps_its_endpoints() -> None:
    found = redirected(policy((), (TO, TO_TCP), of="web"))
    assert all(active(one.backends) == {"10.0.2.1"} for one in found.values())


def test_who_calls_a_node_port_is_not_redirected() -> None:
    found = redirected(policy((), (TO,), of="web"), pod(), type_="NodePort")
    assert at(found["dns"]) == {"10.96.0.1 53"} and active(found["dns"].backends) == {"10.0.1.9"}
    assert at(found["dns/external"]) == {"0.0.0.0 30053"}
    assert active(found["dns/external"].backends) == {"10.0.2.1"}


def test_of_two_policies_the_first_by_name_redirects() -> None:
    two = (pod("other", ["10.0.1.10"], (PodPort(53, "UDP"),)), pod())
    later = policy((DNS,), (RedirectPort(53, "UDP"),), of="web", name="s")
    assert active(redirected(later, policy((DNS,), of="web"), *two)["dns"].backends) == {"10.0.1.9"}


def test_a_policy_that_turns_to_another_service_lets_go_of_the_first() -> None:
    made = cluster(service(ServicePort(53, 53, "dns", "UDP")), slice_of(endpoint("10.0.2.1")))
    told(policy((), of="web"), pod(), into=made)
    assert active(only(made).backends) == {"10.0.1.9"}
    made.upsert_redirect(policy((), of="other"))
    assert active(only(made).backends) == set()
