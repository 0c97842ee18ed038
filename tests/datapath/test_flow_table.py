"""The flow table under pressure: what is established stays, whatever begins beside it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from balancing import Balancer
from bench_node import REDIRECT, SHOT, Node, node

from axoneme.datapath.plane import Constants
from axoneme.flows.events import Vocabulary
from axoneme.flows.expiry import FlowTable
from axoneme.flows.kernel import Kernel, lifetimes
from axoneme.flows.traffic import Tally
from axoneme.flowserver.sweep import Sweep
from oracle.packets import ACK, ICMP, RST, SYN, TCP, UDP, Address, frame

SERVICE = ip_address("10.96.0.10")
CLIENT, SERVER = 300, 301
POD, OTHER = ip_address("10.244.1.5"), ip_address("10.244.1.6")
WORLD, OUR = ip_address("203.0.113.10"), ip_address("172.31.0.1")
PLACES = 64
QUOTA = 24
MINUTE = 60 * 10**9
HOUR = 60 * MINUTE


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Node]:
    sizes = {"flows": PLACES, "translations": PLACES, "half_open": 256, "half_open_translations": 256}
    with node(tmp_path / "bpf", Constants(flow_quota=QUOTA), **sizes) as made:
        made.uplink_to_everywhere(OUR)
        made.masquerade(OUR)
        made.endpoint(POD, CLIENT, ifindex=1, number=5)
        made.endpoint(OTHER, SERVER, ifindex=made.uplink, number=6)
        made.open(CLIENT, SERVER)
        yield made


def call(kernel: Node, port: int, to: Address = OTHER) -> int:
    """A pod's SYN; the source port of what leaves."""
    run = kernel.send("from_pod", frame(POD, to, TCP, port, 80))
    assert run.value == REDIRECT
    source: int = struct.unpack(">H", run.data[34:36])[0]
    return source


def confirms(kernel: Node, port: int, to: Address = OTHER) -> bool:
    """The pod has heard the answer."""
    return kernel.send("from_pod", frame(POD, to, TCP, port, 80, flags=ACK)).value == REDIRECT


def answers(kernel: Node, port: int, flags: int = SYN | ACK) -> bool:
    packet = frame(OTHER, POD, TCP, 80, port, flags=flags)
    return kernel.send("from_pod", packet, kernel.uplink).value == REDIRECT


def answered(kernel: Node, port: int, flags: int = SYN | ACK) -> bool:
    """By the other pod; an answer to a SYN is confirmed."""
    return answers(kernel, port, flags) and (not flags & SYN or confirms(kernel, port))


def answered_from_outside(kernel: Node, port: int, flags: int = SYN | ACK) -> bool:
    run = kernel.send("from_uplink", frame(WORLD, OUR, TCP, 80, port, flags=flags), kernel.uplink)
    (own,) = struct.unpack(">H", run.data[36:38])
    if run.value != REDIRECT or run.data[30:34] != POD.packed:
        return False
    return not flags & SYN or confirms(kernel, own, WORLD)


def places(kernel: Node) -> tuple[int, int]:
    return len(kernel.plane.flows.read_all()[0]), len(kernel.plane.half_open.read_all()[0])


def sweep(kernel: Node, root: Path, later: int = 0) -> int:
    """One whole walk, as the flow server does, ``later`` ns from now; how many entries it took."""
    schema = kernel.plane.schema
    with Kernel(root / "bpf/maps", schema) as maps:
        vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
        meaning = FlowTable.read(schema.enums, lifetimes())
        work = Sweep(maps, meaning, vocabulary, lambda: time.monotonic_ns() + later, Tally(), 60)
        work.step(budget=30)
        return work.removed


def test_an_answered_connection_gets_a_place_of_its_own(kernel: Node) -> None:
    call(kernel, 40000)
    assert places(kernel) == (0, 1)
    assert answered(kernel, 40000)
    assert places(kernel) == (1, 0)


def test_an_answer_that_nobody_confirms_makes_no_connection(kernel: Node, tmp_path: Path) -> None:
    """Who begins in another's name never hears the answer, however often it is given."""
    call(kernel, 40000)
    assert answers(kernel, 40000)
    assert answers(kernel, 40000)
    call(kernel, 40000)
    assert places(kernel) == (0, 1)
    assert sweep(kernel, tmp_path, 2 * MINUTE) == 1, "it does not live as long as a connection"
    call(kernel, 40001)
    assert answered(kernel, 40001)
    assert sweep(kernel, tmp_path, 2 * MINUTE) == 0


def test_a_refused_one_does_not(kernel: Node) -> None:
    call(kernel, 40000)
    assert answered(kernel, 40000, RST | ACK)
    assert places(kernel) == (0, 1)


def test_a_flood_of_beginnings_displaces_nothing_that_was_answered(kernel: Node) -> None:
    outside = {}
    for port in range(40000, 40010):
        call(kernel, port)
        assert answered(kernel, port)
        outside[port] = call(kernel, port, WORLD)
        assert answered_from_outside(kernel, outside[port])
    for port in range(1024, 6024):
        kernel.send("from_pod", frame(POD, WORLD, TCP, port, 80))
    assert places(kernel)[1] <= 256
    # Their own policy would not let in what is no answer.
    kernel.policies({})
    kernel.open(SERVER)
    kernel.send("from_pod", frame(POD, OTHER, TCP, 7, 80))
    for port, seen in outside.items():
        assert answered(kernel, port, ACK)
        assert answered_from_outside(kernel, seen, ACK)


