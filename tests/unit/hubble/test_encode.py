"""Bytes put together from pieces are the messages that they stand for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.flows.flow import Flow, LostEvents
from axoneme.flows.names import End
from axoneme.flows.servicenames import ServicePort
from axoneme.hubble import wire
from axoneme.hubble.encode import Encoder
from axoneme.hubble.fieldmask import Mask, MaskError
from axoneme.hubble.schema import enum, message
from axoneme.identity.prefixes import address_bytes
from axoneme.model.policy import PolicyRef
from unit.hubble import logs

RESPONSE = message("observer.GetFlowsResponse")
FLOW = message("flow.Flow")
SEEDS = st.integers(0, 10_000)

#: What the hubble command asks for, when it prints lines.
USUAL = """
    time verdict ethernet IP l4 source.identity source.namespace source.pod_name destination.identity
    destination.namespace destination.pod_name Type node_name l7 event_type source_service destination_service
    is_reply Summary ip_trace_id
"""
OTHERS = """
    uuid time.seconds IP.source IP.ipVersion IP.source_xlated l4.TCP l4.TCP.flags.SYN l4.UDP.source_port
    source.labels destination interface.index l7.http.code l7.latency_ns trace_context proxy_port
    egress_allowed_by ingress_denied_by details details.event details.request drop_reason_desc emitter
