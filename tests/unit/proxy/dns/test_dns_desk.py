"""What becomes of queries and answers."""

from __future__ import annotations

import dns.message
import dns.opcode
import dns.rcode
import pytest

from axoneme.model.l7 import NameMatch
from axoneme.proxy.config import Refusal
from axoneme.proxy.dns import desk, message
from unit.proxy.dns.exchange import CLIENT, SERVER, Exchange, answer, listener, query


def test_what_rules_have_is_asked_and_its_answer_let_out_under_its_own_id() -> None:
    exchange = Exchange()
    asked = query("A.Test")
    question = exchange.take(asked.to_wire())
    assert question is not None and exchange.replies.empty()
    exchange.desk.answered(question, b"\xab\xcd" + answer(asked.to_wire())[2:])
    assert asked.is_response(exchange.said())
    assert exchange.learning.heard == [("10.0.0.1", b"\1a\4test\0", {"192.0.2.1": 60})]
    request, response = exchange.events
    assert (request.type, request.verdict, request.source, request.source_port) == (
        "REQUEST",
        "FORWARDED",
        *CLIENT,
    )
    assert (request.destination, request.destination_port, request.direction) == (*SERVER, "egress")
    assert request.dns is not None and (request.dns.query, request.dns.qtypes) == ("a.test.", ("A",))
    assert (response.type, response.verdict) == ("RESPONSE", "FORWARDED") and response.latency_ns > 0
    assert response.dns is not None
    assert (response.dns.ips, response.dns.ttl, response.dns.rcode) == (("192.0.2.1",), 60, 0)
    assert response.dns.rrtypes == ("A",)


@pytest.mark.parametrize(
    ("refusal", "rcode"),
    [(Refusal.REFUSED, dns.rcode.REFUSED), (Refusal.NAME_ERROR, dns.rcode.NXDOMAIN)],
)
def test_other_names_are_refused_as_configured(refusal: Refusal, rcode: dns.rcode.Rcode) -> None:
    exchange = Exchange(refusal=refusal)
    asked = query("a.example")
    assert exchange.take(asked.to_wire()) is None
    said = exchange.said()
    assert asked.is_response(said) and said.rcode() == rcode and said.edns == 0
    (event,) = exchange.events
    assert (event.verdict, event.reason) == ("DROPPED", "no rule has the name")


@pytest.mark.parametrize(
    ("name", "rcode"),
    [
        ("www.test.shop.svc.cluster.local", dns.rcode.NXDOMAIN),  # then www.test
        ("www.test.example", dns.rcode.NXDOMAIN),
        ("web.ns2.shop.svc.cluster.local", dns.rcode.NXDOMAIN),  # then web.ns2.svc.cluster.local
        (
            "web.ns2.svc.shop.svc.cluster.local",
            dns.rcode.NXDOMAIN,
        ),  # then web.ns2.svc.svc..., then with cluster.local
        ("web.ns2.svc.svc.cluster.local", dns.rcode.NXDOMAIN),
        ("web.ns3.svc.cluster.local", dns.rcode.REFUSED),
        ("a.www.test", dns.rcode.REFUSED),
        ("x.y.web.ns2.svc.cluster.local", dns.rcode.REFUSED),
        ("test", dns.rcode.REFUSED),
    ],
)
def test_resolvers_are_led_on_to_what_they_may_ask_for(name: str, rcode: dns.rcode.Rcode) -> None:
    exchange = Exchange(NameMatch("www.test"), NameMatch("web.ns2.svc.cluster.local"))
    assert exchange.take(query(name).to_wire()) is None
    assert exchange.said().rcode() == rcode


def test_an_answer_is_let_out_when_it_is_known() -> None:
    exchange = Exchange()
    exchange.learning.held = []
    question = exchange.take(query().to_wire())
    assert question is not None
    exchange.desk.answered(question, answer(question.query.wire))
    assert exchange.replies.empty() and len(exchange.events) == 1
    exchange.learning.held[0]()
    assert exchange.said().answer and len(exchange.events) == 2


def test_what_is_only_tried_passes_and_is_said() -> None:
    exchange = Exchange(NameMatch("b.test"), audit=True)
    question = exchange.take(query().to_wire())
    assert question is not None
    exchange.desk.answered(question, answer(question.query.wire))
    assert [each.verdict for each in exchange.events] == ["AUDIT", "AUDIT"]


def test_zones_are_transferred_and_changed_only_where_every_name_is_allowed() -> None:
    transfer = query("a.test", "AXFR", edns=False)
    change = query()
    change.set_opcode(dns.opcode.UPDATE)
    bound = Exchange(NameMatch("**.test", pattern=True), audit=True)
    assert bound.take(transfer.to_wire()) is None
    assert bound.said().rcode() == dns.rcode.REFUSED
    assert bound.take(change.to_wire()) is None
    assert bound.said().rcode() == dns.rcode.NOTIMP
    free = Exchange(NameMatch("*", pattern=True))
    for each in (transfer, change):
        question = free.take(each.to_wire())
        assert question is not None
        yes = each.to_wire()[:2] + bytes((each.to_wire()[2] | 0x80, 0)) + bytes(8)
        assert message.belongs(yes, question.query)
        free.desk.answered(question, yes)
        assert free.replies.get_nowait() == yes
    assert not free.learning.heard


def test_rules_change_in_place() -> None:
    exchange = Exchange()
    assert exchange.take(query().to_wire()) is not None
    exchange.served.use(listener(NameMatch("b.test")))
    assert exchange.take(query().to_wire()) is None


def test_no_rule_at_all_refuses_all() -> None:
    exchange = Exchange()
    exchange.served.use(listener())
    assert exchange.take(query().to_wire()) is None


def test_a_dot_within_a_label_does_not_make_another_name() -> None:
    exchange = Exchange(NameMatch("a.test"), NameMatch("**.test", pattern=True))
    asked = dns.message.make_query(dns.name.Name([b"a.test", b""]), "A")
    assert exchange.take(asked.to_wire()) is None
    assert exchange.said().rcode() == dns.rcode.REFUSED


def test_an_answer_that_is_none_becomes_a_failure_of_the_server() -> None:
    exchange = Exchange()
    question = exchange.take(query().to_wire())
    assert question is not None
    exchange.desk.answered(question, answer(question.query.wire)[:-20])
    assert exchange.said().rcode() == dns.rcode.SERVFAIL
    assert exchange.events[-1].verdict == "ERROR" and not exchange.learning.heard


def test_other_operations_are_not_implemented() -> None:
    exchange = Exchange()
    made = query()
    made.set_opcode(dns.opcode.NOTIFY)
    assert exchange.take(made.to_wire()) is None
    assert exchange.said().rcode() == dns.rcode.NOTIMP
    assert exchange.events[0].reason


def test_answers_sent_as_queries_are_not_answered() -> None:
    """Two proxies would go on for ever."""
    exchange = Exchange()
    assert exchange.take(answer(query().to_wire())) is None
    assert exchange.replies.empty()


def test_a_name_of_many_labels_costs_no_more_than_others() -> None:
    """It is nobody's short name with a domain behind it."""
    assert not list(desk._searched_for(".".join(["svc"] * 63)))
    assert len(list(desk._searched_for(".".join(["svc"] * 20)))) < 25
