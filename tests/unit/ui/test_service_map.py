"""From flows to cards and edges: what is counted, by whom it is told, and how much is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.flows.flow import Endpoint, Flow
from axoneme.ui import servicemap
from axoneme.ui.mapview import MapView
from axoneme.ui.servicemap import RATE_OVER, Edge, ServiceMap, Tally

from .flows import SHOP, WORLD, answer, drop, flow, pod

WEB, DB, CLIENT = pod("web"), pod("db", "node2"), pod("client")


def mapped(*flows: Flow, at: float = 1000.0) -> ServiceMap:
    found = ServiceMap(["node1", "node2"])
    for each in flows:
        found.add(each, at)
    return found


def counts(edge: Edge) -> dict[str, int]:
    return {name: tally.count for name, tally in edge.verdicts.items()}


def only(found: ServiceMap) -> Edge:
    (edge,) = found.edges.values()
    return edge


def test_a_connection_between_two_nodes_is_counted_once() -> None:
    edge = only(mapped(flow(WEB, DB, node="node1"), flow(WEB, DB, node="node2")))
    assert counts(edge) == {"FORWARDED": 1}
    assert (edge.source.id, edge.destination.id) == ("shop/Deployment/web", "shop/Deployment/db")


def test_what_the_other_end_refuses_has_not_passed() -> None:
    """The source's node let it out; that is not what became of it."""
    edge = only(mapped(flow(WEB, DB, node="node1"), drop(WEB, DB, node="node2")))
    assert counts(edge) == {"DROPPED": 1}
    assert edge.reasons == {"POLICY_DENIED": 1}
    assert [each.name for each in edge.denied_by] == ["closed"]


def test_the_source_tells_where_the_destinations_node_is_not_heard() -> None:
    far = pod("db", "node9")
    assert counts(only(mapped(flow(WEB, far, node="node1")))) == {"FORWARDED": 1}
    assert counts(only(mapped(flow(WEB, WORLD, node="node1")))) == {"FORWARDED": 1}


def test_the_service_is_known_where_it_was_translated() -> None:
    first = mapped(flow(WEB, DB, node="node1", destination_service=SHOP), flow(WEB, DB, node="node2"))
    last = mapped(flow(WEB, DB, node="node2"), flow(WEB, DB, node="node1", destination_service=SHOP))
    assert only(first).service == only(last).service == "shop/web"


def test_the_end_of_a_connection_counts_bytes_and_one_that_was_there_before() -> None:
    end = flow(CLIENT, WEB, event="end", bytes=10, reply_bytes=20)
    edge = only(mapped(end, end))
    assert (edge.bytes, edge.reply_bytes, counts(edge)) == (20, 40, {"FORWARDED": 1})
    assert counts(only(mapped(flow(CLIENT, WEB), end))) == {"FORWARDED": 1}


def test_replies_are_no_edges() -> None:
    assert not mapped(flow(WEB, CLIENT, is_reply=True)).edges


def test_a_service_without_backend_is_a_card_of_its_own() -> None:
    refused = drop(CLIENT, WORLD, drop_reason_desc="SERVICE_BACKEND_NOT_FOUND", destination_service=SHOP)
    assert only(mapped(refused)).destination.id == "service:shop/web"


def test_requests_are_counted_by_the_end_that_tells_most() -> None:
    """Proxies at both ends may look at the same request."""
    both = [
        answer(CLIENT, WEB, "http://web/a?x=1", traffic_direction=end, code=code)
        for end in ("INGRESS", "EGRESS")
        for code in (200, 503)
    ]
    found = mapped(*both)
    port = found.cards["shop/Deployment/web"].shown(1000.0, None).ports[0]
    (call,) = port.calls
    assert (port.port, call.what, call.count, call.failed, call.dropped) == (80, "GET /a", 2, 1, 0)
    assert call.latency == pytest.approx(0.002)
    assert only(found).kinds == {"http"}


def test_a_refused_request_marks_its_edge() -> None:
    asked = answer(CLIENT, WEB, "http://web/admin")
    from msgspec.structs import replace

    assert asked.l7
    refused = replace(
        flow(CLIENT, WEB), verdict="DROPPED", event="request", l7=replace(asked.l7, type="REQUEST")
    )
    found = mapped(refused)
    assert counts(only(found)) == {"DROPPED": 1}
    assert only(found).reasons == {"REQUEST_DENIED": 1}
    (call,) = found.cards["shop/Deployment/web"].shown(1000.0, None).ports[0].calls
    assert (call.what, call.count, call.dropped) == ("GET /admin", 1, 1)


