"""Who announces which addresses on which device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from ipaddress import ip_address

from axoneme.model.announcementpolicy import AnnouncementPolicy
from axoneme.model.exposure import ExposedService, labels_of
from axoneme.model.labels import K8S, Label, Labels, Selector, equals
from axoneme.model.metadata import Metadata
from axoneme.model.services import Ingress, Service
from axoneme.services.announcements import Key, candidacies, hesitation

EDGE = Labels([Label(K8S, "role", "edge")])
BOTH = AnnouncementPolicy(Metadata("both"), external_ips=True, load_balancer_ips=True)


def service(
    name: str,
    *ingress: str,
    external: Collection[str] = (),
    labels: dict[str, str] | None = None,
    kind: str = "LoadBalancer",
    of_class: str = "",
    local: bool = False,
    proxy: bool = False,
) -> ExposedService:
    metadata = Metadata(name, "default", labels or {})
    about = Service(
        metadata,
        kind,
        external_ips=tuple(map(ip_address, external)),
        external_policy="Local" if local else "Cluster",
        load_balancer_class=of_class,
        ingress=tuple(Ingress(ip_address(each), proxy=proxy) for each in ingress),
    )
    return ExposedService(about, labels_of(metadata))


def announced(
    services: list[ExposedService],
    *policies: AnnouncementPolicy,
    devices: Collection[str] = ("eth0",),
    node: Labels = EDGE,
    here: Collection[str] = (),
) -> dict[str, set[str]]:
    """By the name of the service that the lease is of: addresses and devices."""
    found = candidacies(services, policies, node, devices, lambda key: key[1] in here)
    return {name: {f"{each.address} {each.device}" for each in what} for (_, name), what in found.items()}


def test_a_policy_says_which_addresses_are_announced() -> None:
    both = service("a", "10.0.0.1", "fd00::1", external=["192.0.2.1"])
    assert announced([both], BOTH) == {"a": {"10.0.0.1 eth0", "fd00::1 eth0", "192.0.2.1 eth0"}}
    assert announced([both], AnnouncementPolicy(Metadata("p"), external_ips=True)) == {
        "a": {"192.0.2.1 eth0"}
    }
    assert announced([both], AnnouncementPolicy(Metadata("p"))) == {}
    assert announced([both]) == {}


def test_selectors_and_devices() -> None:
    red, blue = service("red", "10.0.0.1", labels={"color": "red"}), service("blue", "10.0.0.2")
    of_red = AnnouncementPolicy(
        Metadata("p"),
        Selector((equals(K8S, "color", "red"),)),
        Selector((equals(K8S, "role", "edge"),)),
        (re.compile("^eth[0-9]+"),),
        load_balancer_ips=True,
    )
    assert announced([red, blue], of_red, devices=["eth0", "eth1", "wlan0"]) == {
        "red": {"10.0.0.1 eth0", "10.0.0.1 eth1"}
    }
    assert announced([red, blue], of_red, devices=["wlan0"]) == {}
    assert announced([red, blue], of_red, node=Labels()) == {}
    named = AnnouncementPolicy(
        Metadata("p"), Selector((equals(K8S, "io.kubernetes.service.name", "blue"),)), load_balancer_ips=True
    )
    assert announced([red, blue], of_red, named).keys() == {"red", "blue"}


def test_what_others_balance_is_not_announced() -> None:
    services = [
        service("l2", "10.0.0.1", of_class="io.cilium/l2-announcer"),
        service("bgp", "10.0.0.2", of_class="io.cilium/bgp-control-plane"),
        service("metal", "10.0.0.3", of_class="example.com/metal"),
        service("cluster", "10.0.0.4", kind="ClusterIP"),
        service("proxied", "10.0.0.5", proxy=True),
        service("external", external=["192.0.2.1"], kind="ClusterIP"),
    ]
    assert announced(services, BOTH).keys() == {"l2", "external"}


def test_only_who_has_an_endpoint_announces_a_local_service() -> None:
    local = service("a", "10.0.0.1", local=True)
    assert announced([local], BOTH) == {}
    assert announced([local], BOTH, here=["a"]).keys() == {"a"}


def test_services_that_share_an_address_have_one_lease() -> None:
    services = [
        service("c", "10.0.0.1", "10.0.0.2"),
        service("b", "10.0.0.2", "10.0.0.3"),
        service("d", "10.0.0.9"),
        service("a", "10.0.0.3", external=["10.0.0.4"]),
    ]
    shared = {f"10.0.0.{n} eth0" for n in (1, 2, 3, 4)}
    for order in (services, services[::-1], services[1:] + services[:1]):
        assert announced(order, BOTH) == {"a": shared, "d": {"10.0.0.9 eth0"}}
    half = [service("a", "10.0.0.1", local=True), service("b", "10.0.0.1", local=True)]
    assert announced(half, BOTH, here=["a"]) == {}


def test_services_spread_over_the_nodes() -> None:
    nodes = [f"node{number}" for number in range(4)]
    first: Counter[str] = Counter()
    for number in range(400):
        key: Key = ("default", f"s{number}")
        waits = {node: hesitation(key, node, nodes) for node in nodes}
        assert sorted(waits.values()) == [0, 0.25, 0.5, 0.75]
        first[min(waits, key=waits.__getitem__)] += 1
    assert min(first.values()) > 60
    assert hesitation(("default", "a"), "node1", []) == 0
    assert max(hesitation(("a", "b"), f"n{n}", [f"n{m}" for m in range(99)]) for n in range(99)) == 1
