"""Serving records in bulk, to processes of the same machine: for history, questions in SQL, and notebooks."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from axoneme.flows.recordsrequest import Position, RecordsRequest
from axoneme.flows.store import Cursor
from axoneme.flows.transfer import Packer, Parcel
from axoneme.flowserver.observe import Reader, Span, matcher
from axoneme.rpc import INVALID, RpcError


class Bulk:
    """Answers ``flows.records``."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        #: Positions are good for the memory of this process, and this names it.
        self._server = uuid.uuid4().hex

    async def records(self, request: RecordsRequest) -> AsyncIterator[Parcel]:
        if request.last is not None and request.last < 0:
            raise RpcError(INVALID, f"last: {request.last} flows; give 0 or more")
        log = self._reader.log
        accepts = matcher(log, request.filters, request.not_filters).mask
        begin = self._cursor(request)
        packer = Packer(log)
        span = Span(request.last, request.follow, request.since, request.until, begin)
        # Something comes at once: the layout, and from where on records may come.
        yield packer.pack(log.store.flows.read(0, 0), self._at(begin or log.store.beginning()))
        async with aclosing(self._reader.pages(span, accepts)) as pages:
            async for page in pages:
                yield packer.pack(page.records, self._at(page.next), page.lost)

    def _cursor(self, request: RecordsRequest) -> Cursor | None:
        """Where to go on, where that is asked for."""
        after = request.after
        if after is None:
            return None
        end = self._reader.log.store.end()
        if after.server != self._server or after.flows > end.flows or after.drops > end.drops:
            return Cursor(0, 0)
        return Cursor(after.flows, after.drops, after.told)

    def _at(self, cursor: Cursor) -> Position:
        return Position(self._server, cursor.flows, cursor.drops, cursor.told)
