"""Services at the socket, by real sockets: what programs call, what they get, and what they see of it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench_node import private_network
from callers import MAGLEV, UDP, Callers, Place, callers, own_group, place

from axoneme.datapath import bpf, bpffs, sockets
from axoneme.datapath.features import Feature
from axoneme.datapath.plane import Constants, Datapath
from axoneme.net import netns
from axoneme.services.maglev import Shares

SERVICE = {4: place("10.96.0.1", 80), 6: place("fd00:96::1", 80)}
OTHER = {4: place("10.96.0.2", 80), 6: place("fd00:96::2", 80)}
BACKENDS = {4: [f"10.244.1.{n}" for n in range(1, 4)], 6: [f"fd00:244::{n}" for n in range(1, 4)]}
NODE = {4: "172.31.0.1", 6: "fd00:a0::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    addresses = [f"{a}/{32 if v == 4 else 128}" for v in (4, 6) for a in (*BACKENDS[v], NODE[v])]
    with callers(tmp_path_factory.mktemp("node") / "bpf", *addresses) as made:
        yield made


@pytest.fixture
def node(loaded: Callers) -> Callers:
    loaded.reset()
    return loaded


def backends(version: int, count: int = 3, port: int = 8080) -> dict[int, Place]:
    return {10 + n: place(BACKENDS[version][n], port) for n in range(count)}


def text(where: Place) -> tuple[str, int]:
    return str(where[0]), where[1]


@contextmanager
def listening(*places: Place) -> Iterator[list[socket.socket]]:
    found = []
    try:
        for address, port in places:
            found.append(socket.socket(FAMILY[address.version], socket.SOCK_STREAM))
            found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found[-1].bind((str(address), port))
            found[-1].listen(64)
        yield found
    finally:
        for each in found:
            each.close()


@contextmanager
def datagrams(*places: Place) -> Iterator[list[socket.socket]]:
    found = []
    try:
        for address, port in places:
            found.append(socket.socket(FAMILY[address.version], socket.SOCK_DGRAM))
            found[-1].settimeout(5)
            found[-1].bind((str(address), port))
        yield found
    finally:
        for each in found:
            each.close()


def answered(server: socket.socket, answer: bytes = b"answer") -> tuple[str, int]:
    """The server has received something, and answers; from whom it was."""
    _, sender = server.recvfrom(100)
    server.sendto(answer, sender)
    return sender[:2]


def connect(version: int, to: Place | tuple[str, int]) -> socket.socket:
    made = socket.socket(FAMILY[version], socket.SOCK_STREAM)
    made.settimeout(5)
    try:
        made.connect((str(to[0]), to[1]))
    except BaseException:
        made.close()
        raise
    return made


# ---- connected ----------------------------------------------------------------------------------


@VERSIONS
def test_a_call_of_a_service_reaches_a_backend(node: Callers, version: int) -> None:
    there = backends(version, 1)
    node.serve(1, [SERVICE[version]], there)
    with listening(there[10]) as (server,), connect(version, SERVICE[version]) as client:
        peer, _ = server.accept()
        with peer:
            assert peer.getsockname()[:2] == text(there[10])
            client.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            assert client.getpeername()[:2] == text(SERVICE[version])
            assert peer.getpeername()[:2] == client.getsockname()[:2]
    assert node.served(1) == {10: 1}


def test_a_socket_of_both_families_calls_an_ipv4_service(node: Callers) -> None:
    there = backends(4, 1)
    node.serve(1, [SERVICE[4]], there)
    with listening(there[10]), connect(6, ("::ffff:10.96.0.1", 80)) as client:
        assert client.getpeername()[:2] == ("::ffff:10.96.0.1", 80)
    assert node.served(1) == {10: 1}


@VERSIONS
def test_calls_spread_over_all_backends_and_no_others(node: Callers, version: int) -> None:
    there = backends(version)
    node.serve(1, [SERVICE[version]], there)
    with listening(*there.values()):
        for _ in range(60):
            connect(version, SERVICE[version]).close()
    got = node.served(1)
    assert set(got) == set(there)
    assert sum(got.values()) == 60


def test_other_ports_protocols_and_addresses_are_left_alone(node: Callers) -> None:
    there = backends(4, 1)
    node.serve(1, [place(NODE[4], 80)], there)
    with listening(place(NODE[4], 81), *there.values()), connect(4, (NODE[4], 81)) as client:
        assert client.getpeername() == (NODE[4], 81)
    with datagrams(place(NODE[4], 80)) as (server,), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"question", (NODE[4], 80))
        assert server.recv(100) == b"question"
    assert node.served(1) == {}


@VERSIONS
def test_a_call_of_a_service_without_backends_is_refused_at_once(node: Callers, version: int) -> None:
    node.serve(1, [SERVICE[version]], {})
    node.serve(2, [SERVICE[version]], {}, UDP)
    with pytest.raises(ConnectionRefusedError):
        connect(version, SERVICE[version])
    with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(text(SERVICE[version]))
        with pytest.raises(ConnectionRefusedError):
            client.sendto(b"question", text(SERVICE[version]))
    assert (node.served(1), node.served(2)) == ({0: 1}, {0: 2})


def test_older_kernels_refuse_without_saying_why(
    node: Callers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axoneme.datapath.programs.has", lambda feature: feature is not Feature.SET_RETVAL)
    with own_group("older") as group:
        older = Callers(tmp_path / "bpf", group, Constants())
        try:
            older.serve(1, [SERVICE[4]], {})
            with pytest.raises(PermissionError):
                connect(4, SERVICE[4])
        finally:
            older.close()
            bpffs.unmount(tmp_path / "bpf")


def test_a_backend_that_is_a_services_address_too_is_not_translated_again(node: Callers) -> None:
    there = backends(4, 2)
    node.serve(1, [SERVICE[4]], {10: there[10]})
    node.serve(2, [there[10]], {11: there[11]})
    with listening(*there.values()), connect(4, SERVICE[4]) as client:
        assert client.getpeername() == text(SERVICE[4])
    assert (node.served(1), node.served(2)) == ({10: 1}, {})


def test_places_of_a_table_decide_where_there_is_one(node: Callers) -> None:
    there = backends(4)
    node.serve(1, [SERVICE[4]], there, algorithm=MAGLEV)
    table = node.plane.maglev
    with listening(*there.values()):
        with connect(4, SERVICE[4]):  # without one, slots do
            pass
        table.write({1: Shares((("its only one", 1, 12),))})
        for _ in range(20):
            with connect(4, SERVICE[4]):
                pass
    assert node.served(1)[12] >= 20
    table.delete([1])


# ---- affinity -----------------------------------------------------------------------------------


@VERSIONS
def test_a_client_keeps_its_backend(node: Callers, version: int) -> None:
    there = backends(version)
    node.serve(1, [SERVICE[version]], there, affinity=10_000)
    with listening(*there.values()):
        for _ in range(20):
            connect(version, SERVICE[version]).close()
        (kept,) = node.served(1)
        node["backends"].discard(kept)
        node["slots"].put((1, kept - 10), 10 + (kept - 9) % 3)
        connect(version, SERVICE[version]).close()
    assert len(node.served(1)) == 2


def test_nobody_keeps_a_backend_that_is_leaving(node: Callers) -> None:
    there = backends(4, 2)
    node.serve(1, [SERVICE[4]], {10: there[10]}, affinity=10_000)
    with listening(*there.values()):
        connect(4, SERVICE[4]).close()
        leaving = node["backends"].get(10)
        leaving["flags"] = node.plane.schema.enum("backend_flag")["BACKEND_LEAVING"]
        node["backends"].put(10, leaving)
        node.serve(1, [SERVICE[4]], {11: there[11]}, affinity=10_000)
        connect(4, SERVICE[4]).close()
    assert node.served(1) == {10: 1, 11: 1}


def test_an_affinity_ends_with_its_time(node: Callers) -> None:
    there = backends(4)
    node.serve(1, [SERVICE[4]], there, affinity=10)
    with listening(*there.values()):
        connect(4, SERVICE[4]).close()
        (key,), (value,) = node["affinities"].read_all()
        gone = next(number for number in there if number != value["backend"])
        for age, expected in ((5, {gone}), (20, set(there))):
            node["served"].clear()
            for _ in range(40):
                node["affinities"].put(key, (gone, value["seen"] - age))
                connect(4, SERVICE[4]).close()
            assert set(node.served(1)) == expected


# ---- the node's own addresses -------------------------------------------------------------------


@VERSIONS
def test_a_port_of_the_node_is_at_all_its_addresses(node: Callers, version: int) -> None:
    there = backends(version, 1)
    anywhere = place("0.0.0.0" if version == 4 else "::", 30080)
    node.serve(1, [anywhere], there)
    node.own(place(NODE[version], 0)[0])
    with listening(there[10]):
        for address in (NODE[version], LOOPBACK[version], str(anywhere[0])):
            with connect(version, (address, 30080)) as client:
                assert client.getpeername()[:2] == (address, 30080)
        with pytest.raises(ConnectionRefusedError):
            connect(version, (BACKENDS[version][1], 30080))  # here, but nobody said that it is the node's
    assert node.served(1) == {10: 3}


def test_a_port_of_one_address_of_the_node_is_at_no_other(node: Callers) -> None:
    there = backends(4, 1)
    node.serve(1, [place("127.0.0.1", 30080)], there)
    node.own(place(NODE[4], 0)[0])
    with listening(there[10]):
        connect(4, ("127.0.0.1", 30080)).close()
        for address in (NODE[4], "127.0.0.2"):
            with pytest.raises(ConnectionRefusedError):
                connect(4, (address, 30080))
    assert node.served(1) == {10: 1}


def test_the_loopback_of_a_pod_is_not_the_nodes(node: Callers) -> None:
    node.serve(1, [place("0.0.0.0", 30080), place("127.0.0.1", 30080)], backends(4, 1))
    with private_network():
        for address in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(OSError, match=r"unreachable|refused"):
                connect(4, (address, 30080))
    assert node.served(1) == {}


# ---- datagrams ----------------------------------------------------------------------------------


@VERSIONS
def test_a_connected_socket_hears_the_service(node: Callers, version: int) -> None:
    there = backends(version, 1)
    node.serve(1, [SERVICE[version]], there, UDP)
    with datagrams(there[10]) as (server,), socket.socket(FAMILY[version], socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(text(SERVICE[version]))
        client.send(b"question")
        answered(server)
        answer, sender = client.recvfrom(100)
        assert (answer, sender[:2]) == (b"answer", text(SERVICE[version]))
        assert client.getpeername()[:2] == text(SERVICE[version])


@VERSIONS
def test_another_connect_replaces_the_call(node: Callers, version: int) -> None:
    there = backends(version, 2)
    node.serve(1, [SERVICE[version]], {10: there[10]}, UDP)
    node.serve(2, [OTHER[version]], {11: there[11]}, UDP)
    with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as client:
        client.connect(text(SERVICE[version]))
        client.connect(text(OTHER[version]))
        assert client.getpeername()[:2] == text(OTHER[version])
        client.connect(text(there[10]))  # itself, by no service
        assert client.getpeername()[:2] == text(there[10])
        disconnect(client)
        with pytest.raises(OSError, match="not connected"):
            client.getpeername()
        client.connect(text(SERVICE[version]))
        assert client.getpeername()[:2] == text(SERVICE[version])


def disconnect(client: socket.socket) -> None:
    """connect() with AF_UNSPEC, which `socket` cannot say."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(client.fileno(), bytes(16), 16) == 0, errno.errorcode[ctypes.get_errno()]


