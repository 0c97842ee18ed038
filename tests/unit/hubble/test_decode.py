"""What went out as Hubble's messages comes back as it was."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from axoneme.flows.flow import Flow, LostEvents
from axoneme.hubble import decode
from axoneme.hubble.encode import Encoder
from axoneme.hubble.schema import enum, message
from unit.hubble import logs

RESPONSE = message("observer.GetFlowsResponse")


def alike(flow: Flow) -> Flow:
    """Without what Hubble's form of it says in another way: sub types, and drops that it has no name for."""
    known = not flow.drop_reason_desc or flow.drop_reason_desc in enum("flow.DropReason")
    kind = replace(flow.event_type, sub_type=0) if flow.event_type else None
    return replace(flow, event_type=kind, drop_reason_desc=flow.drop_reason_desc if known else "REASON_211")


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_flows_come_back_as_they_were(seed: int) -> None:
    log = logs.log()
    records = logs.flows(log, seed)
    sent = Encoder(log, lambda: logs.SITE).responses(records)
    found = [decode.item(RESPONSE.FromString(each)) for each in sent]
    for item, flow in zip(found, log.encoder().flows(records), strict=True):
        assert item and item.flow
        assert item.node_name == "n1"
        assert alike(item.flow) == alike(flow)


def test_lost_events_come_back() -> None:
    lost = LostEvents("PERF_EVENT_RING_BUFFER", "flows", 17)
    sent = Encoder(logs.log(), lambda: logs.SITE).lost(lost, 1)
    item = decode.item(RESPONSE.FromString(sent))
    assert item and item.lost_events
    assert (item.lost_events.source, item.lost_events.num_events_lost) == (lost.source, 17)
