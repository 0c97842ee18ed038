"""The Kafka proxy's process, between a client and a broker that is played."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_lab import Proxy, until
from steered import ADDRESSES, Rig, rig_in

from axoneme.model.l7 import KafkaRule
from axoneme.proxy.sockets import OWN_PORTS
from unit.proxy.kafka import broker

FAMILIES = pytest.mark.parametrize("family", ADDRESSES, ids=["ipv4", "ipv6"])


class Broker:
    """Answers every request of one connection after the other, and keeps them."""

    def __init__(self, rig: Rig, family: socket.AddressFamily) -> None:
        self.requests: list[bytes] = []
        self.callers: list[tuple[str, int]] = []
        self._listening = rig.socket(rig.server, family, socket.SOCK_STREAM)
        self._listening.settimeout(None)
        self._listening.bind((ADDRESSES[family][1], 9092))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                taken, caller = self._listening.accept()
            except OSError:
                return
            self.callers.append(caller[:2])
            with taken, taken.makefile("rb") as stream:
                while size := stream.read(4):
                    request = size + stream.read(int.from_bytes(size, "big"))
                    self.requests.append(request)
                    header, _ = broker.read_request(request)
                    taken.sendall(broker.answer(header.api_key, header.version, {}, header.correlation_id))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)


class Client:
    def __init__(self, rig: Rig, family: socket.AddressFamily) -> None:
        self.socket = rig.socket(rig.client, family, socket.SOCK_STREAM)
        self.socket.connect((ADDRESSES[family][1], 9092))
        self._stream = self.socket.makefile("rb")

    def hears(self) -> bytes:
        size = self._stream.read(4)
        return size + self._stream.read(int.from_bytes(size, "big"))

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_in(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = Proxy(rig, tmp_path_factory.mktemp("proxy"))
    yield made
    made.close()


@FAMILIES
def test_one_connection_with_permitted_and_refused_requests(
    rig: Rig, proxy: Proxy, family: socket.AddressFamily
) -> None:
    proxy.rules(KafkaRule(topic="alpha"))
    server = Broker(rig, family)
    client = Client(rig, family)
    try:
        long = broker.produce("alpha", correlation=3, records=bytes(8 << 20))
        client.socket.sendall(
            broker.produce("alpha", correlation=1) + broker.produce("beta", correlation=2) + long
        )
        got = [client.hears() for _ in range(3)]
        assert [int.from_bytes(each[4:8], "big") for each in got] == [1, 2, 3]
        assert len(server.requests) == 2
        assert server.requests[1] == long
        ((host, port),) = server.callers
        assert host == ADDRESSES[family][0]
        assert port in OWN_PORTS
        # The same connection, under other rules.
        proxy.rules(KafkaRule(topic="beta"))
        client.socket.sendall(broker.produce("beta", correlation=4))
        assert int.from_bytes(client.hears()[4:8], "big") == 4
        assert len(server.requests) == 3
        events = proxy.events()
        wanted = {
            ("REQUEST", "FORWARDED", "alpha", 1),
            ("REQUEST", "DROPPED", "beta", 2),
            ("RESPONSE", "FORWARDED", "alpha", 3),
            ("REQUEST", "FORWARDED", "beta", 4),
        }

        def all_told() -> bool:
            found = {
                (each.type, each.verdict, each.kafka.topic, each.kafka.correlation_id)
                for each in events
                if each.kafka and each.source_port == client.socket.getsockname()[1]
            }
            return wanted <= found or bool(events.extend(proxy.events()))

        until(all_told, "not all was told")
        assert {(each.source, each.destination) for each in events[-1:]} == {ADDRESSES[family][:2]}
    finally:
        client.close()
        server.close()


@FAMILIES
def test_what_is_no_kafka_ends_its_connection_only(
    rig: Rig, proxy: Proxy, family: socket.AddressFamily
) -> None:
    proxy.rules(KafkaRule(topic="alpha"))
    server = Broker(rig, family)
    client = Client(rig, family)
    try:
        client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.socket.recv(100) == b""
        client.close()
        client = Client(rig, family)
        client.socket.sendall(broker.produce("alpha"))
        client.hears()
        assert len(server.requests) == 1
    finally:
        client.close()
        server.close()


def test_a_client_hears_when_its_server_does_not_listen(rig: Rig, proxy: Proxy) -> None:
    with pytest.raises(ConnectionResetError):
        Client(rig, socket.AF_INET).socket.recv(100)


def test_it_is_unprivileged(proxy: Proxy) -> None:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    assert "CapEff:\t0000000000002000" in status  # CAP_NET_RAW
    assert "Uid:\t0\t" not in status
