"""Sockets of proxies, between a client and a server that know nothing of them.

Here the kernel's own TPROXY hands the packets to the listeners, in the datapath's place.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from axoneme.datapath.schema import Schema
from axoneme.net import kernel, netns
from axoneme.proxy import sockets
from axoneme.proxy.sockets import End

PORT = 10007
#: Of a family: the client, the server, and the proxy's node on either side.
ADDRESSES = {
    socket.AF_INET: ("10.1.0.1", "10.2.0.1", "10.1.0.254", "10.2.0.254"),
    socket.AF_INET6: ("fd00:1::1", "fd00:2::1", "fd00:1::fe", "fd00:2::fe"),
}
FAMILIES = pytest.mark.parametrize("family", ADDRESSES, ids=["ipv4", "ipv6"])
STEERED = f"""
table inet steered {{
    chain arriving {{
        type filter hook prerouting priority mangle;
        iifname toclient meta l4proto {{ tcp, udp }} meta mark set 0x200
        meta mark 0x200 meta l4proto {{ tcp, udp }} ip daddr 10.2.0.1 tproxy ip to 127.0.0.1:{PORT}
        meta mark 0x200 meta l4proto {{ tcp, udp }} ip6 daddr fd00:2::1 tproxy ip6 to [::1]:{PORT}
        iifname toserver meta l4proto tcp socket transparent 1 meta mark set 0x200
        iifname toserver meta l4proto udp meta mark set 0x200
    }}
    chain leaving {{
        type filter hook output priority mangle;
        meta mark & 0xf00 == 0xb00 counter name egress
        meta mark & 0xf00 == 0xa00 counter name ingress
        meta mark & 0xf00 == 0x900 counter name answers
    }}
    counter egress {{}}
    counter ingress {{}}
    counter answers {{}}
}}
"""


class Rig:
    """Three network namespaces in a row."""

    def __init__(self, folder: Path) -> None:
        self.client, self.proxy, self.server = folder / "client", folder / "proxy", folder / "server"

    def socket(self, where: Path, family: int, kind: int) -> socket.socket:
        made = netns.open_socket(where, family, kind)
        made.settimeout(10)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        return made

    def run(self, where: Path, command: str, text: str = "") -> str:
        done = subprocess.run(
            ["nsenter", f"--net={where}", *command.split()],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def listener(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        with netns.opened(self.proxy) as descriptor, kernel.inside(descriptor):
            return sockets.listener(family, PORT, kind)

    def count(self, mark: str) -> int:
        return int(
            self.run(self.proxy, f"nft list counter inet steered {mark}").split("packets ")[1].split()[0]
        )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("rig"))
    places = (made.client, made.proxy, made.server)
    for place in places:
        netns.make(place, netns.ROUTER_SYSCTLS if place is made.proxy else netns.ENDPOINT_SYSCTLS)
    try:
        for index, (place, name) in enumerate(((made.client, "toclient"), (made.server, "toserver"))):
            peer = os.open(place, os.O_RDONLY)
            made.run(
                made.proxy, f"ip link add {name} type veth peer name pod netns /proc/{os.getpid()}/fd/{peer}"
            )
            os.close(peer)
            made.run(made.proxy, f"ip link set {name} up")
            made.run(place, "ip link set pod up")
            for family, addresses in ADDRESSES.items():
                own, gateway = addresses[index], addresses[2 + index]
                bits = 24 if family == socket.AF_INET else 64
                made.run(made.proxy, f"ip address add {gateway}/{bits} dev {name}")
                made.run(place, f"ip address add {own}/{bits} dev pod")
                made.run(place, f"ip -{'4' if bits == 24 else '6'} route add default via {gateway}")
        for version in ("-4", "-6"):
            made.run(made.proxy, f"ip {version} rule add fwmark 0x200/0xf00 lookup 100")
            made.run(made.proxy, f"ip {version} route add local default dev lo table 100")
        made.run(made.proxy, "nft -f -", STEERED)
        yield made
    finally:
        for place in places:
            netns.release(place)


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
