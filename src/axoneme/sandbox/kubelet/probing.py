"""Carrying out one probe, from the node's network namespace as a kubelet does it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axoneme.net import netns
from axoneme.sandbox import exchange, launch
from axoneme.sandbox.kubelet.echoports import named_port
from axoneme.sandbox.kubelet.programs import DEFAULT_PATH
from axoneme.sandbox.launch import Enclosure
from axoneme.sandbox.objects import Container, GrpcAction, HttpGetAction, Probe

_GRPC_HEALTH: Final = "/grpc.health.v1.Health/Check"
_GRPC_SERVING: Final = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse: status SERVING


class ProbeFailed(Exception):
    """Says why, as the pod's status shows it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is, for probing: its pod's address, the namespace of its node, and how to start
    a process beside it, unless the echo server plays it."""

    node_namespace: Path
    address: str
    enclosure: Enclosure | None


async def carry_out(probe: Probe, container: Container, place: Place) -> None:
    """One attempt; raises `ProbeFailed`.

    In place of an image nothing can be executed and there is no TLS: such probes of an echo server
    succeed, the latter if it can be connected to.
    """
    timeout = max(probe.timeout_seconds, 0.01)
    try:
        async with asyncio.timeout(timeout):
            if probe.exec is not None:
                if place.enclosure is not None:
                    await _execute(probe.exec.command, place.enclosure)
            else:
                await _connect(probe, container, place)
    except TimeoutError as failure:
        raise ProbeFailed(f"no answer within {timeout:g} s") from failure
    except (OSError, exchange.BadResponse) as failure:
        raise ProbeFailed(str(failure)) from failure


async def _connect(probe: Probe, container: Container, place: Place) -> None:
    wanted = probe.port()
    number = None if wanted is None else named_port([container], wanted)
    if number is None:
        raise ProbeFailed(f"container {container.name} has no port {wanted!r}")
    action = probe.http_get or probe.tcp_socket
    address = (action.host if action else "") or place.address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = netns.open_socket(place.node_namespace, family, socket.SOCK_STREAM)
    with connection:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (str(ipaddress.ip_address(address)), number))
        host = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
        if probe.http_get is not None and probe.http_get.scheme.upper() != "HTTPS":
            await _get(connection, probe.http_get, host)
        elif probe.grpc is not None:
            await _check_health(connection, probe.grpc, host)


async def _get(connection: socket.socket, action: HttpGetAction, host: str) -> None:
    headers = (
        ("user-agent", "kube-probe/axoneme"),
        *((each.name, each.value) for each in action.http_headers),
    )
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    response = await exchange.http1(connection, exchange.Request(host, path, headers=headers))
    if not 200 <= response.status < 400:
        raise ProbeFailed(f"HTTP status {response.status}")


async def _check_health(connection: socket.socket, action: GrpcAction, host: str) -> None:
    """The health protocol of gRPC; the message is a string in field 1."""
    service = action.service.encode()
    message = b"\x0a" + bytes([len(service)]) + service if service else b""
    request = exchange.Request(
        host,
        _GRPC_HEALTH,
        "POST",
        (("content-type", "application/grpc"), ("te", "trailers")),
        b"\0" + len(message).to_bytes(4, "big") + message,
    )
    response = await exchange.http2(connection, request)
    if response.headers.get("grpc-status") != "0" or response.body[5:] != _GRPC_SERVING:
        raise ProbeFailed(f"gRPC status {response.headers.get('grpc-status', 'missing')}, not SERVING")


async def _execute(command: Sequence[str], enclosure: Enclosure) -> None:
    """Runs a command in the container; its exit code decides."""
    process = subprocess.Popen(
        launch.command_line("run", enclosure, -1, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": DEFAULT_PATH},
        start_new_session=True,
    )
    try:
        code = await asyncio.to_thread(process.wait)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    if code != 0:
        raise ProbeFailed(f"{command[0]} ended with code {code}")