"""
PATHS = (USUAL + OTHERS).split()
EMPTY: tuple[Any, ...] = ({}, [], "", 0, None)


def responses(log: Any, records: Any, mask: Mask | None = None) -> list[Any]:
    encoder = Encoder(log, lambda: logs.SITE, mask or Mask())
    return [RESPONSE.FromString(each) for each in encoder.responses(records)]


@settings(max_examples=25)
@given(SEEDS)
def test_they_say_what_the_json_of_the_same_flows_says(seed: int) -> None:
    log = logs.log()
    records = logs.flows(log, seed)
    told = responses(log, records)
    assert len(told) == len(records)
    for response, flow, wall in zip(
        told, log.encoder().flows(records), records["wall"].tolist(), strict=True
    ):
        assert response.node_name == response.flow.node_name == "prod/n1"
        assert response.time.ToNanoseconds() == response.flow.time.ToNanoseconds() == wall
        said = MessageToDict(response.flow, preserving_proto_field_name=True)
        assert lean(ours(said)) == lean(theirs(flow))


def lean(value: Any) -> Any:
    """Without what is empty or zero, which one of the forms leaves out."""
    if isinstance(value, dict):
        return {
            name: left for name, each in value.items() if (left := lean(each)) not in ({}, [], "", 0, None)
        }
    return [lean(each) for each in value] if isinstance(value, list | tuple) else value


def ours(said: dict[str, Any]) -> dict[str, Any]:
    """What both forms have, the details beside the rest."""
    details = said.pop("details")
    for name in (
        *("time", "node_name", "uuid", "emitter", "node_labels", "reply", "drop_reason", "trace_context"),
        *("trace_observation_point", "trace_reason"),
    ):
        said.pop(name, None)
    said["event_type"] = said["event_type"]["type"]
    for side in ("source", "destination"):
        said[side].pop("cluster_name", None)
    said.get("interface", {}).pop("name", None)
    for name in (name for name in said if name.endswith("_by")):
        for policy in said[name]:
            policy.pop("labels", None)
    counts = {name: int(details.pop(name, 0)) for name in COUNTS}
    request = details.pop("request", {})
    if health := details.get("tcp_health"):
        details["tcp_health"] = {name: int(value) for name, value in health.items()}
    if layer7 := said.get("l7"):
        layer7["latency_ns"] = int(layer7.get("latency_ns", 0))
    return {**said, **counts, "details": {**details, **request}}


COUNTS = ("duration_ns", "packets", "bytes", "reply_packets", "reply_bytes")


def theirs(flow: Flow) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(flow)
    details: dict[str, Any] = {"event": said.pop("event")}
    del said["time"], said["node_name"]
    ip = said["IP"]
    for inside, outside in (("source_port_xlated",) * 2, ("frontend",) * 2, ("frontend_port",) * 2):
        details[outside] = ip.pop(inside, 0)
    details["tcp_health"] = said.pop("tcp_health", {})
    details["protocol"] = ip.pop("protocol", 0)
    said["event_type"] = said["event_type"]["type"]
    if (reason := said.get("drop_reason_desc")) and reason not in enum("flow.DropReason"):
        said["drop_reason_desc"] = 211  # ours, which has no name there
    for side in ("source", "destination"):
        details[f"{side}_node"] = said.get(side, {}).pop("node_name", "")
        if service := said.get(f"{side}_service"):
            details["service_port"] = service.pop("port", "")
    for name in (name for name in said if name.endswith("_by")):
        rules = [policy.pop("rule", "") for policy in said[name]]
        details[f"{name.partition('_')[0]}_rules"] = rules
    layer7 = said.get("l7", {})
    for name in ("server_name", "reason"):
        details[name] = layer7.pop(name, "")
    details["kafka_client_id"] = layer7.get("kafka", {}).pop("client_id", "")
    details["grpc_status"] = layer7.get("http", {}).pop("grpc_status", 0)
    return {**said, "details": details}


@settings(max_examples=40)
@given(SEEDS, st.lists(st.sampled_from(PATHS), min_size=1, max_size=6))
def test_a_mask_leaves_what_it_would_leave_of_the_whole(seed: int, paths: list[str]) -> None:
    log = logs.log()
    records = logs.flows(log, seed, 10)
    mask = message("google.protobuf.FieldMask")(paths=paths)
    for whole, masked in zip(responses(log, records), responses(log, records, Mask(paths)), strict=True):
        left = FLOW()
        mask.MergeMessage(whole.flow, left)
        assert masked.flow == left
        assert masked.node_name == whole.node_name
        assert masked.time == whole.time


@pytest.mark.parametrize("path", ["nothing", "source.nothing", "sourcePodName", ""])
def test_a_path_that_is_no_field_is_refused_by_name(path: str) -> None:
    with pytest.raises(MaskError, match="field_mask"):
        Mask([path])


def test_what_something_means_is_looked_up_anew_when_it_has_changed() -> None:
    log = logs.log()
    encoder = Encoder(log, lambda: logs.SITE)
    records = logs.flows(log, 1)
    records["service"], records["egress_rule"], records["kind"] = 88, 44, 1
    records["flags"] |= 8
    encoder.responses(records)
    log.services.put(88, ServicePort("shop/new", "http"))
    logs.RULES[44] = (PolicyRef("NetworkPolicy", "shop", "new"),)
    try:
        flow = RESPONSE.FromString(encoder.responses(records)[0]).flow
    finally:
        del logs.RULES[44]
    assert {flow.source_service.name, flow.destination_service.name} == {"", "new"}
    assert [policy.name for policy in (*flow.egress_allowed_by, *flow.egress_denied_by)] == ["new"]
    log.names.put("10.0.0.1", [address_bytes("10.0.0.1")], End(("k8s:app=other",), "shop", "web-9"))
    log.names.resolve(records)
    told = [RESPONSE.FromString(each).flow for each in encoder.responses(records)]
    assert {flow.source.pod_name for flow in told if flow.IP.source == "10.0.0.1"} == {"web-9"}


def test_identifiers_are_the_same_for_everybody_and_different_for_each() -> None:
    log = logs.log()
    records = logs.flows(log, 3, 500)
    first, second = responses(log, records), responses(log, records[::-1].copy())[::-1]
    uuids = [response.flow.uuid for response in first]
    assert uuids == [response.flow.uuid for response in second]
    assert len(set(uuids)) == 500
    assert {UUID(uuid).version for uuid in uuids} == {8}


def test_losses_are_told() -> None:
    encoder = Encoder(logs.log(), lambda: logs.SITE)
    told = RESPONSE.FromString(encoder.lost(LostEvents("HUBBLE_RING_BUFFER", "flows", 7), 1_500_000_000))
    assert (told.lost_events.source, told.lost_events.num_events_lost, told.time.seconds) == (3, 7, 1)


@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=1))
def test_columns_of_numbers_are_read_as_what_they_are(values: list[int]) -> None:
    column = np.array(values, np.uint64)
    for value, piece in zip(values, wire.pieces(wire.numbers(2, column, 9)), strict=True):
        assert message("axoneme.Details").FromString(piece).duration_ns == value
        assert message("axoneme.Details").FromString(wire.number(2, value)).duration_ns == value
