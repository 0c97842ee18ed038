"""Events one by one lead to the table of everything at once, and the way there is safe."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model.policy import Direction, Network
from axoneme.policy.lookup import evaluate
from axoneme.policy.rulenumbers import Refs
from axoneme.policy.table import EVERY_PEER, Key, TableDiff, Value, difference
from oracle.events import Course
from oracle.scenarios import (
    ADDRESSES,
    API_SERVER,
    NAMESPACES,
    UNNAMED_PROTOCOL,
    give_prefixes,
    identity_of,
    number_of,
    some_group,
    some_key,
    some_policies,
    some_scenario,
    some_service,
)

Table = dict[Key, Value]
Packet = tuple[int, Direction, int, int, int]


def apply(table: Table, diff: TableDiff) -> None:
    for key, value in diff.writes():
        if value is None:
            del table[key]
        else:
            table[key] = value


def course_of(rng: random.Random, rule_bits: int = 32) -> Course:
    return Course(some_scenario(rng, most_policies=4, above=rng.random() < 0.5), rule_bits)


@pytest.mark.parametrize("seed", range(100))
def test_events_one_by_one_lead_to_the_table_of_all_at_once(seed: int) -> None:
    rng = random.Random(seed)
    assert_same_as_from_scratch(rng, rule_bits=32 if seed % 3 else 9)


@given(st.randoms(use_true_random=False), st.sampled_from((32, 9)))
@settings(max_examples=60, deadline=None)
def test_a_short_course_leads_to_the_table_of_all_at_once(rng: random.Random, rule_bits: int) -> None:
    assert_same_as_from_scratch(rng, rule_bits)


def assert_same_as_from_scratch(rng: random.Random, rule_bits: int) -> None:
    """With few bits for rule numbers, sets of rules meet in one number again and again."""
    course = course_of(rng, rule_bits)
    table: Table = {}
    meanings: dict[int, Refs] = {}

    def take(diff: TableDiff) -> None:
        apply(table, diff)
        meanings.update(diff.rules)
        for number in diff.released:
            del meanings[number]
        assert table == dict(course.engine.table)
        assert len(course.engine.table) == len(table)

    for _ in range(rng.randint(1, 25)):
        course.step(rng)
        if rng.random() < 0.6:
            take(course.engine.changes())
    take(course.engine.changes())

    scratch = course.scenario.engine(rng, rule_bits)
    whole = scratch.changes()
    assert table == dict(scratch.table)
    assert meanings == whole.rules
    assert {value.rule for value in table.values()} - {0} == set(meanings)
    assert not course.engine.changes()


@pytest.mark.parametrize("seed", range(60))
def test_what_is_tried_gives_its_table_and_leaves_none_of_it(seed: int) -> None:
    rng = random.Random(seed)
    rule_bits = 32 if seed % 3 else 9
    course = course_of(rng, rule_bits)
    engine = course.engine
    for _ in range(10):
        course.step(rng)
        engine.changes()
        before = dict(engine.table)
        rules = {value.rule: engine.rules(value.rule) for value in before.values()}
        had = engine.needed_prefixes()

        keys = [some_key(rng, rng.randrange(8)) for _ in range(rng.randint(0, 3))]
        policies = {key: some_policies(rng, key) if rng.random() < 0.8 else () for key in keys}
        group, service = some_group(rng, "partners"), some_service(rng, NAMESPACES[0], "one")
        with engine.tried(policies, [group, service]):
            added = give_prefixes(engine, had, take=False) - had - {API_SERVER}
            engine.changes()
            then = replace(
                course.scenario,
                policies={key: each for key, each in (course.scenario.policies | policies).items() if each},
                groups=course.scenario.groups | {group.name: group},
                services=course.scenario.services | {(service.namespace, service.name): service},
            ).engine(rng, rule_bits)
            for network in had - then.needed_prefixes() - {API_SERVER}:
                then.upsert_cidr_identity(number_of(network), network)
            then.changes()
            assert dict(engine.table) == dict(then.table)
            for network in added:
                engine.remove_identity(number_of(network))
        assert dict(engine.table) == before
        assert {number: engine.rules(number) for number in rules} == rules
        assert engine.needed_prefixes() == had
        assert not engine.changes()


def packets(*tables: Mapping[Key, Value]) -> Iterator[Packet]:
    """One packet at least for every verdict that some table can give."""
    cells = {(key.subject, key.direction) for table in tables for key in table}
    for subject, direction in cells:
        keys = {k for table in tables for k in table if (k.subject, k.direction) == (subject, direction)}
        points = {(key.protocol, key.port) for key in keys if key.protocol}
        points |= {
            (key.protocol, min(65535, key.port + (1 << 96 - key.prefix_length)))
            for key in keys
            if key.protocol
        }
        points.add((UNNAMED_PROTOCOL, 0))
        for peer in {key.peer for key in keys} | {999_999}:
            for protocol, port in points:
                yield subject, Direction(direction), peer, protocol, port


@pytest.mark.parametrize("seed", range(30))
def test_at_every_write_each_packet_gets_the_old_or_the_new_verdict(seed: int) -> None:
    rng = random.Random(seed)
    course = course_of(rng)
    table: Table = {}
    apply(table, course.engine.changes())
    for _ in range(8):
        old = dict(table)
        for _ in range(rng.randint(1, 3)):
            course.step(rng)
        diff = course.engine.changes()
        new = dict(course.engine.table)
        assert_safe(rng, table, diff, old, new)
        assert table == new
        # The same for an agent that finds the old table and knows nothing of how it came about.
        found = dict(old)
        assert_safe(rng, found, difference(old, new.items()), old, new)
        assert found == new


def assert_safe(rng: random.Random, table: Table, diff: TableDiff, old: Table, new: Table) -> None:
    """Writes ``diff`` to ``table`` and looks at packets that could notice, after each write."""
    touched = {(key.subject, key.direction): key for key, _ in diff.writes()}
    concerned = [packet for packet in packets(old, new) if packet[:2] in touched]
    if len(concerned) > 150:
        concerned = rng.sample(concerned, 150)
    verdicts = {p: {said(old, p), said(new, p)} for p in concerned}
    for key, value in diff.writes():
        if value is None:
            del table[key]
        else:
            table[key] = value
        for packet, possible in verdicts.items():
            if packet[:2] == (key.subject, key.direction) and (key.peer in (EVERY_PEER, packet[2])):
                assert said(table, packet) in possible, (packet, key, value)


def said(table: Table, packet: Packet) -> tuple[bool, int]:
    """Whether it passes, and who looks at it."""
    found = evaluate(table, *packet)
    return found.allowed, found.listener


@pytest.mark.parametrize("seed", range(80))
def test_who_may_be_decided_differently_is_among_the_changed(seed: int) -> None:
    rng = random.Random(seed)
    course = course_of(rng)
    course.engine.changes()
    for _ in range(10):
        engine = course.engine
        old, rules_before = (
            dict(engine.table),
            {v.rule: engine.rules(v.rule) for v in dict(engine.table).values()},
        )
        subjects = set(course.scenario.subjects)
        peers = [number for number, _ in course.scenario.peers(engine)]
        known = {number for number in peers if engine.identity(number)}
        for _ in range(rng.randint(1, 2)):
            course.step(rng)
        changed = engine.changes().changed
        new = dict(engine.table)
        for packet in packets(old, new):
            subject, _, peer, _, _ = packet
            before, after = evaluate(old, *packet), evaluate(new, *packet)
            was = before.outcome, {rules_before[rule] for rule in before.rules}
            now = after.outcome, {engine.rules(rule) for rule in after.rules}
            if subject not in subjects or was == now:
                continue
            if peer in known or peer == 999_999:
                assert subject in changed, (packet, was, now)
            elif before.allowed and not after.allowed:
                # Decided while the peer was not known yet.
                assert subject in changed, (packet, was, now)
        assert changed <= {key.subject for key, _ in difference(old, new.items()).writes()}


@pytest.mark.parametrize("seed", range(40))
def test_prefixes_are_split_off_and_joined_again_without_a_packet_noticing(seed: int) -> None:
    """The whole procedure of the agent, address by address and entry by entry, for one policy event."""
    rng = random.Random(seed)
    course = course_of(rng)
    engine, options = course.engine, course.scenario.options
    table: Table = {}
    apply(table, engine.changes())
    given = engine.needed_prefixes()
    outside = [a for a in ADDRESSES if (options.ipv4 if a.version == 4 else options.ipv6)]
    identities = {address: identity_of(given, options, address) for address in outside}
    points = [(6, 80), (6, 443), (17, 53), (1, 8), (UNNAMED_PROTOCOL, 0)]
    watched = [
        (subject, direction, address, *point)
        for subject in course.scenario.subjects
        for direction in Direction
        for address in outside
        for point in points
    ]
    watched = rng.sample(watched, min(50, len(watched)))

    def verdicts() -> list[bool]:
        return [evaluate(table, s, d, identities[a], *point).allowed for s, d, a, *point in watched]

    for _ in range(6):
        old = verdicts()
        seen: list[list[bool]] = []

        def write(diff: TableDiff, seen: list[list[bool]]) -> None:
            for key, value in diff.writes():
                if value is None:
                    del table[key]
                else:
                    table[key] = value
                seen.append(verdicts())

        def move(prefixes: frozenset[Network], seen: list[list[bool]]) -> None:
            for address in rng.sample(outside, len(outside)):
                identities[address] = identity_of(prefixes, options, address)
                seen.append(verdicts())

        rng.choice((course.policy, course.policy, course.group, course.service))(rng)
        needed = engine.needed_prefixes()
        give_prefixes(engine, given, take=False)
        write(engine.prepare(), seen)
        move(given | needed, seen)
        write(engine.changes(), seen)
        move(needed, seen)
        give_prefixes(engine, given)
        write(engine.changes(), seen)
        given = needed
        new = verdicts()
        for moment in seen:
            for packet, was, now, will in zip(watched, old, moment, new, strict=True):
                assert now in (was, will), packet
    scratch = course.scenario.engine(rng)
    scratch.changes()
    assert table == dict(scratch.table)
