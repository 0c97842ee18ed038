"""One try of a backend: a TCP connection, or an HTTP request over one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import h11

from axoneme.model.balancer import Backend, Desired, HealthCheck, Service, status_range

_CHUNK: Final = 4096
#: Bytes of an answer's head; what is longer is no answer to a health check.
_LONGEST_HEAD: Final = 16384
#: To be closed by reset: thousands of tries leave no sockets in TIME_WAIT, here or at the backend.
_RESET: Final = struct.pack("ii", 1, 0)


class Trial(NamedTuple):
    """Where to try, and how. Services with equal trials share their results."""

    address: str
    port: int
    check: HealthCheck


async def carry_out(trial: Trial) -> str:
    """Why the backend is not well; empty when it is."""
    try:
        async with asyncio.timeout(trial.check.timeout):
            return await _try(trial)
    except TimeoutError:
        return f"no answer within {trial.check.timeout:g} s"
    except h11.RemoteProtocolError as error:
        return f"no HTTP: {error}"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)


async def _try(trial: Trial) -> str:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in trial.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await loop.sock_connect(connection, (trial.address, trial.port))
        return await _ask(connection, trial) if trial.check.kind == "http" else ""


async def _ask(connection: socket.socket, trial: Trial) -> str:
    loop = asyncio.get_running_loop()
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
    host = f"[{trial.address}]" if ":" in trial.address else trial.address
    request = h11.Request(
        method="GET",
        target=trial.check.path,
        headers=[
            ("Host", trial.check.host or f"{host}:{trial.port}"),
            ("User-Agent", "axo-lb"),
            ("Connection", "close"),
        ],
    )
    # A server may have answered and closed before it has read all.
    with contextlib.suppress(BrokenPipeError):
        await loop.sock_sendall(
            connection, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")
        )
    while True:
        event = http.next_event()
        if isinstance(event, h11.Response):
            return _judge(event.status_code, trial.check)
        if event is h11.NEED_DATA:
            data = await loop.sock_recv(connection, _CHUNK)
            if not data:
                return "closed without an answer"
            http.receive_data(data)


def _judge(status: int, check: HealthCheck) -> str:
    if any(first <= status <= last for first, last in map(status_range, check.expect)):
        return ""
    return f"HTTP status {status}"


def trials(desired: Desired) -> Iterator[tuple[Service, Backend, Trial]]:
    """What is to be tried, of the services that have a check."""
    for service in desired.services:
        for backend in service.backends:
            if trial := trial_of(service, backend):
                yield service, backend, trial


def trial_of(service: Service, backend: Backend) -> Trial | None:
    """At the port that the check names, or the backend's, or the first that is called over TCP."""
    if service.health is None:
        return None
    called = next((each.all_ports()[0] for each in service.frontends if each.protocol == "TCP"), 0)
    return Trial(backend.address, service.health.port or backend.port or called, service.health)
