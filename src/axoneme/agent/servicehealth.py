"""What load balancers ask a node, answered as kube-proxy answers it.

At the health check node port of each Service of type LoadBalancer with ``externalTrafficPolicy: Local``:
whether the node has endpoints of it that are ready (KEP-27). At a port of the node, where one is configured:
whether the node takes traffic at all (KEP-3836), by ``/healthz`` and ``/livez``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import msgspec

from axoneme.rpc.httpanswers import HttpAnswers, Reply, Request
from axoneme.services.compile import HealthCheck

log = logging.getLogger(__name__)

#: Namespace and name of a Service.
Key = tuple[str, str]

#: Seconds until a port that somebody else had is tried again.
RETRY_EVERY: Final = 5.0


class _Name(msgspec.Struct, frozen=True):
    namespace: str
    name: str


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    service: _Name
    local_endpoints: int
    service_proxy_healthy: bool


class ServiceHealth:
    """The health check ports of services. ``healthy``: whether the tables of services are in order."""

    def __init__(self, healthy: Callable[[], bool], addresses: Sequence[str] = ()) -> None:
        """At ``addresses`` of the node, or at all of them where there is none."""
        self._healthy = healthy
        self._addresses = addresses
        self._checks: Mapping[Key, HealthCheck] = {}
        self._servers: dict[Key, tuple[int, HttpAnswers]] = {}
        self._news = asyncio.Event()
        #: By what a person calls the object: why its port is not served.
        self.problems: dict[str, str] = {}

    def tell(self, checks: Mapping[Key, HealthCheck]) -> None:
        """These are all."""
        if checks != self._checks:
            self._checks = dict(checks)
            self._news.set()

    async def run(self) -> None:
        """Until cancelled; then the ports are free."""
        try:
            while True:
                self._news.clear()
                await self._settle()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), RETRY_EVERY if self.problems else None)
        finally:
            for _, server in self._servers.values():
                server.close()

    async def _settle(self) -> None:
        for key, (port, server) in list(self._servers.items()):
            if key not in self._checks or self._checks[key].port != port:
                server.close()
                del self._servers[key]
        self.problems = {}
        for key, check in list(self._checks.items()):
            if key not in self._servers:
                await self._serve(key, check.port)

    async def _serve(self, key: Key, port: int) -> None:

        async def respond(_: Request) -> Reply:
            return self.reply(key)

        server = HttpAnswers(respond)
        try:
            await server.start(self._addresses, port)
        except OSError as error:
            what = f"its health check port {port} is not served: {error.strerror or error}"
            self.problems["Service " + "/".join(key)] = what
            log.warning("Service %s/%s: %s", *key, what)
        else:
            self._servers[key] = port, server

    def reply(self, key: Key) -> Reply:
        """What whoever asks about this service is told."""
        check = self._checks.get(key)
        count, healthy = check.local_endpoints if check else 0, self._healthy()
        body = msgspec.json.encode(_Answer(_Name(*key), count, healthy))
        weight = (("x-load-balancing-endpoint-weight", f"{count}"),)
        return Reply(200 if count and healthy else 503, body, weight)


class NodeHealth:
    """Whether the node takes traffic. ``eligible``: no one is about to take the node away."""

    def __init__(self, healthy: Callable[[], bool], eligible: Callable[[], bool]) -> None:
        self._healthy = healthy
        self._eligible = eligible
        self._last = time.time()

    async def run(self, address: str, port: int) -> None:
        """Until cancelled. OSError when somebody else has the port."""

        async def respond(request: Request) -> Reply:
            return self.reply(request.path)

        server = HttpAnswers(respond)
        await server.start([address] if address else [], port)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    def reply(self, path: str) -> Reply:
        """``/livez`` leaves out whether the node is about to go."""
        now, healthy, eligible = time.time(), self._healthy(), self._eligible()
        if healthy:
            self._last = now
        said = {"lastUpdated": _moment(self._last), "currentTime": _moment(now)}
        if path == "/livez":
            return Reply(200 if healthy else 503, msgspec.json.encode(said))
        if path != "/healthz":
            return Reply(404, b'{"error": "there are /healthz and /livez"}')
        body = msgspec.json.encode({**said, "nodeEligible": eligible})
        return Reply(200 if healthy and eligible else 503, body)


def _moment(seconds: float) -> str:
    """In the form in which Go writes a time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC"