def test_a_pod_beyond_its_quota_takes_no_more_places_and_is_still_served(kernel: Node) -> None:
    ports = range(40000, 40000 + QUOTA + 10)
    for port in ports:
        call(kernel, port)
        assert answered(kernel, port)
    assert places(kernel) == (QUOTA, 10)
    assert all(answered(kernel, port, ACK) for port in ports)
    # Others have room.
    run = kernel.send("from_pod", frame(OTHER, WORLD, UDP, 9, 53), kernel.uplink)
    (outside,) = struct.unpack(">H", run.data[34:36])
    assert kernel.send("from_uplink", frame(WORLD, OUR, UDP, 53, outside), kernel.uplink).value == REDIRECT
    assert places(kernel)[0] == QUOTA + 1


def test_a_full_table_refuses_nobody(tmp_path: Path) -> None:
    with node(tmp_path / "bpf", Constants(), flows=8, half_open=256) as kernel:
        kernel.uplink_to_everywhere(OUR)
        kernel.masquerade(OUR)
        kernel.endpoint(POD, CLIENT, ifindex=1, number=5)
        kernel.endpoint(OTHER, SERVER, ifindex=kernel.uplink, number=6)
        kernel.open(CLIENT, SERVER)
        for port in range(40000, 40050):
            call(kernel, port)
            assert answered(kernel, port)
        assert places(kernel) == (8, 42)
        assert all(answered(kernel, port, ACK) for port in range(40000, 40050))


def test_the_walk_gives_back_what_is_over_with_its_translation(kernel: Node, tmp_path: Path) -> None:
    for port in range(40000, 40000 + QUOTA):
        assert answered_from_outside(kernel, call(kernel, port, WORLD))
    kernel.send("from_pod", frame(POD, WORLD, ICMP, 77, 8))
    assert len(kernel.plane.translations.read_all()[0]) == QUOTA
    assert sweep(kernel, tmp_path) == 0
    assert sweep(kernel, tmp_path, 10 * HOUR) == QUOTA + 1
    assert places(kernel) == (0, 0)
    assert not len(kernel.plane.translations.read_all()[0])
    assert not len(kernel.plane.half_open_translations.read_all()[0])
    # And the pod has its share again: `usage` is right after a walk.
    sweep(kernel, tmp_path)
    for port in range(41000, 41000 + QUOTA):
        call(kernel, port)
        assert answered(kernel, port)
    assert places(kernel)[0] == QUOTA


def test_a_share_that_was_counted_wrongly_is_put_right(kernel: Node, tmp_path: Path) -> None:
    with Kernel(tmp_path / "bpf/maps", kernel.plane.schema) as maps:
        maps.usage["collected"][5] = 2**32 - 1000
    call(kernel, 40000)
    assert answered(kernel, 40000)
    assert places(kernel) == (0, 1)
    sweep(kernel, tmp_path)
    call(kernel, 40001)
    assert answered(kernel, 40001)
    assert places(kernel) == (1, 1)


def test_a_connection_begun_anew_leaves_nothing_of_the_old_one(kernel: Node) -> None:
    seen = call(kernel, 40000, WORLD)
    assert answered_from_outside(kernel, seen)
    assert answered_from_outside(kernel, seen, RST | ACK)
    again = call(kernel, 40000, WORLD)
    assert places(kernel) == (0, 1)
    assert answered_from_outside(kernel, again)
    assert places(kernel) == (1, 0)
    assert len(kernel.plane.translations.read_all()[0]) == 1
    assert not len(kernel.plane.half_open_translations.read_all()[0])
    assert kernel.send("from_uplink", frame(WORLD, OUR, TCP, 81, again), kernel.uplink).value != SHOT


def test_the_walk_forgets_whom_a_client_has_got_unless_it_has_another_by_now(
    kernel: Node, tmp_path: Path
) -> None:
    balancer = Balancer(kernel.plane, kernel.root)
    balancer.simple(SERVICE, 80, UDP, {1: (OTHER, 8080)})
    calls = [frame(WORLD, SERVICE, UDP, port, 80) for port in (40000, 40001)]
    for each in calls:
        assert kernel.send("from_uplink", each, kernel.uplink).value == REDIRECT
    answer = frame(OTHER, WORLD, UDP, 8080, 40000)
    assert kernel.send("from_pod", answer, kernel.uplink).value == REDIRECT
    # The second one's entry is displaced, and it gets another backend. Later its first flow is over.
    balancer.simple(SERVICE, 80, UDP, {2: (POD, 8080)})
    kernel.plane.half_open_translations.clear()
    kernel.send("from_uplink", calls[1], kernel.uplink)
    kernel.send("from_pod", frame(POD, WORLD, UDP, 8080, 40001))
    assert len(kernel.plane.translations.read_all()[0]) == 2
    forgotten = [
        key for key, flow in zip(*kernel.plane.half_open.read_all(), strict=True) if flow["backend"] == 1
    ]
    assert len(forgotten) == 1
    sweep(kernel, tmp_path, 60 * 10**9)
    assert len(kernel.plane.translations.read_all()[0]) == 2, "what was answered lives longer"
    assert places(kernel) == (2, 0)
    sweep(kernel, tmp_path, 10 * HOUR)
    assert places(kernel) == (0, 0)
    assert not len(kernel.plane.translations.read_all()[0])
    assert not len(kernel.plane.half_open_translations.read_all()[0])
    balancer.close()
