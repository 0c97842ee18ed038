"""Server-sent events (HTML, section 9.2): one stream to one browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from axoneme.ui.problems import Refusal, refusal

#: Seconds between two signs of life.
_HEARTBEAT: Final = 15.0
#: Streams at once.
_MOST: Final = 100


class Event(NamedTuple):
    name: str
    value: msgspec.Struct
    id: str


class Streams:
    """All that are open. ``allowed``: whether who opened one may still look."""

    def __init__(self, allowed: Callable[[web.Request], bool]) -> None:
        self._allowed = allowed
        self._open = 0

    async def send(
        self, request: web.Request, events: AsyncGenerator[Event | None, None]
    ) -> web.StreamResponse:
        """Until there are no more, or nobody listens. ``events`` give None where there is nothing to say;
        they are not asked for more than the browser takes, so what they say then can be of one piece.

        The first event is awaited before the answer begins: what is wrong then is an answer like others.
        """
        if self._open >= _MOST:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{_MOST} streams are open, which are all there can be"
            )
        self._open += 1
        try:
            first = await anext(events)
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            await response.prepare(request)
            await self._pour(request, response, first, events)
        finally:
            self._open -= 1
            await events.aclose()
        return response

    async def _pour(
        self,
        request: web.Request,
        response: web.StreamResponse,
        first: Event | None,
        events: AsyncGenerator[Event | None, None],
    ) -> None:
        loop = asyncio.get_running_loop()
        spoken = loop.time()
        event = first
        try:
            while True:
                if event is not None:
                    await response.write(_text(event))
                    spoken = loop.time()
                elif loop.time() - spoken >= _HEARTBEAT:
                    await response.write(b":\n\n")
                    spoken = loop.time()
                if not self._allowed(request):
                    raise Refusal(HTTPStatus.UNAUTHORIZED, "the session has ended")
                event = await anext(events)
        except StopAsyncIteration:
            return
        except ConnectionResetError:
            return  # the browser has gone
        except Exception as error:
            found = refusal(error)
            if found is None:
                raise
            await response.write(_text(Event("problem", found.problem(), "")))


def _text(event: Event) -> bytes:
    """JSON has no line breaks, so one ``data`` line holds it."""
    head = f"id: {event.id}\nevent: {event.name}\ndata: " if event.id else f"event: {event.name}\ndata: "
    return head.encode() + msgspec.json.encode(event.value) + b"\n\n"
