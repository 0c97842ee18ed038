"""``/metrics`` over HTTP, for whatever process has something to tell.

    exposition = Exposition([process_metrics("cilium"), ...])
    await exposition.serve(Listening.of(":9962", "metrics.listen", files))

What others than this machine can reach is served by HTTPS only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from axoneme.metrics.exposition import OPENMETRICS, TEXT, exposition, wants_openmetrics
from axoneme.metrics.families import Collector, Family
from axoneme.rpc.httpanswers import HttpAnswers, Reply, Request
from axoneme.rpc.listening import CurrentTls, TlsFiles, is_loopback, listening_at

log = logging.getLogger(__name__)

#: Families that another process has to be asked for.
Asked = Callable[[], Awaitable[Iterable[Family]]]

#: Seconds that a scraper may keep its connection: longer than the usual interval.
_PATIENCE: Final = 130.0
#: Seconds until a port that somebody else has, or for which there is no certificate yet, is tried again.
_RETRY_EVERY: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where, and with which certificate: None on loopback, which is plain."""

    address: str
    port: int
    files: TlsFiles | None

    @classmethod
    def of(cls, text: str, field: str, files: TlsFiles | None) -> Self:
        """ValueError for an address that is none, or that others reach while there is nothing to serve TLS
        with; it names the ``field``."""
        address, port = listening_at(text, field)
        if is_loopback(address):
            return cls(address, port, None)
        if files is None:
            raise ValueError(
                f"{field}: {text} can be reached from other machines, and there are no certificates for it; "
                f"name some, or listen at 127.0.0.1:{port}"
            )
        return cls(address, port, files)


class Exposition:
    """``collectors`` are asked at every scrape, and so is ``asked``, whose failure costs no more than what it
    would have told."""

    def __init__(self, collectors: Sequence[Collector], asked: Sequence[Asked] = ()) -> None:
        self._collectors = collectors
        self._asked = asked

    async def families(self) -> list[Family]:
        told = [family for collect in self._collectors for family in collect()]
        for ask in self._asked:
            try:
                told.extend(await ask())
            except OSError as error:
                log.debug("metrics: %s", error)
        return told

    async def respond(self, request: Request) -> Reply:
        if request.path != "/metrics":
            return Reply(404, b"there is /metrics\n", content_type="text/plain")
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        packed = "gzip" in request.headers.get("accept-encoding", "")
        body = await exposition(await self.families(), openmetrics, packed)
        headers = [("vary", "accept, accept-encoding"), *([("content-encoding", "gzip")] if packed else [])]
        return Reply(200, body, tuple(headers), OPENMETRICS if openmetrics else TEXT)

    async def serve(self, where: Listening, ready: Callable[[int], None] = lambda _: None) -> None:
        """Until cancelled; ``ready`` is told the port. What keeps it from listening is logged, and tried
        again: no process stops for the lack of its metrics."""
        problem = ""
        while True:
            try:
                await self._serve(where, ready)
            except OSError as error:
                reason = error.strerror or str(error)
                if problem != reason:
                    at = f"{where.address}:{where.port}"
                    at += f" with {where.files.certificate}" if where.files else ""
                    log.error("metrics are not served at %s: %s (docs/metrics.md)", at, reason)
                problem = reason
            await asyncio.sleep(_RETRY_EVERY)

    async def _serve(self, where: Listening, ready: Callable[[int], None]) -> None:
        tls = CurrentTls(where.files) if where.files else None
        server = HttpAnswers(self.respond, tls.context if tls else None, _PATIENCE)
        await server.start([where.address] if where.address else [], where.port)
        ready(min(server.ports))
        try:
            await (tls.keep() if tls else asyncio.Event().wait())
        finally:
            server.close()