@pytest.mark.parametrize("name", ["10.96.0.1", "fd00:96::1", "::ffff:10.96.0.1"])
def test_an_unconnected_socket_hears_the_service_and_keeps_the_backend(node: Callers, name: str) -> None:
    version, family = (6, socket.AF_INET6) if name.startswith("fd") else (4, socket.AF_INET)
    if name.startswith("::ffff"):
        family = socket.AF_INET6
    there = backends(version)
    node.serve(1, [SERVICE[version]], there, UDP)
    with datagrams(*there.values()) as servers, socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"question", (name, 80))
        (chosen,) = node.served(1)
        server = servers[chosen - 10]
        for _ in range(20):
            client.sendto(b"question", (name, 80))
            server.recv(100)
        answered(server)
        answer, sender = client.recvfrom(100)
        assert (answer, sender[:2]) == (b"answer", (name, 80))
    assert node.served(1) == {chosen: 1}
    assert len(node["datagrams"].read_all()[0]) == 0


@VERSIONS
def test_a_socket_that_talks_to_several_services_keeps_a_backend_of_each(node: Callers, version: int) -> None:
    there = backends(version)
    node.serve(1, [SERVICE[version]], {n: there[n] for n in (10, 11)}, UDP)
    node.serve(2, [OTHER[version]], {12: there[12]}, UDP)
    direct = place(NODE[version], 9000)
    with (
        datagrams(*there.values(), direct) as servers,
        socket.socket(FAMILY[version], socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        by_number = dict(zip(there, servers, strict=False))
        for turn in range(10):
            for to in (SERVICE[version], OTHER[version], direct):
                client.sendto(b"question", text(to))
            (chosen,) = node.served(1)
            for server in (by_number[chosen], by_number[12], servers[-1]):
                answered(server, b"%d" % turn)
            heard = [client.recvfrom(100) for _ in range(3)]
            assert {sender[:2] for _, sender in heard} == {
                text(SERVICE[version]),
                text(OTHER[version]),
                text(direct),
            }
    assert (node.served(1), node.served(2)) == ({chosen: 1}, {12: 1})


def test_an_unconnected_socket_gets_another_backend_when_its_own_is_gone(node: Callers) -> None:
    there = backends(4, 2)
    node.serve(1, [SERVICE[4]], {10: there[10]}, UDP)
    with datagrams(*there.values()) as (_, second), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"question", text(SERVICE[4]))
        node.lose(1, 10)
        with pytest.raises(ConnectionRefusedError):
            client.sendto(b"question", text(SERVICE[4]))
        node.serve(1, [SERVICE[4]], {11: there[11]}, UDP)
        client.sendto(b"question", text(SERVICE[4]))
        assert second.recv(100) == b"question"


@VERSIONS
def test_a_connected_socket_may_send_to_another_service(node: Callers, version: int) -> None:
    there = backends(version, 2)
    node.serve(1, [SERVICE[version]], {10: there[10]}, UDP)
    node.serve(2, [OTHER[version]], {11: there[11]}, UDP)
    with (
        datagrams(*there.values()) as (server, other),
        socket.socket(FAMILY[version], socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        client.connect(text(SERVICE[version]))
        for _ in range(2):
            client.sendto(b"question", text(OTHER[version]))
            assert other.recv(100) == b"question"
        client.send(b"question")
        answered(server)
        assert client.recvfrom(100)[1][:2] == text(SERVICE[version])
        assert client.getpeername()[:2] == text(SERVICE[version])
    assert (node.served(1), node.served(2)) == ({10: 1}, {11: 1})


# ---- at their places ----------------------------------------------------------------------------


def held(node: Callers) -> dict[str, int]:
    return {
        name: sockets.attached(node.group, point, node.root / "links" / f"socket-{name}")
        for name, point in sockets.POINTS.items()
    }


def test_programs_of_others_stay(node: Callers, tmp_path: Path) -> None:
    there = backends(4, 2)
    node.serve(1, [SERVICE[4]], {10: there[10]})
    other = Callers(tmp_path / "bpf", node.group, Constants())
    try:
        other.serve(1, [OTHER[4]], {11: there[11]})
        with listening(*there.values()):
            for name in (SERVICE[4], OTHER[4]):
                with connect(4, name) as client:
                    assert client.getpeername() == text(name)
            other.plane.detach_sockets()
            connect(4, SERVICE[4]).close()
        assert (node.served(1), other.served(1)) == ({10: 2}, {11: 1})
        assert all(held(node).values())
    finally:
        other.close()
        bpffs.unmount(tmp_path / "bpf")


def test_what_was_detached_is_put_back(node: Callers) -> None:
    before = held(node)
    assert all(before.values())
    pin = node.root / "links" / "socket-connect4"
    link = bpf.pinned(pin)
    bpf.link_detach(link)
    os.close(link)
    pin.unlink()
    node.plane.repairs.clear()
    for _ in node.plane.audit():
        pass
    assert held(node) == before
    assert node.plane.repairs["programs"] == 1


def test_what_is_not_wanted_any_more_is_taken_off_and_stays_off(node: Callers) -> None:
    node.plane.attach_sockets(node.group, sockets.CALLS)
    try:
        assert held(node)["tcp_health"] == 0
        assert all(held(node)[name] for name in sockets.CALLS)
        for _ in node.plane.audit():
            pass
        assert held(node)["tcp_health"] == 0
    finally:
        node.plane.attach_sockets(node.group)
    assert held(node)["tcp_health"]


def test_the_next_agent_replaces_programs_in_place_and_may_go(node: Callers) -> None:
    def links() -> dict[str, int]:
        found = {}
        for name in sockets.POINTS:
            fd = bpf.pinned(node.root / "links" / f"socket-{name}")
            found[name] = bpf.link_info(fd).id
            os.close(fd)
        return found

    before, programs = links(), held(node)
    plane = Datapath.load(node.root, Constants(node_namespace=netns.cookie()))
    try:
        plane.attach_sockets(node.group)
        assert links() == before
        assert not set(held(node).values()) & set(programs.values())
        there = backends(4, 1)
        node.serve(1, [SERVICE[4]], there)
        plane.close()  # nobody holds them any more but their pins
        with listening(there[10]):
            connect(4, SERVICE[4]).close()
        assert node.served(1) == {10: 1}
    finally:
        node.plane.attach_sockets(node.group)


def test_they_go_on_when_tables_grow(node: Callers) -> None:
    there = backends(4, 1)
    node.serve(1, [SERVICE[4], place("0.0.0.0", 30080)], there)
    node.own(place(NODE[4], 0)[0])
    node.plane.grow({"addresses": 600_000})
    assert all(held(node).values())
    with listening(there[10]):
        connect(4, SERVICE[4]).close()
        connect(4, (NODE[4], 30080)).close()
    assert node.served(1) == {10: 2}


def test_they_are_taken_away(node: Callers) -> None:
    there = backends(4, 1)
    node.serve(1, [SERVICE[4]], there)
    node.plane.detach_sockets()
    try:
        assert not any(held(node).values())
        with pytest.raises(OSError, match="unreachable"):
            connect(4, SERVICE[4])
    finally:
        node.plane.attach_sockets(node.group)
    assert node.served(1) == {}
