"""Connections to a service over the fast path: real clients, a balancer and backends on one wire."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from balancers import VIP, Scene, scene, service
from two_nodes import inside

from axoneme.datapath import bpf
from axoneme.datapath.uapi import AttachType, ProgramType

_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_NATIVE = 1 << 2
_ETH_P_ALL = 3
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def accelerated() -> Iterator[Scene]:
    with scene() as made:
        for name in ("client", *made.servers):
            # A sender leaves its checksums to its device, and a veth device passes that on; no card would.
            set_feature(made.namespaces.path(name), "eth0", _ETHTOOL_STXCSUM, 0)
        peer = let_through(made.namespaces.path("wire"), "to-lb1")
        datagrams = [{"address": VIP[version], "port": 53, "protocol": "UDP"} for version in (4, 6)]
        made.balancers["lb1"].configure(
            {"services": [service(), service("udp", frontends=datagrams)]}, acceleration="native"
        )
        made.balancers["lb1"].start()
        yield made
        os.close(peer)


def set_feature(namespace: Path, device: str, command: int, value: int) -> None:
    """As `ethtool -K` does."""
    wanted = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sQ16x", device.encode(), ctypes.addressof(wanted))
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def let_through(namespace: Path, device: str) -> int:
    """A veth device takes no frames that its peer's program sends back, unless it has a program as well."""
    pass_on = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # return XDP_PASS
    program = bpf.program_load(ProgramType.XDP, pass_on, "let_through")
    try:
        with inside(namespace):
            return bpf.link_create(program, socket.if_nametoindex(device), AttachType.XDP, _NATIVE)
    finally:
        os.close(program)


class Listener:
    """What the balancer's network stack gets to see of a port: nothing that is sent on before."""

    def __init__(self, namespace: Path) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            self._socket.bind(("eth0", 0))
        self._socket.setblocking(False)

    def with_port(self, port: int) -> int:
        seen = 0
        while True:
            try:
                seen += struct.pack("!H", port) in self._socket.recv(256)[34:60]
            except BlockingIOError:
                return seen

    def close(self) -> None:
        self._socket.close()


@VERSIONS
def test_an_established_connection_passes_before_the_stack(accelerated: Scene, version: int) -> None:
    with accelerated.connect(version) as talk:
        assert talk.echo("the first answers")
        listener = Listener(accelerated.balancers["lb1"].namespace)
        try:
            for number in range(50):
                assert talk.echo(f"{number} " + "x" * 1000)
            assert listener.with_port(talk.port) == 0
        finally:
            listener.close()
        found = accelerated.balancers["lb1"].connections().connections
        (mine,) = [each for each in found if each.client.endswith(f":{talk.port}")]
        assert mine.backend == f"{talk.backend}-v{version}"
    # Its end goes the other way, and is understood there.
    assert accelerated.chosen(version, 20).keys() == {"b1", "b2", "b3"}


@VERSIONS
def test_datagrams_are_answered(accelerated: Scene, version: int) -> None:
    answers = {accelerated.ask(version, source=41000 + number)[0] for number in range(20)}
    assert answers == {"b1", "b2", "b3"}
    assert len({accelerated.ask(version, source=41000)[0] for _ in range(5)}) == 1
