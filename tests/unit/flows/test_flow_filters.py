"""The compiled filters against an evaluator that looks at one flow at a time."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axoneme.flows.filters import Matcher
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.identity.prefixes import address_bytes, address_text
from axoneme.model.labels import Labels
from axoneme.model.selectortext import parse_selector

from .records import (
    DEFAULT_DENY,
    DENY,
    DROP,
    END,
    INGRESS,
    NEW,
    REPLY,
    VOCABULARY,
    event,
    records,
    some_names,
)

PODS = {
    "10.0.0.1": End(("k8s:app=web", "k8s:tier=front"), "shop", "web-1", "Deployment", "web", "n1"),
    "10.0.0.2": End(("k8s:app=web",), "shop", "web-2", "Deployment", "web", "n2"),
    "10.0.1.3": End(("k8s:app=db",), "data", "db-0", "StatefulSet", "db", "n1"),
    "fd00::4": End(("k8s:app=web", "k8s:env=test"), "data", "web-1", "Job", "web", "n2"),
}
SERVICES = {5: "shop/web", 6: "shop/web", 7: "data/web-internal", 8: "edge"}
ADDRESSES = [*PODS, "192.0.2.7", "2001:db8::9"]
IDENTITIES = [0, 1, 2, 300, 301, 302]
PROTOCOL_NUMBERS = {"tcp": {6}, "udp": {17}, "sctp": {132}, "icmp": {1, 58}, "icmpv4": {1}, "icmpv6": {58}}


def names() -> Names:
    made = some_names()
    for address, end in PODS.items():
        made.put(address, [address_bytes(address)], end)
    made.put_identity(302, ["k8s:app=cache"])
    return made


FLOWS = st.builds(
    dict[str, Any],
    source=st.sampled_from(ADDRESSES),
    destination=st.sampled_from(ADDRESSES),
    source_port=st.sampled_from([80, 443, 40000]),
    destination_port=st.sampled_from([80, 443, 53]),
    source_identity=st.sampled_from(IDENTITIES),
    destination_identity=st.sampled_from(IDENTITIES),
    protocol=st.sampled_from([1, 6, 17, 58, 132, 47]),
    kind=st.sampled_from([NEW, END, DROP]),
    reason=st.sampled_from([DEFAULT_DENY, DENY]),
    flags=st.sampled_from([0, INGRESS, REPLY]),
    service=st.sampled_from([0, 0, *SERVICES, 99]),
    time=st.integers(1, 20),
)


def some(*values: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    """Mostly absent, else one or two of the values."""
    several = st.lists(st.sampled_from(values), min_size=1, max_size=2).map(tuple)
    return st.one_of(st.just(()), st.just(()), several)


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "verdict": some("forwarded", "DROPPED"),
    "protocol": some("tcp", "ICMP", "icmpv6", 17, "47"),
    "node": some("n1", "other"),
    "reason": some("POLICY_DENIED", "policy-deny", 181),
    "direction": some("ingress", "EGRESS"),
    "event": some("new", "end", "drop"),
    "since": st.one_of(st.none(), st.integers(1, 20)),
    "until": st.one_of(st.none(), st.integers(1, 20)),
}
for side in ("", "from_", "to_"):
    FIELDS[side + "pod"] = some("web", "shop/web-1", "data/", "/db", "nobody")
    FIELDS[side + "service"] = some("web", "shop/web", "data/", "edge", "shop/db")
    FIELDS[side + "namespace"] = some("shop", "data", "elsewhere")
    FIELDS[side + "workload"] = some("web", "job/web", "StatefulSet/db")
    FIELDS[side + "label"] = some(
        "app=web", "k8s:app in (db, cache),!env", "reserved:world", "tier", "app!=web"
    )
    FIELDS[side + "identity"] = some(300, "world", "301", "host")
    FIELDS[side + "ip"] = some("10.0.0.1", "10.0.0.0/24", "fd00::/16", "192.0.2.0/24", "::/0", "0.0.0.0/0")
    FIELDS[side + "port"] = some(80, 53)
FILTERS = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: FlowFilter(**fields))


def naive(flow: dict[str, Any], wanted: FlowFilter, known: Names) -> bool:
    """What a filter means, one flow and one field at a time."""
    end_by_identity = {1: End(("reserved:host",)), 2: End(("reserved:world",)), 302: End(("k8s:app=cache",))}
    sides = {
        side: (PODS.get(flow[side]) or end_by_identity.get(flow[f"{side}_identity"], End()), flow[side])
        for side in ("source", "destination")
    }
    kind = {NEW: "new", END: "end", DROP: "drop"}[flow["kind"]]
    verdict = "dropped" if kind == "drop" else "forwarded"
    checks = [
        any(value.lower() == verdict for value in wanted.verdict) if wanted.verdict else True,
        kind in wanted.event if wanted.event else True,
        any(
            value.lower() == ("ingress" if flow["flags"] & INGRESS else "egress")
            for value in wanted.direction
        )
        if wanted.direction
        else True,
        kind == "drop"
        and flow["reason"]
        in {{"POLICY_DENIED": 133, "policy-deny": 181}.get(str(v), v) for v in wanted.reason}
        if wanted.reason
        else True,
        any(
            flow["protocol"] in PROTOCOL_NUMBERS.get(str(v).lower(), {v, int(v) if str(v).isdecimal() else v})
            for v in wanted.protocol
        )
        if wanted.protocol
        else True,
        "n1" in wanted.node if wanted.node else True,
        wanted.since is None or flow["time"] >= wanted.since,
        wanted.until is None or flow["time"] <= wanted.until,
    ]
    for prefix, which in (("", ("source", "destination")), ("from_", ("source",)), ("to_", ("destination",))):
        for field in ("pod", "service", "namespace", "workload", "label", "identity", "ip", "port"):
            values = getattr(wanted, prefix + field)
            if values:
                checks.append(
                    any(
                        one_side(field, value, *sides[side], flow, side) for side in which for value in values
                    )
                )
    return all(checks)


def one_side(field: str, value: Any, end: End, address: str, flow: dict[str, Any], side: str) -> bool:
    match field:
        case "pod":
            namespace, _, name = value.rpartition("/")
            return end.pod != "" and namespace in ("", end.namespace) and end.pod.startswith(name)
        case "service":
            answers = "source" if flow["flags"] & REPLY else "destination"
            namespace, _, name = value.rpartition("/")
            found = SERVICES.get(flow["service"], "")
            where, _, called = found.rpartition("/")
            return side == answers and found != "" and namespace in ("", where) and called.startswith(name)
        case "namespace":
            return bool(end.namespace == value)
        case "workload":
            kind, _, name = value.rpartition("/")
            return bool(end.workload == name) and kind.lower() in ("", end.workload_kind.lower())
        case "label":
            return parse_selector(value).matches(Labels.parse(end.labels))
        case "identity":
            return bool(flow[f"{side}_identity"] == {"world": 2, "host": 1, "301": 301}.get(value, value))
        case "ip":
            return ipaddress.ip_address(address) in ipaddress.ip_network(value)
        case _:
            return bool(flow[f"{side}_port"] == value)


def matcher(filters: list[FlowFilter], not_filters: list[FlowFilter], known: Names) -> Matcher:
    services = ServiceNames()
    for number, name in SERVICES.items():
        services.put(number, ServicePort(name, "http"))
    return Matcher(
        filters,
        not_filters,
        names=known,
        services=services,
        requests=Requests(),
        node="n1",
        vocabulary=VOCABULARY,
    )


@settings(max_examples=400, deadline=None)
@given(
    st.lists(FLOWS, min_size=1, max_size=30),
    st.lists(FILTERS, max_size=3),
    st.lists(FILTERS, max_size=2),
)
@example(
    [
        {
            "source": "10.0.0.1",
            "destination": "192.0.2.7",
            "source_port": 1,
            "destination_port": 2,
            "source_identity": 300,
            "destination_identity": 2,
            "protocol": 6,
            "kind": NEW,
            "reason": 0,
            "flags": 0,
            "time": 5,
        }
    ],
    [],
    [],
)
def test_filters_mean_what_they_say(
    flows: list[dict[str, Any]], filters: list[FlowFilter], not_filters: list[FlowFilter]
) -> None:
    flows = sorted(flows, key=lambda flow: flow["time"])
    known = names()
    found = records(*(event(**flow) for flow in flows), names=known)
    wanted = [
        (not filters or any(naive(flow, each, known) for each in filters))
        and not any(naive(flow, each, known) for each in not_filters)
        for flow in flows
    ]
    assert matcher(filters, not_filters, known).mask(found).tolist() == wanted


def test_pods_that_appear_later_are_seen_by_a_filter_at_work() -> None:
    known = names()
    wanted = matcher([FlowFilter(pod=("late",))], [], known)
    assert not wanted.mask(records(event(), names=known)).any()
    for number in range(100):
        known.put(f"late-{number}", [address_bytes("10.7.7.7")], End(namespace="x", pod=f"late-{number}"))
        assert wanted.mask(records(event(source="10.7.7.7"), names=known)).all()


def test_a_row_with_a_new_meaning_is_looked_at_again() -> None:
    known = some_names()
    known.put("one", [address_bytes("10.0.0.1")], End(pod="one", namespace="x"))
    wanted = matcher([FlowFilter(pod=("one",))], [], known)
    first = records(event(), names=known)
    assert wanted.mask(first).all()
    known.forget("one")
    known.collect([])
    known.put("two", [address_bytes("10.0.0.1")], End(pod="two", namespace="x"))
    second = records(event(), names=known)
    assert second["source_row"][0] == first["source_row"][0]
    assert not wanted.mask(second).any()


def test_many_values_of_one_field() -> None:
    found = records(*(event(destination_port=port) for port in range(40)))
    mask = matcher([FlowFilter(port=tuple(range(20)))], [], some_names()).mask(found)
    assert np.flatnonzero(mask).tolist() == list(range(20))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (FlowFilter(verdict=("lost",)), "filter verdict: 'lost' is not one of AUDIT, DROPPED"),
        (FlowFilter(direction=("up",)), "filter direction: 'up' is not one of EGRESS, INGRESS, TRAFFIC"),
        (FlowFilter(from_ip=("10.0.0",)), "filter from_ip: '10.0.0' is not an IP address or prefix"),
        (FlowFilter(port=(70000,)), "filter port: 70000 is not a port number"),
        (FlowFilter(protocol=("smtp",)), "filter protocol: 'smtp' is not a number or one of icmp"),
        (
            FlowFilter(identity=("nobody",)),
            "filter identity: 'nobody' is not one of host, remote-node, world",
        ),
        (FlowFilter(reason=("bad",)), "filter reason: 'bad' is not one of .*policy-denied"),
        (FlowFilter(pod=("a/b/c",)), "filter pod: 'a/b/c' is not a pod"),
        (FlowFilter(to_label=("a=b c",)), "filter to_label: .* expected ',' before 'c'"),
    ],
)
def test_a_value_without_meaning_is_refused_by_field_and_name(wanted: FlowFilter, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        matcher([wanted], [], some_names())


def test_a_filter_goes_over_the_wire_as_short_json() -> None:
    wanted = FlowFilter(verdict=("dropped",), identity=(2, "host"), since=5)
    text = msgspec.json.encode(wanted)
    assert text == b'{"verdict":["dropped"],"identity":[2,"host"],"since":5}'
    assert msgspec.json.decode(text, type=FlowFilter) == wanted
    with pytest.raises(msgspec.ValidationError, match="verdicts"):
        msgspec.json.decode(b'{"verdicts":[]}', type=FlowFilter)


def test_address_texts_are_those_of_the_oracle() -> None:
    assert [address_text(address_bytes(text)) for text in ADDRESSES] == ADDRESSES


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("app=web,tier!=db", ["k8s:app=web"], ["k8s:app=web", "k8s:tier=db"]),
        ("app == web", ["k8s:app=web"], ["k8s:app=webs"]),
        ("app in (a, b)", ["k8s:app=b"], ["k8s:app=c"]),
        ("app notin (a,b)", ["k8s:app=c"], ["k8s:app=a"]),
        ("app", ["k8s:app=x"], ["k8s:tier=x"]),
        ("! app", ["k8s:tier=x"], ["k8s:app=x"]),
        ("k8s:app=web", ["k8s:app=web"], ["other:app=web"]),
        ("reserved:host", ["reserved:host"], ["k8s:host"]),
        ("app=", ["k8s:app"], ["k8s:app=x"]),
    ],
)
def test_selectors(text: str, yes: list[str], no: list[str]) -> None:
    selector = parse_selector(text)
    assert selector.matches(Labels.parse(yes))
    assert not selector.matches(Labels.parse(no))


@pytest.mark.parametrize("text", ["", ",", "a,,b", "a in b", "a=b=c", "(a)", "a in (b"])
def test_selectors_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"no label key|expected ','"):
        parse_selector(text)
