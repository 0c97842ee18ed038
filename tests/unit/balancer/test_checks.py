"""Health checks against real servers on loopback, and the monitor with results of the test's choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from axoneme.balancer.monitor import Monitor
from axoneme.balancer.probes import Trial, carry_out
from axoneme.model.balancer import HealthCheck
from axoneme.services.verdict import Health


@asynccontextmanager
async def server(answer: bytes | None, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers each request so; None: never. Yields its port, and the heads of requests."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, host)
    try:
        yield listening.sockets[0].getsockname()[1], heads
    finally:
        listening.close()


def http(status: int) -> bytes:
    return f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode()


CHECK = HealthCheck("http", path="/healthz?deep=1", host="web.example", expect=(204, "301-302"), timeout=5)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (http(204), ""),
        (http(302), ""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + http(204), ""),
        (http(200), "HTTP status 200"),
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP: "),
        (b"HTTP/1.1 204 No\r\nX: " + b"x" * 20000, "no HTTP: "),
    ],
)
async def test_an_http_check_judges_the_status(answer: bytes, problem: str) -> None:
    async with server(answer) as (port, heads):
        found = await carry_out(Trial("127.0.0.1", port, CHECK))
    assert found.startswith(problem)
    assert bool(found) == bool(problem)
    assert heads[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\n")
    assert b"Host: web.example\r\n" in heads[0]


async def test_a_check_has_a_time_limit() -> None:
    async with server(None) as (port, _):
        trial = Trial("127.0.0.1", port, HealthCheck("http", timeout=0.05))
        assert await carry_out(trial) == "no answer within 0.05 s"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_tcp_check_connects(host: str) -> None:
    async with server(None, host) as (port, _):
        assert await carry_out(Trial(host, port, HealthCheck())) == ""
    assert await carry_out(Trial(host, port, HealthCheck())) == "Connection refused"


async def test_the_monitor_tells_what_turned_and_forgets_what_is_watched_no_more() -> None:
    problems = {"10.0.0.1": "", "10.0.0.2": "is ill"}
    check = HealthCheck(interval=0.1, rise=2, fall=2)
    first, second = (Trial(address, 80, check) for address in problems)
    turned = asyncio.Event()

    async def tried(trial: Trial) -> str:
        return problems[trial.address]

    monitor = Monitor(turned.set, {second: Health.UP}, tried)
    monitor.watch([first, second])
    running = asyncio.ensure_future(monitor.run())

    async def until(trial: Trial, health: Health) -> None:
        while monitor.records[trial].health is not health:
            turned.clear()
            await turned.wait()

    try:
        async with asyncio.timeout(20):
            await until(first, Health.UP)
            await until(second, Health.DOWN)
            assert monitor.records[second].problem == "is ill"
            problems["10.0.0.2"] = ""
            await until(second, Health.UP)
        monitor.watch([first])
        assert list(monitor.records) == [first]
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
