"""Flows that called services: what is said of the service, how it is shown, and what is counted."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.flows import render
from axoneme.flows.encode import Encoder
from axoneme.flows.flow import Flow
from axoneme.flows.names import End
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.traffic import Counts, Tally, traffic
from axoneme.identity.prefixes import address_bytes

from .records import DROP, EVENT, REPLY, SERVED, VOCABULARY, event, records, some_names

SERVICES = ServiceNames()
SERVICES.put(12, ServicePort("shop/web", "http"))
SERVICES.put(13, ServicePort("edge", "80/TCP"))


def flow(**fields: Any) -> Flow:
    names = some_names()
    for address, pod in (("10.0.0.1", "client"), ("10.0.0.2", "web-1")):
        names.put(pod, [address_bytes(address)], End((), "shop", pod))
    called = {"flags": SERVED, "service": 12, "backend": 3, "frontend": "10.96.0.7", "frontend_port": 80}
    made = records(event(**({"destination_port": 8080} | called | fields)), names=names)
    return Encoder(names, lambda _: (), SERVICES, Requests(), "n1", VOCABULARY).flows(made)[0]


def test_a_flow_says_which_service_was_called_and_what_answered_in_the_fields_of_hubble() -> None:
    said = msgspec.to_builtins(flow())
    assert said["destination_service"] == {"name": "web", "namespace": "shop", "port": "http"}
    assert "source_service" not in said
    assert said["IP"]["destination"] == "10.0.0.2"
    assert (said["IP"]["frontend"], said["IP"]["frontend_port"]) == ("10.96.0.7", 80)


def test_of_a_reply_the_service_is_the_source() -> None:
    said = flow(kind=DROP, reason=211, flags=SERVED | REPLY, source="10.0.0.2", destination="10.0.0.1")
    assert said.destination_service is None
    assert str(said.source_service) == "shop/web"
    assert "shop/web-1:40000 (ID:300) -> shop/web:80 (service) -> shop/client" in render.compact(said, UTC)


def test_a_service_without_a_namespace_and_one_that_nobody_has_told_of() -> None:
    assert msgspec.to_builtins(flow(service=13).destination_service) == {"name": "edge", "port": "80/TCP"}
    assert msgspec.to_builtins(flow(service=99).destination_service) == {"name": "service 99"}


def test_no_service_is_named_where_none_was_called() -> None:
    said = msgspec.to_builtins(flow(flags=0, service=0, frontend="0.0.0.0", frontend_port=0))
    assert not {"destination_service", "source_service"} & said.keys()
    assert "frontend" not in said["IP"]


def test_a_line_shows_the_service_between_client_and_backend() -> None:
    assert "shop/client:40000 (ID:300) -> shop/web:80 (service) -> shop/web-1:8080 (ID:301) TCP" in (
        render.compact(flow(), UTC)
    )
    assert "SERVICE: shop/web, port http, called as 10.96.0.7:80" in render.block(flow())
    six = flow(frontend="fd00::7")
    assert "called as [fd00::7]:80" in render.block(six)


def test_of_what_was_refused_the_service_is_the_destination() -> None:
    refused = flow(kind=DROP, reason=211, destination="10.96.0.7", destination_port=80, backend=0)
    assert refused.IP.frontend == ""
    assert "shop/client:40000 (ID:300) -> shop/web:80 (service) TCP DROPPED" in render.compact(refused, UTC)
    assert "called as 10.96.0.7:80" in render.block(refused)


CONNECTIONS = st.tuples(
    st.integers(1, 4), st.integers(1, 4), *[st.integers(0, 1 << 20)] * 4
)  # service, backend, packets from and to the initiator, bytes from and to


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(CONNECTIONS, max_size=30), max_size=5))
def test_a_tally_adds_up_batches_as_one_would_by_hand(batches: list[list[tuple[int, ...]]]) -> None:
    tally = Tally()
    expected: dict[tuple[int, int], list[int]] = {}
    for batch in batches:
        add(tally, batch)
        for service, backend, *moved in batch:
            row = expected.setdefault((service, backend), [0] * 5)
            for place, number in enumerate((1, moved[0], moved[2], moved[1], moved[3])):
                row[place] += number
    assert tally.sums().by_backend() == {key: Counts(*row) for key, row in expected.items()}


def test_a_tally_of_too_many_backends_forgets_those_that_were_idle_for_longest() -> None:
    tally = Tally(most=100)
    for backend in (*range(1, 101), 1, 101):
        add(tally, [(1, backend, 1, 1, 1, 1)])
        tally.sums()
    known = tally.sums().by_backend()
    assert len(known) == 51
    assert known[1, 1].connections == 2
    assert (1, 101) in known
    assert (1, 2) not in known
    add(tally, [(1, 100, 1, 1, 1, 1), (1, 2, 1, 1, 1, 1)])
    assert tally.sums().by_backend()[1, 100].connections == 2


def test_traffic_has_a_line_for_each_backend_that_is_used_or_was() -> None:
    opened, ended = Tally(), Tally()
    add(opened, [(1, 2, 3, 4, 5, 6)])
    add(ended, [(1, 2, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1)])
    first, second = traffic(opened.sums(), ended.sums())
    assert (first.backend, first.open, first.ended.connections) == (1, Counts(), 1)
    assert (second.backend, second.open) == (2, Counts(1, 3, 5, 4, 6))


def add(tally: Tally, batch: list[tuple[int, ...]]) -> None:
    made = np.zeros(len(batch), EVENT)
    numbers = np.array(batch, np.uint64).reshape(-1, 6)
    made["service"], made["backend"] = numbers[:, 0], numbers[:, 1]
    made["packets"], made["bytes"] = numbers[:, 2:4], numbers[:, 4:6]
    tally.add(made, np.ones(len(batch), np.bool_))
