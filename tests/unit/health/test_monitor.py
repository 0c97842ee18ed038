"""What is known of the ways to nodes, with a network that does as it is told."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from axoneme.health import answering
from axoneme.health.icmp import checksum
from axoneme.health.monitor import Monitor
from axoneme.health.ways import Answer, Measurement, Path, Protocol, Way, summary, ways
from axoneme.model.state import NodeState

NODE = NodeState(
    "far", internal_addresses=["192.0.2.7", "2001:db8::7"], health_addresses=["10.0.0.254", "fd00::fe"]
)


class Network:
    """``broken``: address to the reason why it does not answer."""

    def __init__(self) -> None:
        self.broken: dict[str, OSError] = {}
        self.who = "far"
        self.asked: list[Way] = []

    async def probe(self, way: Way) -> Answer:
        self.asked.append(way)
        if error := self.broken.get(way.address):
            raise error
        return Answer(0.001, self.who if way.protocol is Protocol.TCP else "")


async def probed(monitor: Monitor, network: Network, times: int = 1) -> None:
    """As `Monitor.run` and whoever asks for it have it."""
    running = asyncio.ensure_future(monitor.run(network))
    await asyncio.sleep(0)
    for _ in range(times):
        await monitor.probe()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def test_the_ways_are_those_of_both_families_and_paths() -> None:
    assert len(list(ways(NODE, (4, 6)))) == 8
    only = list(ways(NODE, (4,)))
    assert {each.address for each in only} == {"192.0.2.7", "10.0.0.254"}
    assert {(each.path, each.protocol) for each in only} == {(p, q) for p in Path for q in Protocol}
    quiet = NodeState("far", internal_addresses=["192.0.2.7"])
    assert list(ways(quiet, (4, 6))) == [Way(Path.UNDERLAY, Protocol.ICMP, "192.0.2.7")]


async def test_a_node_is_unreachable_after_some_failures_and_reachable_after_one_success() -> None:
    monitor, network = Monitor("here", (4, 6), 10), Network()
    monitor.node_changed("far", NODE)
    assert monitor.summary().reachable == 0
    await probed(monitor, network)
    assert (monitor.summary().reachable, monitor.summary().unreachable) == (1, [])
    network.broken["10.0.0.254"] = ConnectionRefusedError(111, "whatever")
    await probed(monitor, network)
    failed = [each for each in monitor.nodes()[0].measurements if not each.works]
    assert {each.reason for each in failed} == {"connection refused"}
    assert all(each.last_success for each in failed)
    assert monitor.summary().unreachable == []
    await probed(monitor, network, times=3)
    assert monitor.summary().unreachable == ["far"]
    network.broken.clear()
    await probed(monitor, network)
    assert monitor.summary().unreachable == []


async def test_another_node_at_the_address_is_no_answer() -> None:
    monitor, network = Monitor("here", (4,), 10), Network()
    network.who = "impostor"
    monitor.node_changed("far", NODE)
    await probed(monitor, network)
    reasons = {each.way.protocol: each.reason for each in monitor.nodes()[0].measurements}
    assert reasons[Protocol.ICMP] == ""
    assert reasons[Protocol.TCP] == "impostor answers there: two nodes have this address"


async def test_a_node_that_moves_keeps_what_is_still_true_and_one_that_goes_leaves_nothing() -> None:
    monitor, network = Monitor("here", (4, 6), 10), Network()
    monitor.node_changed("far", NODE)
    await probed(monitor, network)
    monitor.node_changed("far", NodeState("far", internal_addresses=["192.0.2.7", "2001:db8::8"]))
    known = {each.way.address for each in monitor.nodes()[0].measurements if each.known}
    assert known == {"192.0.2.7"}
    monitor.node_changed("far", None)
    assert monitor.nodes() == []
    assert summary([]).nodes == 0


def test_a_failure_keeps_when_it_last_worked() -> None:
    way = Way(Path.PODS, Protocol.TCP, "10.0.0.254")
    found = Measurement(way).answered(Answer(0.1), 5.0).failed("lost", 9.0).failed("lost", 11.0)
    assert (found.last_success, found.measured, found.failures, found.answer) == (5.0, 11.0, 2, None)


def test_checksum_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"odd") == checksum(b"odd\0")


async def test_whoever_connects_is_told_the_name_and_the_clock() -> None:
    listener = answering.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    serving = asyncio.ensure_future(answering.answer(listener, "here"))
    try:
        for _ in range(3):
            found = await answering.ask("127.0.0.1", port)
            assert found.node == "here"
            assert 0 <= found.latency < 1
            assert abs(found.skew) < 60
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
    with pytest.raises(ConnectionRefusedError):
        await answering.ask("127.0.0.1", port)


async def test_another_program_at_the_port_is_told_from_an_agent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(TimeoutError, match="connected, but nobody answered"):
            await answering.ask("127.0.0.1", port, patience=0.1)
        connection, _ = other.accept()
        connection.close()
        asking = asyncio.ensure_future(answering.ask("127.0.0.1", port))
        connection, _ = await asyncio.to_thread(other.accept)
        with connection:
            connection.send(b"220 smtp")
        with pytest.raises(OSError, match="somebody else listens there"):
            await asking
