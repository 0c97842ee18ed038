"""Filters over columns against an evaluator that looks at one message at a time, as Hubble does."""

from __future__ import annotations

import ipaddress
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.flows.flowfilter import FilterError
from axoneme.hubble.encode import Encoder
from axoneme.hubble.filters import Filters
from axoneme.hubble.schema import message
from axoneme.model.labels import Labels
from axoneme.model.selectortext import parse_selector
from unit.hubble import logs

RESPONSE = message("observer.GetFlowsResponse")
FILTER = message("flow.FlowFilter")

VALUES: dict[str, list[Any]] = {
    "source_ip": ["10.0.0.1", "10.0.0.0/8", "fd00::/16", "192.0.2.7"],
    "destination_ip": ["10.0.0.2", "2001:db8::9", "::/0", "0.0.0.0/0"],
    "source_ip_xlated": ["172.31.0.9", "fd00::/64"],
    "source_pod": ["web", "shop/web-1", "data/", "/db"],
    "destination_pod": ["shop/", "web-2", "other/web"],
    "source_service": ["shop/web", "ed", "shop/"],
    "destination_service": ["web", "/edge"],
    "source_label": ["app=web", "k8s:tier=front,app=web", "!app", "reserved:remote-node"],
    "destination_label": ["app in (db, x)"],
    "source_identity": [1, 300],
    "destination_identity": [2, 301],
    "verdict": [1, 2, 4, 5],
    "traffic_direction": [1, 2],
    "drop_reason_desc": [133, 132],
    "event_type": [
        {"type": 1},
        {"type": 129},
        {"type": 5, "match_sub_type": True, "sub_type": 1},
        {"type": 4, "match_sub_type": True, "sub_type": 11},
        {"match_sub_type": True, "sub_type": 0},
    ],
    "protocol": ["tcp", "UDP", "icmp", "icmpv6", "http", "dns", "kafka", "igmp"],
    "source_port": ["80", "40000"],
    "destination_port": ["65535", "53"],
    "reply": [True, False],
    "tcp_flags": [{"SYN": True}, {"SYN": True, "ACK": True}, {"NS": True}, {}],
    "ip_version": [1, 2],
    "interface": [{"index": 1}, {"name": "lo"}, {"index": 7, "name": "lo"}, {"index": 7}],
    "http_status_code": ["503", "5+", "50+", "2+"],
    "http_method": ["get", "POST"],
    "http_path": ["^/api", "a$"],
    "http_url": ["b=1", "^http://web/$"],
    "http_header": [{"key": "host", "value": "web"}, {"key": "host", "value": "other"}],
    "dns_query": ["^a\\.", "zzz"],
    "trace_id": [logs.TRACE, "00"],
    "source_workload": [{"name": "web"}, {"kind": "StatefulSet"}, {"name": "web", "kind": "Job"}],
    "destination_workload": [{"name": "db", "kind": "StatefulSet"}],
    "source_cluster_name": ["prod", "test"],
    "destination_cluster_name": ["prod"],
    "node_name": ["n1", "prod/", "prod/n*", "test/n1", "*/n2"],
    "node_labels": ["zone=a", "zone!=a", "kubernetes.io/hostname"],
    "encrypted": [True, False],
    "source_fqdn": ["a.example"],
    "destination_fqdn": ["*.example"],
    "ip_trace_id": [5],
}

#: Few conditions at a time, or nothing would ever pass.
SMALL = st.lists(st.sampled_from(list(VALUES)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=2) for name in names}
    )
)


@settings(max_examples=150)
@given(st.integers(0, 200), st.lists(SMALL, max_size=2), st.lists(SMALL, max_size=2))
def test_they_choose_what_hubble_would(seed: int, white: list[Any], black: list[Any]) -> None:
    log = logs.log()
    records = logs.flows(log, seed, 30)
    flows = [RESPONSE.FromString(each).flow for each in Encoder(log, lambda: logs.SITE).responses(records)]
    whitelist, blacklist = [FILTER(**each) for each in white], [FILTER(**each) for each in black]
    chosen = Filters(log, logs.SITE, whitelist, blacklist).mask(records).tolist()
    assert chosen == [
        (not white or any(matches(flow, each) for each in whitelist))
        and not any(matches(flow, each) for each in blacklist)
        for flow in flows
    ]


