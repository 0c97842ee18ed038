"""Health check ports, asked over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from axoneme.agent import servicehealth
from axoneme.agent.servicehealth import NodeHealth, ServiceHealth
from axoneme.rpc.httpanswers import HttpAnswers, Reply, Request
from axoneme.services.compile import HealthCheck

WEB = ("shop", "web")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def said(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def asked(port: int, path: str = "/") -> tuple[int, dict[str, str], Any]:
    """Status, headers and what the body says."""
    answer = await said(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@contextlib.asynccontextmanager
async def running(health: ServiceHealth) -> AsyncIterator[None]:
    task = asyncio.create_task(health.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_node_with_endpoints_takes_traffic() -> None:
    async def case() -> None:
        health, port = ServiceHealth(lambda: True, ["127.0.0.1"]), free_port()
        health.tell({WEB: HealthCheck(port, 2)})
        async with running(health):
            await until(lambda: bool(health._servers))
            status, headers, body = await asked(port)
            assert status == 200 and headers["content-type"] == "application/json"
            assert headers["x-load-balancing-endpoint-weight"] == "2"
            assert body == {
                "service": {"namespace": "shop", "name": "web"},
                "localEndpoints": 2,
                "serviceProxyHealthy": True,
            }
            health.tell({WEB: HealthCheck(port, 0)})
            status, _, body = await asked(port, "/anything?x=y")
            assert (status, body["localEndpoints"]) == (503, 0)

    asyncio.run(case())


def test_a_node_whose_tables_are_not_in_order_takes_none() -> None:
    health = ServiceHealth(lambda: False)
    health.tell({WEB: HealthCheck(1, 2)})
    reply = health.reply(WEB)
    assert reply.status == 503 and json.loads(reply.body)["serviceProxyHealthy"] is False


def test_a_port_is_open_as_long_as_its_service_is_there() -> None:
    async def case() -> None:
        health, first, second = ServiceHealth(lambda: True, ["127.0.0.1"]), free_port(), free_port()
        async with running(health):
            health.tell({WEB: HealthCheck(first, 1)})
            await until(lambda: WEB in health._servers)
            health.tell({WEB: HealthCheck(second, 1)})
            await until(lambda: health._servers.get(WEB, (0,))[0] == second)
            assert await refused(first) and (await asked(second))[0] == 200
            health.tell({})
            await until(lambda: not health._servers)
            assert await refused(second)

    asyncio.run(case())


def test_a_port_that_somebody_else_has_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicehealth, "RETRY_EVERY", 0.05)

    async def case() -> None:
        health = ServiceHealth(lambda: True, ["127.0.0.1"])
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = int(other.getsockname()[1])
            health.tell({WEB: HealthCheck(port, 1)})
            task = asyncio.create_task(health.run())
            await until(lambda: bool(health.problems))
            assert f"port {port}" in health.problems["Service shop/web"]
        await until(lambda: not health.problems and bool(health._servers))
        assert (await asked(port))[0] == 200
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await refused(port)

    asyncio.run(case())


def test_nonsense_and_slowness_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axoneme.rpc.httpanswers._MOST", 2)

    async def case() -> None:
        async def respond(request: Request) -> Reply:
            return Reply(200, json.dumps(request.path).encode())

        server = HttpAnswers(respond, patience=0.2)
        await server.start(["127.0.0.1"], 0)
        (port,) = server.ports
        assert await said(port, b"\x16\x03\x01 no HTTP\r\n\r\n") == b""
        assert await said(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000) == b""
        assert await said(port, b"GET / HT") == b""  # and no more
        assert b"405" in await said(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        head = await said(port, b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and head.endswith(b"\r\n\r\n")
        twice = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await said(port, twice)).count(b"200 ") == 2
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: len(server._open) == 2)
        assert await said(port, b"") == b""
        for _, writer in idle:
            writer.close()
        server.close()

    asyncio.run(case())


def test_the_node_itself() -> None:
    eligible = True
    health = NodeHealth(lambda: True, lambda: eligible)
    reply = health.reply("/healthz")
    body = json.loads(reply.body)
    assert reply.status == 200 and body["nodeEligible"] and body["lastUpdated"] == body["currentTime"]
    eligible = False
    assert (health.reply("/healthz").status, health.reply("/livez").status) == (503, 200)
    assert health.reply("/").status == 404
    sick = NodeHealth(lambda: False, lambda: True)
    assert (sick.reply("/healthz").status, sick.reply("/livez").status) == (503, 503)
