"""``observer.Observer`` of one node: Hubble's requests become walks through its record."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from axoneme.flows.flowfilter import FilterError
from axoneme.flows.status import Status
from axoneme.flowserver.observe import Reader, Span
from axoneme.hubble.encode import Encoder
from axoneme.hubble.fieldmask import Mask, MaskError
from axoneme.hubble.filters import Filters
from axoneme.hubble.parts import Site
from axoneme.hubble.schema import enum, message
from axoneme.hubble.serving import CallError, Service, Stream

#: Flows that are sent at once, which is what a client that does not read makes us keep.
_BULK: Final = 256
#: Field masks whose encoders are kept: each remembers what repeats.
_ENCODERS: Final = 8
_HOUR: Final = 3_600_000_000_000


class HubbleObserver:
    """``about`` tells what GetNodes says of this node besides its figures."""

    def __init__(
        self,
        reader: Reader,
        site: Callable[[], Site],
        status: Callable[[], Awaitable[Status]],
        clock: Callable[[], int],
        about: Callable[[], dict[str, Any]],
    ) -> None:
        """``clock``: ns of the wall clock."""
        self._reader = reader
        self._site = site
        self._status = status
        self._clock = clock
        self._about = about
        self._encoders: OrderedDict[frozenset[str], Encoder] = OrderedDict()

    def service(self, agent_events: Stream) -> Service:
        """There are no debug events: the datapath tells of none."""
        answers = {
            "GetNodes": self.nodes,
            "GetNamespaces": self.namespaces,
            "ServerStatus": self.server_status,
        }
        return Service("observer.Observer", answers, {"GetFlows": self.flows, "GetAgentEvents": agent_events})

    # ---- flows -----------------------------------------------------------------------------------

    async def flows(self, request: Any) -> AsyncGenerator[Sequence[bytes]]:
        span, most = span_of(request)
        try:
            filters = Filters(self._reader.log, self._site(), request.whitelist, request.blacklist)
            encoder = self._encoder(Mask.of(request))
        except (FilterError, MaskError) as error:
            raise CallError("INVALID_ARGUMENT", str(error)) from error
        async with aclosing(self._reader.pages(span, filters.mask)) as pages:
            async for page in pages:
                if page.lost:
                    now = self._clock()
                    yield [encoder.lost(each, now) for each in page.lost]
                records = page.records if most is None else page.records[:most]
                for start in range(0, len(records), _BULK):
                    yield encoder.responses(records[start : start + _BULK])
                if most is not None:
                    most -= len(records)
                    if most <= 0:
                        return

    def _encoder(self, mask: Mask) -> Encoder:
        encoder = self._encoders.pop(mask.paths, None) or Encoder(self._reader.log, self._site, mask)
        self._encoders[mask.paths] = encoder
        if len(self._encoders) > _ENCODERS:
            self._encoders.popitem(last=False)
        return encoder

    # ---- the node --------------------------------------------------------------------------------

    async def server_status(self, _: Any) -> Any:
        status = await self._status()
        return message("observer.ServerStatusResponse")(
            num_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
            uptime_ns=status.uptime_ns,
            version=self._site().version,
            flows_rate=status.flows_rate,
        )

    async def nodes(self, _: Any) -> Any:
        status, site = await self._status(), self._site()
        node = message("observer.Node")(
            name=site.name,
            version=site.version,
            state=enum("relay.NodeState")["NODE_CONNECTED"],
            uptime_ns=status.uptime_ns,
            num_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
            **self._about(),
        )
        return message("observer.GetNodesResponse")(nodes=[node])

    async def namespaces(self, _: Any) -> Any:
        log, cluster = self._reader.log, self._site().cluster
        rows = log.store.rows_since(self._reader.monotonic(self._clock() - _HOUR))
        found = sorted({log.names[row].namespace for row in rows.tolist()} - {""})
        return message("observer.GetNamespacesResponse")(
            namespaces=[{"cluster": cluster, "namespace": namespace} for namespace in found]
        )


def span_of(request: Any) -> tuple[Span, int | None]:
    """Which part of the record a request is for, and how many flows of it at most.

    As in Hubble, ``since`` says where to begin, whatever ``number`` says; that then is how many there are at
    most. To follow begins with the present, or with the last ``number``.
    """
    if request.first and request.follow:
        raise CallError("INVALID_ARGUMENT", "first cannot be specified with follow")
    since, until = _time(request, "since"), _time(request, "until")
    backwards = since is None and not request.first
    number = min(request.number, 1 << 62)
    last = number if backwards and number else None
    most = number if number and not backwards and not request.follow else None
    return Span(last, request.follow, since, until, last_of_all=True), most


def _time(request: Any, field: str) -> int | None:
    """ns of the wall clock."""
    if not request.HasField(field):
        return None
    stamp = getattr(request, field)
    if not (-62135596800 <= stamp.seconds <= 253402300799 and 0 <= stamp.nanos < 1_000_000_000):
        raise CallError("INVALID_ARGUMENT", f"{field}: {stamp.seconds} s {stamp.nanos} ns is no time")
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)
