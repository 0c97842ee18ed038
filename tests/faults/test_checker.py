"""The checkers themselves: they notice a short hole, and one packet that should not have passed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkers import CLOSED, DENIED, KINDS, Place, Report, Stream, between, under_traffic
from two_nodes import Namespaces

from axoneme.net.commands import ip

ADDRESSES = {"left": ("192.0.2.1", "2001:db8::1"), "right": ("192.0.2.2", "2001:db8::2")}


@pytest.fixture
def places() -> Iterator[list[Place]]:
    """Two namespaces and a cable, no datapath of ours in between."""
    namespaces = Namespaces()
    try:
        made = [Place(name, namespaces.add(name), ADDRESSES[name]) for name in ADDRESSES]
        left, right = (each.namespace for each in made)
        ip([f"link add eth0 type veth peer name eth0 netns {right}"], left)
        for place in made:
            ip(["link set eth0 up", *map(address_command, place.addresses)], place.namespace)
        yield made
    finally:
        namespaces.close()


def address_command(address: str) -> str:
    return f"addr add {address}/64 dev eth0 nodad" if ":" in address else f"addr add {address}/24 dev eth0"


def denied(places: list[Place], kind: str, count: int) -> Stream:
    left, right = places
    port = CLOSED
    return Stream(kind, left.name, right.name, right.addresses[0], port, 0, DENIED, count, allowed=False)


def run(program: Path, places: list[Place], hole: float, *more: Stream) -> Report:
    left, right = places
    with under_traffic(program, "self-test", places, [*between(left, right), *more]) as report:
        time.sleep(0.3)
        if hole:
            ip([f"addr del {a}/{64 if ':' in a else 24} dev eth0" for a in right.addresses], right.namespace)
            time.sleep(hole)
            ip([address_command(address) for address in right.addresses], right.namespace)
        time.sleep(0.3)
    return report


@pytest.fixture(autouse=True)
def not_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkers.REPORTS", [])


def test_nothing_is_found_where_nothing_is_wrong(checker: Path, places: list[Place]) -> None:
    report = run(checker, places, 0)
    assert not report.lost, report
    assert not report.wrong, report
    assert all(outcome.sent for _, outcome in report.outcomes)


def test_a_hole_of_300_ms_is_noticed_by_every_stream(checker: Path, places: list[Place]) -> None:
    report = run(checker, places, 0.3)
    for stream, outcome in report.outcomes:
        assert outcome.lost + outcome.resent, stream
        if stream.kind in ("udp", "icmp"):
            assert outcome.lost >= 10, (stream, outcome)
            assert 0.1 <= outcome.last_lost - outcome.first_lost <= 3, (stream, outcome)
    assert {stream.kind for stream, _ in report.outcomes} == set(KINDS)


@pytest.mark.parametrize("kind", ["udp", "icmp", "connect", "ask"])
def test_one_packet_that_should_not_have_passed_is_noticed(
    checker: Path, places: list[Place], kind: str
) -> None:
    report = run(checker, places, 0, denied(places, kind, 1))
    assert report.denied == 1
    assert report.wrong >= 1
    assert not report.lost, report
    assert not report.clean()