def test_paths_beyond_what_is_kept_push_the_oldest_out() -> None:
    found = mapped(*(answer(CLIENT, WEB, f"http://web/{number}") for number in range(300)))
    (port,) = found.cards["shop/Deployment/web"].shown(1000.0, None).ports
    assert len(port.calls) == 25
    assert port.calls_not_shown == 175


def test_edges_beyond_what_is_kept_push_the_oldest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicemap, "_MOST_EDGES", 3)
    found = mapped(*(flow(pod(f"w{number}"), WEB) for number in range(5)))
    assert [edge.source.name for edge in found.edges.values()] == ["w2", "w3", "w4"]
    assert set(found.cards) == {f"shop/Deployment/{name}" for name in ("w2", "w3", "w4", "web")}


@pytest.mark.parametrize(
    ("end", "card"),
    [
        (Endpoint(labels=("cidr:1.2.3.0/24=", "reserved:world-ipv4")), "reserved:world"),
        (Endpoint(labels=("reserved:host",)), "reserved:host"),
        (Endpoint(namespace="shop", pod_name="alone"), "shop/Pod/alone"),
        (Endpoint(), "other:unknown"),
    ],
)
def test_everybody_has_a_card(end: Endpoint, card: str) -> None:
    assert servicemap.whose(end)[0] == card


def test_a_rate_is_that_of_the_last_seconds() -> None:
    tally = Tally()
    for step in range(1000):
        tally.add("", step / 10)  # ten a second
    assert tally.rate(100.0) == pytest.approx(10, rel=0.05)
    assert tally.rate(100.0 + RATE_OVER) == pytest.approx(10 / 2.718, rel=0.05)
    assert tally.rate(300.0) == 0


# ---- one viewer ------------------------------------------------------------------------------------


def test_a_view_shows_edges_that_touch_its_namespaces() -> None:
    other = pod("other", namespace="bank")
    found = mapped(flow(CLIENT, WEB), flow(other, WEB), flow(other, pod("else", namespace="bank")))
    view = MapView(found, ["shop"], 300).state(1000.0, [], 0)
    assert {edge.source for edge in view.edges} == {"shop/Deployment/client", "bank/Deployment/other"}
    assert {card.id for card in view.cards} == {
        "shop/Deployment/client",
        "shop/Deployment/web",
        "bank/Deployment/other",
    }


def test_more_than_a_view_takes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axoneme.ui.mapview._MOST_EDGES", 2)
    found = mapped(*(flow(pod(f"w{number}"), WEB) for number in range(5)))
    state = MapView(found, [], 300).state(1000.0, [], 0)
    assert len(state.edges) == 2
    assert (state.not_shown.edges, state.not_shown.cards) == (3, 3)


_NAMES = st.sampled_from(["web", "db", "client", "cache"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("flow"), _NAMES, _NAMES, st.sampled_from([80, 443]), st.booleans()),
        st.tuples(st.just("wait"), st.integers(1, 400)),
        st.tuples(st.just("look")),
    ),
    max_size=60,
)


@given(_STEPS)
def test_what_a_viewer_puts_together_is_what_is_there(steps: list[tuple[object, ...]]) -> None:
    """However flows, time and looks follow each other."""
    found, now = ServiceMap(["node1"]), 1000.0
    view = MapView(found, [], 300)
    state = view.state(now, [], 0)
    cards, edges = {c.id: c for c in state.cards}, {e.id: e for e in state.edges}
    for step in [*steps, ("look",)]:
        if step[0] == "flow":
            _, source, destination, port, dropped = step
            make = drop if dropped else flow
            found.add(make(pod(str(source)), pod(str(destination)), int(str(port))), now)
        elif step[0] == "wait":
            now += float(str(step[1]))
            found.cool(now)
            found.forget(now - 600)
        else:
            delta = view.delta(now, [], 0)
            cards |= {c.id: c for c in delta.cards}
            edges |= {e.id: e for e in delta.edges}
            for key in delta.gone_cards:
                del cards[key]
            for key in delta.gone_edges:
                del edges[key]
            # What has cooled is told at the next look after it.
            whole = MapView(found, [], 300).state(now, [], 0)
            assert cards == {c.id: c for c in whole.cards}
            assert {k: _still(e) for k, e in edges.items()} == {e.id: _still(e) for e in whole.edges}


def _still(edge: object) -> object:
    """Without rates: between two coolings they are some seconds old."""
    import msgspec

    plain = msgspec.to_builtins(edge)
    for count in plain["verdicts"].values():
        del count["rate"]
    return plain