def matches(flow: Any, wanted: Any) -> bool:
    return all(
        any(TESTS[field.name](flow, value) for value in values) for field, values in wanted.ListFields()
    )


def within(address: str, value: str) -> bool:
    network = ipaddress.ip_network(value)
    return bool(address) and ipaddress.ip_address(address) in network


def named(namespace: str, name: str, value: str) -> bool:
    where, _, start = value.rpartition("/")
    return bool(name) and where in ("", namespace) and name.startswith(start)


def called(service: Any, value: str) -> bool:
    return not service.name.startswith("service ") and named(service.namespace, service.name, value)


def selects(labels: Any, value: str) -> bool:
    return parse_selector(value).matches(Labels.parse(labels))


def port(flow: Any, side: str, value: str) -> bool:
    which = flow.l4.WhichOneof("protocol")
    return which in ("TCP", "UDP", "SCTP") and getattr(getattr(flow.l4, which), f"{side}_port") == int(value)


def protocol(flow: Any, value: str) -> bool:
    which, above = flow.l4.WhichOneof("protocol"), flow.l7.WhichOneof("record")
    value = value.lower()
    if value in ("http", "dns", "kafka"):
        return bool(above == value)
    if value == "igmp":
        return bool(flow.details.protocol == 2)
    return (which or "").lower() in {"icmp": ("icmpv4", "icmpv6")}.get(value, (value,))


def event_type(flow: Any, value: Any) -> bool:
    return value.type in (0, flow.event_type.type) and (
        not value.match_sub_type or value.sub_type == flow.event_type.sub_type
    )


def workload(end: Any, value: Any) -> bool:
    return any(value.name in ("", each.name) and value.kind in ("", each.kind) for each in end.workloads)


def interface(flow: Any, value: Any) -> bool:
    return (
        flow.HasField("interface")
        and value.index in (0, flow.interface.index)
        and value.name in ("", flow.interface.name)
    )


def node(flow: Any, value: str) -> bool:
    cluster, _, name = value.rpartition("/")
    return fnmatchcase(flow.node_name, f"{cluster or '*'}/{name or '*'}")


