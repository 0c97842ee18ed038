"""Sockets whose backend is gone are closed, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest
from callers import TCP, UDP, Callers, Place, callers, place

from axoneme.agent.callers import CallCloser, close_calls
from axoneme.datapath import bpf
from axoneme.datapath.callers import Callers as Listed
from axoneme.services.rows import place as row
from axoneme.services.writes import Departed

SERVICE = {4: place("10.96.0.1", 80), 6: place("fd00:96::1", 80)}
BACKENDS = {
    4: [place(f"10.244.1.{n}", 8080) for n in (1, 2)],
    6: [place(f"fd00:244::{n}", 8080) for n in (1, 2)],
}
HERE = Path("/proc/thread-self/ns/net")
NAMES = {4: "10.96.0.1", 6: "fd00:96::1", 46: "::ffff:10.96.0.1"}
#: 46: IPv4 from a socket of both families.
VERSIONS = pytest.mark.parametrize("version", [4, 6, 46])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    addresses = [f"{a}/{a.max_prefixlen}" for places in BACKENDS.values() for a, _ in places]
    with callers(tmp_path_factory.mktemp("node") / "bpf", *addresses) as made:
        yield made


@pytest.fixture(scope="module")
def listed() -> Iterator[Listed]:
    found = Listed.load()
    yield found
    found.close()


@pytest.fixture
def node(loaded: Callers) -> Callers:
    loaded.reset()
    return loaded


def family_of(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


@contextlib.contextmanager
def connected(kind: int, *targets: tuple[int, str, int]) -> Iterator[Sequence[socket.socket]]:
    """Sockets: of which version, to where."""
    with contextlib.ExitStack() as stack:
        found = []
        for version, address, port in targets:
            found.append(stack.enter_context(socket.socket(family_of(version), kind)))
            found[-1].settimeout(10)
            found[-1].connect((address, port))
        yield found


def listening(where: Place) -> socket.socket:
    made = socket.socket(socket.AF_INET if where[0].version == 4 else socket.AF_INET6)
    made.bind((str(where[0]), where[1]))
    made.listen()
    return made


def gone(numbers: dict[int, Place], protocol: int) -> list[Departed]:
    return [Departed(number, row(*where, protocol)) for number, where in numbers.items()]


def close(node: Callers, listed: Listed, backends: list[Departed]) -> int:
    return close_calls(listed, node.plane.calls.fd, backends, [Path("/nowhere"), HERE])


def aborted(each: socket.socket) -> bool:
    """Whether a program that waits for an answer hears that there will be none."""
    if not select.select([each], [], [], 0)[0]:
        return False
    with pytest.raises(ConnectionAbortedError):
        each.recv(100)
    return True


@VERSIONS
def test_who_has_called_a_backend_that_is_gone_calls_another(
    node: Callers, listed: Listed, version: int
) -> None:
    first, second = BACKENDS[6 if version == 6 else 4]
    node.serve(1, [SERVICE[6 if version == 6 else 4]], {10: first}, UDP)
    to = NAMES[version], 80
    mapped = "::ffff:" if version == 46 else ""
    with connected(socket.SOCK_DGRAM, (version, *to), (version, mapped + str(first[0]), 8080)) as (
        client,
        other,
    ):
        assert close(node, listed, gone({11: second}, UDP)) == 0
        assert close(node, listed, gone({10: first}, UDP)) == 1
        assert aborted(client)
        assert not aborted(other)  # it has called the pod itself, and no service
        node.serve(1, [SERVICE[6 if version == 6 else 4]], {11: second}, UDP)
        client.connect(to)
        assert client.getpeername()[:2] == to
        assert close(node, listed, gone({10: first}, UDP)) == 0
    assert node.served(1) == {10: 1, 11: 1}


@VERSIONS
def test_connections_are_closed_where_this_is_wished(node: Callers, listed: Listed, version: int) -> None:
    first, _ = BACKENDS[6 if version == 6 else 4]
    node.serve(1, [SERVICE[6 if version == 6 else 4]], {10: first})
    mapped = "::ffff:" if version == 46 else ""
    with (
        listening(first),
        connected(
            socket.SOCK_STREAM, (version, NAMES[version], 80), (version, mapped + str(first[0]), 8080)
        ) as (client, other),
    ):
        assert close(node, listed, gone({10: first}, UDP)) == 0
        assert close(node, listed, gone({10: first}, TCP)) == 1
        assert aborted(client)
        assert not aborted(other)


def test_many_backends_go_at_once(node: Callers, listed: Listed) -> None:
    """More than the kernel is asked about in one question, of both families, some of them called."""
    backends = {n: (ip_address(f"10.244.7.{n % 250}"), 1000 + n) for n in range(100, 300)}
    backends |= {n: (ip_address(f"fd00:244:7::{n}"), 1000 + n) for n in range(300, 500)}
    last = {4: 299, 6: 499}
    backends |= {last[4]: BACKENDS[4][0], last[6]: BACKENDS[6][0]}
    for version in (4, 6):
        node.serve(version, [SERVICE[version]], {last[version]: backends[last[version]]}, UDP)
    with connected(socket.SOCK_DGRAM, (4, NAMES[4], 80), (6, NAMES[6], 80), (46, NAMES[46], 80)) as clients:
        assert close(node, listed, gone(backends, UDP)) == 3
        assert all(aborted(client) for client in clients)


@pytest.mark.parametrize("tcp", [False, True])
async def test_the_closer_closes_what_it_is_told(node: Callers, tcp: bool) -> None:
    first, _ = BACKENDS[4]
    node.serve(1, [SERVICE[4]], {10: first}, UDP)
    node.serve(2, [SERVICE[4]], {20: first}, TCP)
    here = Path(
        f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    )  # it works in a thread of its own
    closer = CallCloser(lambda: node.plane.calls, lambda: [here], tcp)
    task = asyncio.ensure_future(closer.run())
    with (
        listening(first),
        connected(socket.SOCK_DGRAM, (4, NAMES[4], 80)) as (datagrams,),
        connected(socket.SOCK_STREAM, (4, NAMES[4], 80)) as (connection,),
    ):
        closer.departed(gone({20: first}, TCP))
        closer.departed(gone({10: first}, UDP))
        async with asyncio.timeout(10):
            while not aborted(datagrams):
                await asyncio.sleep(0.01)
        assert aborted(connection) is tcp
    task.cancel()


async def test_a_kernel_that_cannot_tell_leaves_them_open(
    node: Callers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> Listed:
        raise bpf.BpfError(errno.EINVAL, "the kernel has no types of its own")

    monkeypatch.setattr(Listed, "load", refused)
    first, _ = BACKENDS[4]
    node.serve(1, [SERVICE[4]], {10: first}, UDP)
    closer = CallCloser(lambda: node.plane.calls, lambda: [HERE], tcp=True)
    with connected(socket.SOCK_DGRAM, (4, NAMES[4], 80)) as (client,):
        closer.departed(gone({10: first}, UDP))
        await asyncio.wait_for(closer.run(), 10)
        closer.departed(gone({10: first}, UDP))
        assert not aborted(client)
    assert "stay open: [Errno 22] the kernel has no types" in caplog.text
    assert not closer._gone
