"""What proxies send arrives, or is counted; nobody waits for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from axoneme.model.l7event import LONGEST, MOST, DNSEvent, HTTPEvent, L7Event, L7Report
from axoneme.model.redaction import HIDDEN, Redaction
from axoneme.proxy.events import EventSender


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def listener(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(str(path))
    made.listen()
    made.settimeout(5)
    return made


def event(url: str = "/", dns: DNSEvent | None = None) -> L7Event:
    http = None if dns else HTTPEvent("GET", url, "HTTP/1.1")
    ends = ("10.0.0.1", 40000, "10.0.0.2", 80)
    return L7Event(1, "egress", "TCP", *ends, "REQUEST", "FORWARDED", http=http, dns=dns)


def received(connection: socket.socket) -> L7Report:
    return msgspec.json.decode(connection.recv(1 << 20), type=L7Report)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sender(tmp_path: Path, clock: Clock) -> Iterator[EventSender]:
    made = EventSender(tmp_path / "l7.sock", Redaction(), clock=clock)
    yield made
    made.close()


def test_events_arrive_without_secrets(tmp_path: Path, sender: EventSender) -> None:
    with listener(tmp_path / "l7.sock") as server:
        sender.send(event("/a?token=x"), event("/b"))
        with server.accept()[0] as connection:
            report = received(connection)
    assert [each.http.url for each in report.events if each.http] == [f"/a?token={HIDDEN}", "/b"]
    assert (report.lost, sender.lost) == (0, 0)


def test_what_is_lost_is_counted_and_told_when_somebody_listens_again(
    tmp_path: Path, sender: EventSender, clock: Clock
) -> None:
    path = tmp_path / "l7.sock"
    sender.send(event(), event())  # nobody is there yet
    with listener(path) as server:
        sender.send(event())  # too early to try again
        clock.now += 1
        sender.send(event("/now"))
        with server.accept()[0] as connection:
            report = received(connection)
            assert [each.http.url for each in report.events if each.http] == ["/now"]
            assert report.lost == 3
    sender.send(event())  # notices that the server is gone
    path.unlink()
    with listener(path) as server:
        clock.now += 1
        sender.send(event())
        with server.accept()[0] as connection:
            assert received(connection).lost == 1
    assert sender.lost == 4


def test_a_reader_that_sleeps_does_not_stop_the_sender(tmp_path: Path, sender: EventSender) -> None:
    with listener(tmp_path / "l7.sock") as server:
        sent = 0
        while not sender.lost:
            sender.send(event("/" + "x" * LONGEST))
            sent += 1
            assert sent < 1_000_000, "the kernel takes any number of them?"
        with server.accept()[0] as connection:
            arrived = [received(connection) for _ in range(sent - 1)]
            sender.send(event("/awake"))
            assert received(connection).lost == 1
    assert sum(len(each.events) for each in arrived) == sent - 1 > 10


def test_reports_are_bounded(tmp_path: Path, sender: EventSender) -> None:
    long = "/" + "x" * 3 * LONGEST
    answer = DNSEvent("a.", ips=("192.0.2.1",) * 1000)
    with listener(tmp_path / "l7.sock") as server:
        unwritable = event("/\ud800")  # takes its report with it
        sender.send(*[event(long)] * (MOST + 1), event(dns=answer), unwritable, event("/last"))
        with server.accept()[0] as connection:
            first = received(connection)
    assert len(first.events) == MOST
    assert first.events[0].http is not None
    assert len(first.events[0].http.url) == LONGEST
    assert sender.lost == 4