TESTS: dict[str, Any] = {
    "source_ip": lambda flow, value: within(flow.IP.source, value),
    "destination_ip": lambda flow, value: within(flow.IP.destination, value),
    "source_ip_xlated": lambda flow, value: within(flow.IP.source_xlated, value),
    "source_pod": lambda flow, value: named(flow.source.namespace, flow.source.pod_name, value),
    "destination_pod": lambda flow, value: named(
        flow.destination.namespace, flow.destination.pod_name, value
    ),
    "source_service": lambda flow, value: called(flow.source_service, value),
    "destination_service": lambda flow, value: called(flow.destination_service, value),
    "source_label": lambda flow, value: selects(flow.source.labels, value),
    "destination_label": lambda flow, value: selects(flow.destination.labels, value),
    "source_identity": lambda flow, value: flow.source.identity == value,
    "destination_identity": lambda flow, value: flow.destination.identity == value,
    "verdict": lambda flow, value: flow.verdict == value,
    "traffic_direction": lambda flow, value: flow.traffic_direction == value,
    "drop_reason_desc": lambda flow, value: flow.drop_reason_desc == value,
    "event_type": event_type,
    "protocol": protocol,
    "source_port": lambda flow, value: port(flow, "source", value),
    "destination_port": lambda flow, value: port(flow, "destination", value),
    "reply": lambda flow, value: flow.is_reply.value == value,
    "tcp_flags": lambda flow, value: (
        flow.l4.TCP.HasField("flags")
        and all(getattr(flow.l4.TCP.flags, field.name) for field, _ in value.ListFields())
    ),
    "ip_version": lambda flow, value: flow.IP.ipVersion == value,
    "interface": interface,
    "http_status_code": lambda flow, value: str(flow.l7.http.code or "").startswith(value.rstrip("+")),
    "http_method": lambda flow, value: flow.l7.http.method == value.upper(),
    "http_path": lambda flow, value: (
        bool(flow.l7.http.url)
        and re.search(value, flow.l7.http.url.partition("?")[0].removeprefix("http://web")) is not None
    ),
    "http_url": lambda flow, value: bool(flow.l7.http.url) and re.search(value, flow.l7.http.url) is not None,
    "http_header": lambda flow, value: value in flow.l7.http.headers,
    "dns_query": lambda flow, value: (
        flow.l7.HasField("dns") and re.search(value, flow.l7.dns.query) is not None
    ),
    "trace_id": lambda flow, value: flow.trace_context.parent.trace_id == value,
    "source_workload": lambda flow, value: workload(flow.source, value),
    "destination_workload": lambda flow, value: workload(flow.destination, value),
    "source_cluster_name": lambda flow, value: flow.source.cluster_name == value,
    "destination_cluster_name": lambda flow, value: flow.destination.cluster_name == value,
    "node_name": node,
    "node_labels": lambda flow, value: selects([f"k8s:{each}" for each in flow.node_labels], value),
    "encrypted": lambda flow, value: flow.IP.encrypted == value,
    "source_fqdn": lambda flow, value: value in flow.source_names,
    "destination_fqdn": lambda flow, value: value in flow.destination_names,
    "ip_trace_id": lambda flow, value: flow.ip_trace_id.trace_id == value,
}


def test_every_field_is_known() -> None:
    fields = {field.name for field in FILTER.DESCRIPTOR.fields}
    assert fields == {*VALUES, "uuid", "experimental"}
    assert TESTS.keys() == VALUES.keys()


def test_a_flow_is_found_by_its_identifier() -> None:
    log = logs.log()
    records = logs.flows(log, 5)
    flows = [RESPONSE.FromString(each).flow for each in Encoder(log, lambda: logs.SITE).responses(records)]
    wanted = FILTER(uuid=[flows[7].uuid, flows[9].uuid.upper()])
    assert Filters(log, logs.SITE, [wanted]).mask(records).nonzero()[0].tolist() == [7, 9]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"source_ip": ["10.0.0.0.0"]}, "from_ip"),
        ({"source_port": ["http"]}, "source_port"),
        ({"protocol": ["quic"]}, "protocol"),
        ({"uuid": ["x"]}, "uuid"),
        ({"verdict": [99]}, "verdict"),
        ({"http_status_code": ["9"]}, "http_status"),
        ({"http_path": ["("]}, "http_path"),
        ({"source_label": ["a=b=c"]}, "from_label"),
        ({"node_labels": ["="]}, "node_labels"),
        ({"node_name": ["a/b/c"]}, "node_name"),
        ({"source_pod": [""]}, "from_pod"),
        ({"source_ip": ["10.0.0.1"] * 1000}, "count"),
        ({"experimental": {"cel_expression": ["true"]}}, "experimental"),
    ],
)
def test_what_means_nothing_is_refused_by_name(wanted: dict[str, Any], field: str) -> None:
    with pytest.raises(FilterError, match=f"filter {field}"):
        Filters(logs.log(), logs.SITE, [FILTER(**wanted)])


def test_nobody_keeps_the_node_busy_with_filters() -> None:
    log = logs.log()
    records = logs.flows(log, 5)
    # By trying all ways to share the name among these, the heat death of the universe would come first.
    slow = FILTER(node_name=["*" * 60 + "_", "*a" * 60])
    assert not Filters(log, logs.SITE, [slow]).mask(records).any()
    with pytest.raises(FilterError, match="filter count: 1001"):
        Filters(log, logs.SITE, [FILTER()] * 1000, [FILTER()])
