"""Rules of several policies as one set, sets as numbers, and numbers at ports."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model.l7 import L7, HTTPRule, KafkaRule, L7Kind, NameMatch, SecretRef, TLSContext
from axoneme.model.policy import Direction
from axoneme.policy.listenerports import ListenerPorts, NoPort
from axoneme.policy.rulesets import NO_LISTENER, RuleSet, RuleSetNumbers, united

IN, OUT = Direction.INGRESS, Direction.EGRESS
GET, PUT = HTTPRule("GET"), HTTPRule("PUT")
INSIDE = TLSContext(SecretRef("a", "pair"))


def http(*rules: HTTPRule) -> L7:
    return L7(L7Kind.HTTP, http=rules)


def one(number: int, direction: Direction = IN, audit: bool = False) -> RuleSet:
    return RuleSet(direction, http(HTTPRule(f"M{number}")), audit)


@given(st.lists(st.sampled_from([GET, PUT, HTTPRule(), HTTPRule(path="/")]), min_size=1), st.randoms())
def test_what_rules_come_to_does_not_depend_on_the_order(rules: list[HTTPRule], rng: random.Random) -> None:
    whole = united([http(*rules)])
    rng.shuffle(rules)
    assert united([http(rule) for rule in rules]) == whole
    assert whole and set(whole.http) == set(rules)


def test_what_no_proxy_can_hold_to_is_no_set() -> None:
    kafka, tls = L7(L7Kind.KAFKA, kafka=(KafkaRule(),)), L7(L7Kind.TLS, server_names=("a",))
    assert united([http(GET), kafka]) is united([http(GET), tls]) is united([]) is None
    opened = L7(L7Kind.HTTP, http=(GET,), terminating=INSIDE)
    assert united([http(GET), opened]) is None and united([opened, opened]) == opened
    named = L7(L7Kind.HTTP, http=(PUT,), terminating=INSIDE, server_names=("a",))
    assert united([opened, named]) is None, "GET to the name alone would be more than is said"
    other = L7(L7Kind.TLS, server_names=("b",))
    assert united([other, tls]) == L7(L7Kind.TLS, server_names=("a", "b"))


def test_numbers_are_of_the_content_and_go_with_the_last_user() -> None:
    numbers, again = RuleSetNumbers(), RuleSetNumbers()
    first, second = numbers.acquire(one(1)), numbers.acquire(one(2))
    assert again.acquire(one(2)) == second and again.acquire(one(1)) == first
    assert len({first, second, numbers.acquire(one(1, OUT)), numbers.acquire(one(1, audit=True))}) == 4
    assert numbers.acquire(one(1)) == first and numbers.publish() == frozenset()
    numbers.release(first)
    assert numbers.held[first] == one(1) and numbers.publish() == frozenset()
    numbers.release(first)
    assert first not in numbers.held and numbers.publish() == {first}


def ports(*numbers: int, first: int = 10, last: int = 19) -> ListenerPorts:
    made = ListenerPorts(first, last)
    made.use({number: one(number) for number in numbers}, {})
    return made


def test_a_port_passes_to_the_rules_that_all_of_its_users_go_to() -> None:
    made = ports(1, 2)
    was = dict(made.ports)
    wanted = {2: one(2), 3: one(3)}
    made.use(wanted, {1: {3}})
    made.keep(wanted)
    assert made.ports == {3: was[1], 2: was[2]} and made.numbers == {was[1]: 3, was[2]: 2}


@pytest.mark.parametrize(
    ("wanted", "moves"),
    [
        ({3: one(3), 4: one(4)}, {1: {3, 4}}),  # some go here and some there
        ({3: one(3)}, {1: {3, NO_LISTENER}}),  # some may do what they want
        ({1: one(1), 3: one(3)}, {1: {3}}),  # not all have gone
        ({2: one(2)}, {1: {2}}),  # the others had a port before
        ({3: one(3, OUT)}, {1: {3}}),  # its sockets have another mark
        ({3: RuleSet(IN, L7(L7Kind.KAFKA, kafka=(KafkaRule(),)))}, {1: {3}}),  # another process listens
        ({3: one(3)}, {1: set()}),
    ],
)
def test_in_all_other_cases_new_rules_have_a_port_of_their_own(
    wanted: dict[int, RuleSet], moves: dict[int, set[int]]
) -> None:
    made = ports(1, 2)
    was = made.ports[1]
    made.use(wanted, moves)
    assert made.ports[1] == was and len(set(made.ports.values())) == len(made.ports)
    made.keep(wanted)
    assert made.ports.keys() == wanted.keys()


def test_of_two_ports_one_is_enough() -> None:
    made = ports(1, 2)
    first = min(made.ports.values())
    made.use({3: one(3)}, {1: {3}, 2: {3}})
    made.keep({3: one(3)})
    assert made.ports == {3: first}


def test_ports_are_remembered_and_run_out() -> None:
    made = ListenerPorts(10, 12, {7: 11, 8: 11, 9: 99})
    assert made.ports == {7: 11}, "one port has one number, and it is in the range"
    made.use({7: one(7), 1: one(1), 2: one(2)}, {})
    assert sorted(made.ports.values()) == [10, 11, 12] and made.ports[7] == 11
    before = dict(made.ports)
    with pytest.raises(NoPort, match=r"proxies\.ports: 3 listeners at most"):
        made.use({each: one(each) for each in (1, 2, 3, 7)}, {})
    assert made.ports == before
    made.use({3: one(3), 2: one(2), 7: one(7)}, {1: {3}})
    assert made.ports[3] == before[1], "an heir needs no port of its own"


def test_dns_names_are_sorted_too() -> None:
    names = [NameMatch("b"), NameMatch("a", True), NameMatch("a")]
    found = united([L7(L7Kind.DNS, dns=(name,)) for name in names])
    assert found and found.dns == tuple(sorted(names))
