"""Sockets of proxies, between a client and a server that know nothing of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from steered import ADDRESSES, PORT, Rig, rig_in

from axoneme.datapath.schema import Schema
from axoneme.net import kernel, netns
from axoneme.proxy import sockets
from axoneme.proxy.sockets import End

FAMILIES = pytest.mark.parametrize("family", ADDRESSES, ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_in(tmp_path_factory.mktemp("rig")) as made:
        yield made


def test_marks_are_those_of_the_datapath() -> None:
    there = Schema.load().enum("mark")
    assert {f"MARK_{each.name}": each.value for each in sockets.Mark}.items() <= there.items()


@FAMILIES
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_both_ends_see_each_other(rig: Rig, family: socket.AddressFamily, direction: str) -> None:
    client_address, server_address, *_ = ADDRESSES[family]
    before = rig.count(direction), rig.count("answers")
    with (
        rig.socket(rig.server, family, socket.SOCK_STREAM) as server,
        rig.socket(rig.client, family, socket.SOCK_STREAM) as client,
        rig.listener(family, socket.SOCK_STREAM) as listening,
    ):
        server.bind((server_address, 9092))
        server.listen()
        client.connect((server_address, 9092))
        listening.settimeout(10)
        taken, _ = listening.accept()
        found = sockets.ends(taken)
        assert found == (End(*client.getsockname()[:2]), End(server_address, 9092))
        with netns.opened(rig.proxy) as descriptor, kernel.inside(descriptor):
            onwards = asyncio.run(sockets.connect(*found, direction, timeout=10))
        called, (host, port, *_) = server.accept()
        with taken, onwards, called:
            assert host == client_address
            assert port in sockets.OWN_PORTS
            onwards.sendall(b"question")
            assert called.recv(100) == b"question"
            taken.sendall(b"answer")
            assert client.recv(100) == b"answer"
    assert rig.count(direction) > before[0]
    assert rig.count("answers") > before[1]


@FAMILIES
def test_one_port_of_a_client_calls_many_servers_and_each_only_once(
    rig: Rig, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, address, *_ = ADDRESSES[family]
    monkeypatch.setattr(sockets, "own_ports", lambda _: [61000, 61001])

    def connect(port: int) -> socket.socket:
        with netns.opened(rig.proxy) as descriptor, kernel.inside(descriptor):
            return asyncio.run(sockets.connect(End(client, 4000), End(address, port), "egress", timeout=10))

    with (
        rig.socket(rig.server, family, socket.SOCK_STREAM) as one,
        rig.socket(rig.server, family, socket.SOCK_STREAM) as other,
    ):
        for server, port in ((one, 9001), (other, 9002)):
            server.bind((address, port))
            server.listen()
        with connect(9001) as first, connect(9002) as second, connect(9001) as third:
            assert [each.getsockname()[1] for each in (first, second, third)] == [61000, 61000, 61001]
            with pytest.raises(OSError, match="no port free"):
                connect(9001)


@FAMILIES
def test_datagrams_say_for_whom_they_were_and_are_answered_as_from_there(
    rig: Rig, family: socket.AddressFamily
) -> None:
    address = ADDRESSES[family][1]
    with (
        rig.socket(rig.server, family, socket.SOCK_DGRAM) as server,
        rig.socket(rig.client, family, socket.SOCK_DGRAM) as client,
        rig.listener(family, socket.SOCK_DGRAM) as listening,
    ):
        server.bind((address, 53))
        client.connect((address, 53))
        client.send(b"question")
        listening.settimeout(10)
        data, sender, called = sockets.received(listening, 4096) or pytest.fail("it was for the listener")
        assert (data, sender, called) == (b"question", End(*client.getsockname()[:2]), End(address, 53))
        with netns.opened(rig.proxy) as descriptor, kernel.inside(descriptor):
            onwards = sockets.onwards(sender, "egress", socket.SOCK_DGRAM, 61234)
            with pytest.raises(OSError, match="in use"):
                sockets.onwards(sender, "egress", socket.SOCK_DGRAM, 61234)
            answers = sockets.Answers(family)
        with onwards:
            onwards.connect(called)
            onwards.send(data)
            asked, asker = server.recvfrom(100)
            assert (asked, asker[:2]) == (b"question", (sender.address, 61234))
            server.sendto(b"answer", asker)
            onwards.settimeout(10)
            assert onwards.recv(100) == b"answer"
        # The client's socket is connected to the server: it takes nothing from elsewhere.
        for answer in (b"answer", b"odd", b"", bytes(4000)):  # the last one in fragments
            answers.send(answer, sender, called)
            assert client.recv(5000) == answer
        answers.close()


@FAMILIES
def test_who_calls_the_listener_itself_is_told_from_clients(rig: Rig, family: socket.AddressFamily) -> None:
    with (
        rig.socket(rig.proxy, family, socket.SOCK_STREAM) as caller,
        rig.listener(family, socket.SOCK_STREAM) as listening,
        rig.socket(rig.proxy, family, socket.SOCK_DGRAM) as asker,
        rig.listener(family, socket.SOCK_DGRAM) as hearing,
    ):
        place = (sockets.LOOPBACK[family], PORT)
        caller.connect(place)
        listening.settimeout(10)
        taken, _ = listening.accept()
        with taken:
            assert sockets.ends(taken) is None
        asker.sendto(b"question", place)
        hearing.settimeout(10)
        assert sockets.received(hearing, 100) is None


@FAMILIES
def test_who_does_not_listen_at_the_server_refuses(rig: Rig, family: socket.AddressFamily) -> None:
    client, server, *_ = ADDRESSES[family]
    with (
        netns.opened(rig.proxy) as descriptor,
        kernel.inside(descriptor),
        pytest.raises(ConnectionRefusedError),
    ):
        asyncio.run(sockets.connect(End(client, 4000), End(server, 9099), "egress", timeout=10))
