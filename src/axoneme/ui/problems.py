"""What goes wrong, as the browser is told of it."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
from aiohttp import web

from axoneme.rpc import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE, RpcError
from axoneme.sources.store import StoreError
from axoneme.ui.api import Problem

#: How `axoneme.flows.flowfilter.FilterError` begins.
_FILTER = re.compile(r"filter (\w+): ")

_STATUS = {
    INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    NOT_FOUND: HTTPStatus.NOT_FOUND,
    CONFLICT: HTTPStatus.CONFLICT,
    UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Refusal(Exception):
    """A request that gets no answer but this. ``field``: which parameter, ``found``: what it was, ``remedy``:
    what would be right; empty where there is nothing to say."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        field: str = "",
        found: str = "",
        remedy: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.found = found
        self.remedy = remedy
        self.headers = headers or {}

    def problem(self) -> Problem:
        told = {"field": self.field, "found": self.found, "remedy": self.remedy}
        more = {name: text for name, text in told.items() if text}
        return Problem(title=self.status.phrase, status=self.status.value, detail=self.detail, **more)

    def response(self) -> web.Response:
        return web.Response(
            body=msgspec.json.encode(self.problem()),
            status=self.status,
            content_type="application/problem+json",
            headers={**self.headers, "Cache-Control": "no-store"},
        )


def refusal(error: Exception) -> Refusal | None:
    """What a browser is told of an error; None for one that nobody expects."""
    match error:
        case Refusal():
            return error
        case RpcError():
            named = _FILTER.match(error.message)
            status = _STATUS.get(error.code, HTTPStatus.BAD_GATEWAY)
            return Refusal(status, error.message, field=named[1] if named else "")
        case StoreError():
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        case web.HTTPException():
            return Refusal(HTTPStatus(error.status), error.reason)
    return None
