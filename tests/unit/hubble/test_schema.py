"""The messages are Hubble's on the wire: numbers that programs which were built elsewhere rely on."""

from __future__ import annotations

import pytest

from axoneme.hubble.schema import enum, message, pool

#: Facts of Hubble 1.19: message, field, number.
NUMBERS = [
    ("flow.Flow", "time", 1),
    ("flow.Flow", "IP", 5),
    ("flow.Flow", "l7", 15),
    ("flow.Flow", "is_reply", 26),
    ("flow.Flow", "ingress_denied_by", 21005),
    ("flow.Flow", "Summary", 100000),
    ("flow.Endpoint", "workloads", 6),
    ("flow.Layer7", "http", 101),
    ("flow.FlowFilter", "drop_reason_desc", 33),
    ("flow.FlowFilter", "encrypted", 40),
    ("observer.GetFlowsRequest", "whitelist", 6),
    ("observer.GetFlowsRequest", "field_mask", 10),
    ("observer.GetFlowsResponse", "node_name", 1000),
    ("observer.ServerStatusResponse", "flows_rate", 9),
    ("peer.ChangeNotification", "tls", 4),
    ("relay.NodeStatusEvent", "node_names", 2),
]


@pytest.mark.parametrize(("name", "field", "number"), NUMBERS)
def test_fields_have_hubbles_numbers(name: str, field: str, number: int) -> None:
    assert message(name).DESCRIPTOR.fields_by_name[field].number == number


def test_services_have_hubbles_methods() -> None:
    observer = pool().FindServiceByName("observer.Observer")
    assert {method.name: method.server_streaming for method in observer.methods} == {
        "GetFlows": True,
        "GetAgentEvents": True,
        "GetDebugEvents": True,
        "GetNodes": False,
        "GetNamespaces": False,
        "ServerStatus": False,
    }
    assert [method.name for method in pool().FindServiceByName("peer.Peer").methods] == ["Notify"]


def test_enums_have_hubbles_numbers() -> None:
    assert enum("flow.DropReason")["POLICY_DENIED"] == 133
    assert enum("flow.Verdict")["AUDIT"] == 4
    assert enum("relay.NodeState")["NODE_UNAVAILABLE"] == 2


def test_what_is_not_hubbles_is_passed_over_by_those_who_do_not_know_it() -> None:
    flow = message("flow.Flow")(node_name="n1", details={"event": "end", "packets": 3})
    other = message("flow.Endpoint").FromString(flow.SerializeToString())  # 71000 is unknown there
    assert message("flow.Flow").FromString(other.SerializeToString()) == flow
