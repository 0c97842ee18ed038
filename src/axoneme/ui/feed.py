"""Where flows come from: the one thing that the rest of the server asks, whatever stands behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec.structs
import numpy as np
import numpy.typing as npt

from axoneme.flows.events import Records, Verdict
from axoneme.flows.flow import Flow, Item, ObserveRequest
from axoneme.flows.recordsrequest import RecordsRequest
from axoneme.flows.transfer import Parcel, Unpacker
from axoneme.relay import merged
from axoneme.rpc import UNAVAILABLE, AsyncClient, RpcError
from axoneme.ui import api

#: Seconds that a node may take for an answer.
_PATIENCE: Final = 5.0


#: By verdict: how many in each stretch of time.
Counts = dict[str, list[int]]


@dataclass(slots=True)
class Gaps:
    """What is missing from flows: of which nodes, and how many events."""

    nodes: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    def tell(self, node: str, failure: RpcError | None) -> None:
        if failure is None:
            self.nodes.pop(node, None)
        else:
            self.nodes[node] = failure.message

    def absent(self) -> list[api.Absent]:
        return [api.Absent(node=node, why=why) for node, why in sorted(self.nodes.items())]


class Feed(Protocol):
    """``gaps`` are told of what is missing. RpcError(INVALID) where a filter means nothing."""

    def nodes(self) -> list[str]:
        """Whose flows can be had."""
        ...

    def heard(self) -> Collection[str] | None:
        """The same, where they do not change; None where every node of the cluster is heard."""
        ...

    def past(self, request: ObserveRequest, gaps: Gaps, newest: dict[str, str]) -> AsyncGenerator[Flow, None]:
        """What is recorded, oldest first; with ``last``, so many of each node. ``newest`` gets the time of
        each node's newest flow."""
        ...

    def live(
        self, request: ObserveRequest, gaps: Gaps, seen: Mapping[str, str]
    ) -> AsyncGenerator[list[Flow], None]:
        """What comes from now on, or behind those that are ``seen``, in batches and in the order of time."""
        ...

    async def recorded(self) -> tuple[int, int] | None:
        """From when to when there is something, in ns of the wall clock."""
        ...


class Sockets:
    """The flow servers of nodes of this machine, each by its socket."""

    def __init__(self, sockets: Mapping[str, Path]) -> None:
        self._sockets = dict(sockets)

    def nodes(self) -> list[str]:
        return sorted(self._sockets, key=lambda name: (len(name), name))

    def heard(self) -> Collection[str]:
        return self._sockets.keys()

    async def past(
        self, request: ObserveRequest, gaps: Gaps, newest: dict[str, str]
    ) -> AsyncGenerator[Flow, None]:
        async with aclosing(merged.kept(self._sockets, request, gaps.tell, newest)) as items:
            async for item in items:
                if item.lost_events:
                    gaps.lost += item.lost_events.num_events_lost
                if item.flow:
                    yield item.flow

    async def live(
        self, request: ObserveRequest, gaps: Gaps, seen: Mapping[str, str]
    ) -> AsyncGenerator[list[Flow], None]:
        wanted = msgspec.structs.replace(request, follow=True, last=None)
        async with aclosing(merged.live(self._sockets, wanted, gaps.tell, seen)) as batches:
            async for batch in batches:
                gaps.lost += sum(item.lost_events.num_events_lost for item in batch if item.lost_events)
                yield [item.flow for item in batch if item.flow]

    async def counts(self, request: ObserveRequest, since: int, width: int, buckets: int) -> Counts:
        """Of what is in memory: flows by verdict and time, counted in records, which takes a hundredth of the
        time that flows would take."""
        wanted = RecordsRequest(
            filters=request.filters, not_filters=request.not_filters, since=since, until=request.until
        )
        found: Counts = {}
        for path in self._sockets.values():
            stream = AsyncClient(path, _PATIENCE).stream("flows.records", wanted, Parcel)
            unpacker = Unpacker(1)
            async with aclosing(cast(AsyncGenerator[Parcel, None], stream)) as parcels:
                try:
                    async for parcel in parcels:
                        records = unpacker.unpack(parcel)
                        verdicts = unpacker.log.vocabulary.verdicts(records)
                        _count(found, verdicts, records, since, width, buckets)
                        await asyncio.sleep(0)
                except RpcError as failure:
                    if failure.code != UNAVAILABLE:
                        raise
        return found

    async def recorded(self) -> tuple[int, int] | None:
        found = [time for time in await asyncio.gather(*map(_oldest, self._sockets.values())) if time]
        return (min(found), time.time_ns()) if found else None


def _count(
    found: Counts, verdicts: npt.NDArray[Any], records: Records, since: int, width: int, buckets: int
) -> None:
    places = (records["wall"].astype(np.int64) - since) // width
    inside = (places >= 0) & (places < buckets)
    for verdict in np.unique(verdicts[inside]).tolist():
        added = np.bincount(places[inside & (verdicts == verdict)], minlength=buckets)
        before = found.setdefault(Verdict(verdict).name, [0] * buckets)
        found[Verdict(verdict).name] = [one + more for one, more in zip(before, added.tolist(), strict=True)]


async def _oldest(path: Path) -> int:
    """0 where there is none."""
    stream = AsyncClient(path, _PATIENCE).stream("flows.observe", ObserveRequest(), Item)
    async with aclosing(cast(AsyncGenerator[Item, None], stream)) as items:
        try:
            async for item in items:
                if item.flow:
                    return merged.instant(item.flow.time)
        except RpcError:
            pass  # who does not answer has nothing to show just now
    return 0
