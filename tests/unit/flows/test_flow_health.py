"""TCP health in flows: from the columns to what people read and ask for."""

from __future__ import annotations

import numpy as np
import pytest

from axoneme.flows import render
from axoneme.flows.flow import Flow, TCPHealth
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import FlowStore

from .records import DTYPE, END, NEW, VOCABULARY, event, records, some_names

NAMES = some_names()
LOG = FlowLog("node1", FlowStore(DTYPE, 8, 8), NAMES, lambda _: (), ServiceNames(), Requests(), VOCABULARY)
SLOW = event(kind=END, handshake=250_000, rtt=400, min_rtt=300, retransmissions=(2, 1))
QUICK = event(kind=END, handshake=90, rtt=80, min_rtt=20)
UNSEEN = event(kind=END)
DATAGRAMS = event(kind=END, protocol=17)
FLOWS = records(SLOW, QUICK, UNSEEN, DATAGRAMS, event(kind=NEW), names=NAMES)


def shown() -> list[Flow]:
    return LOG.encoder().flows(FLOWS)


def test_an_end_says_what_was_measured_and_nothing_where_nothing_was() -> None:
    slow, quick, *others = shown()
    assert slow.tcp_health == TCPHealth(250_000_000, 400_000, 300_000, 2, 1)
    assert quick.tcp_health == TCPHealth(90_000, 80_000, 20_000)
    assert [each.tcp_health for each in others] == [None, None, None]
    assert "tcp_health" not in render.json(others[0])


def test_people_read_it_behind_the_counts() -> None:
    slow, quick, unseen, *_ = shown()
    assert render.compact(slow).endswith(
        "(handshake 250 ms, rtt 0.40 ms (least 0.30 ms), sent again 2, by the other end 1)"
    )
    assert render.health(quick) == "handshake 0.090 ms, rtt 0.080 ms (least 0.020 ms)"
    assert render.compact(unseen).endswith(" s")
    assert "TCP: handshake 250 ms" in render.block(slow)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (FlowFilter(handshake=(200_000_000,)), [0]),
        (FlowFilter(handshake=(90_000,)), [0, 1]),
        (FlowFilter(handshake=(90_001,)), [0]),
        (FlowFilter(handshake=(0,)), [0, 1]),  # not those of which nobody knows
        (FlowFilter(rtt=(400_000,)), [0]),
        (FlowFilter(rtt=(10**15,)), []),
        (FlowFilter(retransmissions=(3,)), [0]),
        (FlowFilter(retransmissions=(4,)), []),
        (FlowFilter(retransmissions=(0,)), [0, 1, 2]),
        (FlowFilter(retransmissions=(4, 1)), [0]),
        (FlowFilter(handshake=(1,), rtt=(100_000,)), [0]),
    ],
)
def test_filters(wanted: FlowFilter, found: list[int]) -> None:
    assert np.flatnonzero(LOG.matcher([wanted]).mask(FLOWS)).tolist() == found


@pytest.mark.parametrize("field", ["handshake", "rtt", "retransmissions"])
def test_nothing_takes_less_than_no_time(field: str) -> None:
    with pytest.raises(FilterError, match=f"filter {field}: -1 is not 0 or more"):
        LOG.matcher([FlowFilter(**{field: (-1,)})])
