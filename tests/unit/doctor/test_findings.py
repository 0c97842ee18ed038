"""Causes hide what follows from them."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from axoneme.doctor.findings import Check, Diagnosis, Finding, Severity, diagnose

#: Facts of these tests: by check, the peers of its findings, with their severity.
Wrong = dict[str, dict[str, Severity]]


def check(name: str, *causes: str) -> Check[Wrong]:
    def look(wrong: Wrong) -> Iterable[Finding]:
        return [
            Finding(severity=severity, hop=name, what=f"broken to {peer or 'all'}", remedy="", peer=peer)
            for peer, severity in wrong.get(name, {}).items()
        ]

    return Check(name, look, causes)


CHECKS = (
    check("cable"),
    check("filter"),
    check("agent", "cable"),
    check("underlay", "cable", "agent"),
    check("pods", "cable", "agent", "underlay", "filter"),
)
ERROR, WARNING, SUSPECT = Severity.ERROR, Severity.WARNING, Severity.SUSPECT


def roots(diagnosis: Diagnosis) -> set[tuple[str, str, str]]:
    return {(each.node, each.check, each.finding.peer) for each in diagnosis.findings}


def test_a_cause_on_the_same_node_hides_what_follows_from_it() -> None:
    found = diagnose(CHECKS, {"a": {"agent": {"": ERROR}, "underlay": {"b": ERROR}, "pods": {"b": ERROR}}})
    assert roots(found) == {("a", "agent", "")}
    assert found.findings[0].consequences == ("a: underlay: broken to b", "a: pods: broken to b")
    assert found.silent == ("cable", "filter")
    assert not found.healthy


def test_a_cause_that_concerns_one_peer_hides_nothing_of_another() -> None:
    found = diagnose(CHECKS, {"a": {"underlay": {"b": ERROR}, "pods": {"b": ERROR, "c": ERROR}}})
    assert roots(found) == {("a", "underlay", "b"), ("a", "pods", "c")}


def test_a_cause_on_the_other_node_hides_it_as_well_but_not_for_third_ones() -> None:
    found = diagnose(CHECKS, {"a": {"pods": {"b": ERROR, "c": ERROR}}, "b": {"cable": {"": ERROR}}, "c": {}})
    assert roots(found) == {("b", "cable", ""), ("a", "pods", "c")}


def test_the_same_seen_from_both_sides_is_one() -> None:
    found = diagnose(CHECKS, {"a": {"pods": {"b": ERROR}}, "b": {"pods": {"a": ERROR}}})
    assert roots(found) == {("a", "pods", "b")}
    assert found.findings[0].consequences == ("b: pods: broken to a",)


def test_causes_of_causes() -> None:
    found = diagnose(CHECKS, {"a": {"cable": {"": ERROR}, "agent": {"": ERROR}, "pods": {"b": ERROR}}})
    assert roots(found) == {("a", "cable", "")}
    assert len(found.findings[0].consequences) == 2


def test_a_suspect_is_told_only_when_it_explains_something_and_is_then_as_bad_as_that() -> None:
    assert diagnose(CHECKS, {"a": {"filter": {"": SUSPECT}}}).healthy
    found = diagnose(CHECKS, {"a": {"filter": {"": SUSPECT}, "pods": {"b": ERROR}}})
    assert roots(found) == {("a", "filter", "")}
    assert found.findings[0].finding.severity is ERROR


def test_errors_come_before_warnings_and_the_same_at_several_nodes_is_told_once() -> None:
    found = diagnose(CHECKS, {"a": {"cable": {"": WARNING}}, "b": {"agent": {"": ERROR}, "cable": {}},
                              "c": {"cable": {"": WARNING}}})  # fmt: skip
    assert [(each.node, each.finding.severity) for each in found.findings] == [
        ("b", ERROR),
        ("a, c", WARNING),
    ]


def test_a_warning_explains_nothing_unless_it_is_suspect() -> None:
    def warn(suspect: bool) -> Check[bool]:
        finding = Finding(severity=WARNING, hop="rule", what="odd", remedy="", suspect=suspect)
        return Check("rule", lambda lost: [finding])

    def pods(lost: bool) -> Iterable[Finding]:
        return [Finding(severity=ERROR, hop="pods", what="lost", remedy="")] if lost else []

    by_suspect = {s: diagnose((warn(s), Check("pods", pods, ("rule",))), {"a": True}) for s in (False, True)}
    assert [each.check for each in by_suspect[False].findings] == ["pods", "rule"]
    assert [each.check for each in by_suspect[True].findings] == ["rule"]
    assert by_suspect[True].findings[0].finding.severity is ERROR
    alone = diagnose((warn(True), Check("pods", pods, ("rule",))), {"a": False})
    assert [each.finding.severity for each in alone.findings] == [WARNING]


_SEVERITIES = st.sampled_from([ERROR, WARNING])
_WRONG = st.dictionaries(
    st.sampled_from([each.name for each in CHECKS]),
    st.dictionaries(st.sampled_from(["", "a", "b", "c"]), _SEVERITIES, min_size=1),
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _WRONG))
def test_every_finding_is_told_as_a_cause_or_as_a_consequence(facts: dict[str, Wrong]) -> None:
    found = diagnose(CHECKS, facts)
    count = sum(len(peers) for wrong in facts.values() for peers in wrong.values())
    told = sum(len(each.node.split(", ")) + len(each.consequences) for each in found.findings)
    assert told == count
    assert found.healthy == (count == 0)
    worst = {s for wrong in facts.values() for peers in wrong.values() for s in peers.values()}
    assert (ERROR in worst) == any(each.finding.severity is ERROR for each in found.findings)
