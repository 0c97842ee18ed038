"""The choice of endpoints against the rules as Kubernetes' documentation words them, on random slices."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.endpointslices import Endpoint, EndpointPort, EndpointSlice
from axoneme.model.metadata import Metadata
from axoneme.model.services import Service
from axoneme.services.balanced import Backend, BackendState, FrontendKind
from axoneme.services.cluster import ClusterServices
from axoneme.services.facts import NodeFacts

from .given import HTTP, service

NODES = ["n1", "n2", "n3"]
ZONES = ["a", "b"]
HERE = NodeFacts("n1", {"topology.kubernetes.io/zone": "a"})


class Told(NamedTuple):
    """An endpoint at a port, as one of the slices has it."""

    endpoint: Endpoint
    port: int


def takes(told: list[Told], *, local_only: bool) -> set[tuple[str, int]]:
    """Who takes a new connection, of the endpoints of one family."""
    if local_only:
        told = [each for each in told if each.endpoint.node == HERE.name]
    ready = [each for each in told if each.endpoint.ready]
    if not ready:
        ready = [each for each in told if each.endpoint.serving and each.endpoint.terminating]
    elif not local_only:
        for hints, mine in (("nodes", HERE.name), ("zones", "a")):
            if all(getattr(each.endpoint, hints) for each in ready):
                meant = [each for each in ready if mine in getattr(each.endpoint, hints)]
                if meant:
                    ready = meant
                    break
    return {(f"{each.endpoint.addresses[0]}", each.port) for each in ready}


def of_family(slices: Iterable[EndpointSlice], version: int) -> list[Told]:
    """Each endpoint once: the entry that is of this node, and then the one that is ready, is right."""
    every = [
        Told(endpoint, port.port)
        for each in slices
        if each.version == version
        for port in each.ports
        if (port.name, port.protocol) == ("http", "TCP") and port.port
        for endpoint in each.endpoints
    ]
    every.sort(key=lambda told: (told.endpoint.node != HERE.name, not told.endpoint.ready))
    best: dict[tuple[object, int], Told] = {}
    for told in every:
        best.setdefault((told.endpoint.addresses[0], told.port), told)
    return list(best.values())


@st.composite
def endpoint_slices(draw: st.DrawFn) -> list[EndpointSlice]:
    hinted = draw(st.booleans())
    found = []
    for number in range(draw(st.integers(0, 4))):
        version = draw(st.sampled_from([4, 4, 6]))
        endpoints = []
        for last in draw(st.lists(st.integers(1, 6), max_size=4, unique=True)):
            address = IPv4Address(0x0A000000 + last) if version == 4 else IPv6Address((0xFD << 120) + last)
            zones = draw(st.frozensets(st.sampled_from(ZONES), min_size=int(hinted), max_size=2))
            nodes = draw(st.just(frozenset[str]()) | st.frozensets(st.sampled_from(NODES), min_size=1))
            flags = (draw(st.booleans()) for _ in range(3))
            node, zone = draw(st.sampled_from(NODES)), draw(st.sampled_from(ZONES))
            endpoints.append(Endpoint((address,), *flags, node, zone, zones, nodes))
        ports = draw(
            st.sampled_from(
                [
                    (EndpointPort(8080, "http"),),
                    (EndpointPort(8081, "http"), EndpointPort(9, "other")),
                    (EndpointPort(8080, "http", "UDP"),),
                    (EndpointPort(0, "http"),),
                    (),
                ]
            )
        )
        name = Metadata(f"web-{number}", "shop")
        found.append(EndpointSlice(name, "web", version, tuple(endpoints), ports))
    return found


def services() -> st.SearchStrategy[Service]:
    policy = st.sampled_from(["Cluster", "Local"])
    return st.builds(
        lambda type_, internal, external: service(
            HTTP,
            ips=("10.96.0.1", "fd00::1"),
            type=type_,
            internal_policy=internal,
            external_policy=external,
        ),
        st.sampled_from(["ClusterIP", "NodePort"]),
        policy,
        policy,
    )


def chosen(backends: Iterable[Backend], version: int) -> set[tuple[str, int]]:
    return {
        (f"{each.address}", each.port)
        for each in backends
        if each.state is BackendState.ACTIVE and each.address.version == version
    }


@given(services(), endpoint_slices())
@settings(max_examples=200, deadline=None)
def test_new_connections_go_where_the_rules_say(wanted: Service, slices: list[EndpointSlice]) -> None:
    made = ClusterServices(HERE)
    made.upsert_service(wanted)
    for each in slices:
        made.upsert_slice(each)
    seen = set()
    for balanced in made.changes().upserts:
        for frontend in balanced.frontends:
            version = frontend.address.version
            told = of_family(slices, version)
            at_service = frontend.kind is FrontendKind.CLUSTER_IP
            local_only = at_service and wanted.internal_policy == "Local"
            assert chosen(balanced.backends, version) == takes(told, local_only=local_only)
            outside = balanced.backends if balanced.outside is None else balanced.outside
            if frontend.external:
                local_only = wanted.external_policy == "Local"
                assert chosen(outside, version) == takes(told, local_only=local_only)
            seen.add((frontend.kind, version))
            # Nobody is told twice, and who leaves is an endpoint of the service.
            known = {(each.endpoint.addresses[0], each.port) for each in told}
            for view in (balanced.backends, outside):
                spots = [(each.address, each.port) for each in view if each.address.version == version]
                assert len(set(spots)) == len(spots) and set(spots) <= known
    kinds = [FrontendKind.CLUSTER_IP, *([FrontendKind.NODE_PORT] if wanted.type == "NodePort" else [])]
    assert seen == {(kind, version) for kind in kinds for version in (4, 6)}


@given(services(), st.lists(endpoint_slices(), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_the_way_there_makes_no_difference(wanted: Service, steps: list[list[EndpointSlice]]) -> None:
    """Told change by change, it is what it would be if only the last state had been told."""
    made, told = ClusterServices(HERE), {}
    for number, slices in enumerate(steps):
        if number % 2:
            made.remove_service("shop", "web")
        else:
            made.upsert_service(wanted)
        names = {each.metadata.name for each in slices}
        for name in {"web-0", "web-1", "web-2", "web-3"} - names:
            made.remove_slice("shop", name)
        for each in slices:
            made.upsert_slice(each)
        changes = made.changes()
        for gone in changes.removals:
            del told[gone]
        told |= {(each.name, each.port): each for each in changes.upserts}
    if len(steps) % 2 == 0:
        assert not told
        return
    fresh = ClusterServices(HERE)
    for each in reversed(steps[-1]):
        fresh.upsert_slice(each)
    fresh.upsert_service(wanted)
    assert told == {(each.name, each.port): each for each in fresh.changes().upserts}
