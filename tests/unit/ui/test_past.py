"""Time travel: what is on disk comes before what is in memory, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from axoneme.flows.flow import Flow, Item, LostEvents, ObserveRequest
from axoneme.history.recorded import Wanted
from axoneme.relay.merged import instant
from axoneme.ui import past
from axoneme.ui.feed import Gaps

from .flows import FakeFeed, flow, pod

FLOWS = [flow(pod("a"), pod("b"), second=second) for second in range(20)]


def at(second: float) -> int:
    return instant(flow(pod("a"), pod("b"), second=second).time)


class Memory(FakeFeed):
    """Holds the flows from the tenth second on."""

    async def recorded(self) -> tuple[int, int] | None:
        return at(10), at(20)


class Disk:
    """Holds all, and had lost something."""

    def __init__(self, _: object) -> None:
        pass

    def span(self) -> tuple[int, int] | None:
        return at(0), at(19)

    def read(self, wanted: Wanted) -> Iterator[Item]:
        yield Item(lost_events=LostEvents("PERF_EVENT_RING_BUFFER", "flows", 3))
        found = [each for each in FLOWS if wanted.since <= instant(each.time) <= wanted.until]
        yield from (Item(flow=each) for each in (found[-wanted.last :] if wanted.last else found))


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> past.WithHistory:
    monkeypatch.setattr("axoneme.history.recorded.Recorded", Disk)
    return past.WithHistory(Memory(FLOWS[10:]), {"node1": Path("nowhere")})


async def read(feed: past.WithHistory, request: ObserveRequest) -> tuple[list[Flow], Gaps]:
    gaps = Gaps()
    async with aclosing(feed.past(request, gaps, {})) as flows:
        return [each async for each in flows], gaps


async def test_disk_and_memory_are_one_past(both: past.WithHistory) -> None:
    found, gaps = await read(both, ObserveRequest(since=at(5)))
    assert [each.time for each in found] == [each.time for each in FLOWS[5:]]
    assert gaps.lost == 3
    assert await both.recorded() == (at(0), at(20))


async def test_only_what_is_needed_is_read(both: past.WithHistory) -> None:
    assert [each.time for each in (await read(both, ObserveRequest(since=at(2), until=at(4))))[0]] == [
        each.time for each in FLOWS[2:5]
    ]
    recent, gaps = await read(both, ObserveRequest(since=at(10)))
    assert (len(recent), gaps.lost) == (10, 0)
    newest, gaps = await read(both, ObserveRequest(last=4))
    assert (len(newest), gaps.lost) == (4, 0)


async def test_more_than_is_read_is_told(both: past.WithHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "_MOST", 2)
    monkeypatch.setattr(past, "_PAGE", 2)
    _, gaps = await read(both, ObserveRequest(since=at(0)))
    assert "only the first" in gaps.nodes["history"]
