"""Columns say what flows say, and flows can be made of them again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from axoneme.flows.flow import Flow
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.transfer import Layout
from axoneme.history.columns import batch
from axoneme.history.rebuild import Rebuilder
from axoneme.history.schema import SCHEMA
from unit.history import logs


def rows() -> list[dict[str, Any]]:
    log = logs.some_log()
    return batch(log, logs.some_records(log)).to_pylist()


def test_the_columns_are_those_that_are_promised() -> None:
    log = logs.some_log()
    made = batch(log, logs.some_records(log))
    assert made.schema.equals(SCHEMA)
    made.validate(full=True)


def test_each_row_says_what_the_flow_says() -> None:
    log = logs.some_log()
    records = logs.some_records(log)
    for row, flow in zip(batch(log, records).to_pylist(), log.encoder().flows(records), strict=True):
        told = _told(flow)
        assert {name: row[name] for name in told} == told


def _told(flow: Flow) -> dict[str, Any]:
    """The oracle: the columns that an encoded flow has something for."""
    header = flow.l4.TCP or flow.l4.UDP or flow.l4.SCTP
    service = flow.destination_service or flow.source_service
    http = flow.l7.http if flow.l7 else None
    found = {
        "node": flow.node_name,
        "verdict": flow.verdict,
        "drop_reason": flow.drop_reason_desc or None,
        "event": flow.event,
        "direction": flow.traffic_direction,
        "reply": flow.is_reply,
        "source": flow.IP.source,
        "destination": flow.IP.destination,
        "source_port": header.source_port if header else None,
        "destination_port": header.destination_port if header else None,
        "source_xlated": flow.IP.source_xlated or None,
        "proxy_port": flow.proxy_port or None,
        "service": service.name if service else None,
        "service_namespace": service.namespace if service else None,
        "service_port": service.port if service else None,
        "interface": flow.interface.index if flow.interface else None,
        "http_url": http.url if http else None,
        "l7": msgspec.json.encode(flow.l7).decode() if flow.l7 else None,
    }
    for name in ("egress_allowed_by", "egress_denied_by", "ingress_allowed_by", "ingress_denied_by"):
        found[name] = [f"{each} {each.rule}" if each.kind else each.name for each in getattr(flow, name)]
    for side in ("source", "destination"):
        end = getattr(flow, side)
        workload = end.workloads[0] if end.workloads else None
        found |= {
            f"{side}_identity": end.identity,
            f"{side}_endpoint": end.ID or None,
            f"{side}_namespace": end.namespace or None,
            f"{side}_pod": end.pod_name or None,
            f"{side}_workload": workload.name if workload else None,
            f"{side}_workload_kind": workload.kind if workload else None,
            f"{side}_labels": list(end.labels),
            f"{side}_node": end.node_name or None,
        }
    if flow.event == "end":
        found |= {
            "duration_ns": flow.duration_ns,
            "packets": flow.packets,
            "bytes": flow.bytes,
            "reply_bytes": flow.reply_bytes,
        }
    return found


def test_times_are_whole() -> None:
    first = rows()[0]["time"]
    assert first.value == logs.START + 1
    assert first.to_pydatetime(warn=False).replace(microsecond=0) == datetime.fromtimestamp(
        logs.START // 10**9, UTC
    )


def test_flows_come_back_as_they_were() -> None:
    log = logs.some_log()
    records = logs.some_records(log)
    rebuilder = Rebuilder(Layout.of(log))
    again = rebuilder.records(batch(log, records))
    assert rebuilder.log.encoder().flows(again) == log.encoder().flows(records)
    assert batch(rebuilder.log, again).to_pylist() == batch(log, records).to_pylist()


@pytest.mark.parametrize(
    "wanted",
    [
        FlowFilter(verdict=("DROPPED",)),
        FlowFilter(verdict=("AUDIT",)),
        FlowFilter(pod=("shop/client",)),
        FlowFilter(to_service=("shop/web",)),
        FlowFilter(reason=("POLICY_DENIED", 17)),
        FlowFilter(label=("app=web",)),
        FlowFilter(http_path=("/a$",)),
        FlowFilter(event=("response",)),
        FlowFilter(ip=("2001:db8::/32",)),
        FlowFilter(type=("policy-verdict",)),
        FlowFilter(direction=("ingress",)),
    ],
    ids=repr,
)
def test_filters_find_the_same_in_the_past(wanted: FlowFilter) -> None:
    log = logs.some_log()
    records = logs.some_records(log)
    rebuilder = Rebuilder(Layout.of(log))
    again = rebuilder.records(batch(log, records))
    expected = log.matcher([wanted]).mask(records)
    assert expected.any()
    assert rebuilder.log.matcher([wanted]).mask(again).tolist() == expected.tolist()


def test_of_nothing_comes_nothing() -> None:
    log = logs.some_log()
    none = logs.some_records(log)[:0]
    assert batch(log, none).num_rows == 0
    assert len(Rebuilder(Layout.of(log)).records(batch(log, none))) == 0
