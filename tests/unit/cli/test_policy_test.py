"""`axo policy test` without a sandbox: what a connection came to, files that cannot be used, JUnit's XML."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from axoneme.cli.junit import Case, Suite, document
from axoneme.cli.trials import Connection, Fate, Made, Outcome, Party
from axoneme.flows.flow import IP, TCP, Flow, Layer4, PolicyName
from axoneme.model.policy import Protocol
from axoneme.model.policytest import Expectation, Pods
from axoneme.model.state import EndpointState
from axoneme.sandbox.client import ProbeResult, Verdict

from .conftest import Axo

A, B = (
    Party(f"default/{name}", node, Path("/none"), (address,), EndpointState(1, node, 300))
    for name, node, address in (("a", "node1", "10.0.0.1"), ("b", "node2", "10.0.0.2"))
)
TO_B = Connection(A, B, "10.0.0.2", Protocol.TCP, 80)
RULE, OTHER = PolicyName("rule1", "default", "NetworkPolicy"), PolicyName("all", "", "Clusterwide")


def result(verdict: Verdict) -> ProbeResult:
    return ProbeResult(verdict, 0.001, local_address="10.0.0.1", local_port=40000)


def flow(node: str = "node1", source_port: int = 40000, **more: object) -> Flow:
    ends = IP("10.0.0.1", "10.0.0.2")
    return Flow(  # type: ignore[arg-type]
        "t",
        "FORWARDED",
        IP=ends,
        l4=Layer4(TCP=TCP(source_port, 80)),
        node_name=node,
        **{"event": "new", **more},
    )


def denied(**more: object) -> Flow:
    return flow("node2", event="drop", drop_reason_desc="POLICY_DENIED", ingress_denied_by=(RULE,), **more)


@pytest.mark.parametrize(
    ("verdict", "flows", "fate"),
    [
        (Verdict.CONNECTED, (), Fate.ALLOWED),
        (Verdict.TIMEOUT, (denied(),), Fate.DENIED),
        (Verdict.REFUSED, (denied(),), Fate.DENIED),
        (Verdict.UNREACHABLE, (denied(),), Fate.DENIED),
        (Verdict.REFUSED, (flow(),), Fate.ALLOWED),
        (Verdict.TIMEOUT, (flow(),), Fate.LOST),
        (Verdict.TIMEOUT, (flow(event="drop", drop_reason_desc="NO_ROUTE"),), Fate.LOST),
        (Verdict.UNREACHABLE, (), Fate.LOST),
    ],
)
def test_silence_alone_is_no_denial(verdict: Verdict, flows: tuple[Flow, ...], fate: Fate) -> None:
    assert Made(TO_B, result(verdict), flows).fate is fate


def test_only_its_own_flows_are_a_connections() -> None:
    mine = result(Verdict.CONNECTED)
    assert TO_B.made(flow(), mine)
    assert not TO_B.made(flow(source_port=40001), mine)
    assert not TO_B.made(flow(event="end"), mine)
    assert not TO_B.made(flow(is_reply=True), mine)
    assert Made(TO_B, mine, (flow(), flow("node2"))).complete
    assert not Made(TO_B, mine, (flow(),)).complete, "the other node has its part in it too"


@pytest.mark.parametrize(
    ("by", "complaint"),
    [
        ((), ""),
        (("rule1",), ""),
        (("default/rule1",), ""),
        (("NetworkPolicy default/rule1", "all"), ""),
        (("other/rule1",), "expected denied by other/rule1"),
        (("rule1", "rule2", "rule3"), "expected denied by rule2, rule3"),
    ],
)
def test_whoever_is_expected_to_decide_must_be_among_the_deciders(
    by: tuple[str, ...], complaint: str
) -> None:
    wanted = Expectation(Pods("default", "a"), Pods("default", "b"), Protocol.TCP, 80, False, by=by)
    made = Made(TO_B, result(Verdict.TIMEOUT), (denied(egress_denied_by=(OTHER,)),))
    outcome = Outcome(wanted, (made,))
    assert [said for _, said in outcome.wrong] == ([complaint] if complaint else [])
    assert outcome.deciders == "all, rule1"


def test_a_connection_of_several_that_differs_spoils_the_expectation() -> None:
    wanted = Expectation(Pods("default", "a"), Pods("default", "b"), Protocol.TCP, 80, False)
    passed = Made(TO_B, result(Verdict.CONNECTED), (flow(), flow("node2", ingress_allowed_by=(OTHER,))))
    outcome = Outcome(wanted, (Made(TO_B, result(Verdict.TIMEOUT), (denied(),)), passed))
    assert not outcome.as_expected and outcome.fates == "denied, allowed"
    ((made, complaint),) = outcome.wrong
    assert made is passed and complaint == "expected denied"
    assert "by Clusterwide all" in str(made)


EXPECT = "apiVersion: axoneme.io/v1alpha1\nkind: PolicyTest\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no documents of kind PolicyTest"),
        (EXPECT, "expect: found nothing"),
        (f"{EXPECT}expect: [from a/b to c/d]", "test.yaml:1): expect[0]: found"),
        (f"{EXPECT}expect: [from a/b to c/d port 1 denied]\n---\n{EXPECT}", "2 documents"),
        (f"{EXPECT}expect: [from a/b to c/d port 1 denied]\nmanifests: [gone.yaml]", "there is no gone.yaml"),
        (
            f"{EXPECT}expect: [from a/b to c/d port 1 denied]\n---\napiVersion: v1\nkind: Pod\n"
            "metadata: {name: a}\nspec: {}",
            "spec.containers",
        ),
        (f"{EXPECT}expect: [", "test.yaml:4"),
    ],
)
def test_files_that_cannot_be_used_end_with_2(axo: Axo, tmp_path: Path, text: str, said: str) -> None:
    path, junit = tmp_path / "test.yaml", tmp_path / "junit.xml"
    path.write_text(text)
    found = axo("policy", "test", str(path), "--junit", str(junit))
    assert found.code == 2
    assert said in found.err
    root = ElementTree.parse(junit).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "1")
    error = root.find("testsuite/testcase/error")
    assert error is not None and said in (error.text or "")


def test_calls_that_make_no_sense(axo: Axo, tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(EXPECT)
    assert axo("policy", "test").code == 2
    assert axo("policy", "test", str(tmp_path / "gone.yaml")).code == 2
    assert axo("policy", "test", str(path), str(path), "--keep").code == 2


def test_junit_counts_times_and_survives_what_xml_cannot_hold() -> None:
    cases = [
        Case("fine", 0.25),
        Case("not <fine> \x00", 1.5, "expected denied", "line 1\nline 2 \x1b[31m"),
        Case("sandbox", 2, "no root", broken=True),
    ]
    text = document(
        "all",
        [Suite("one", datetime(2026, 1, 2, 3, 4, 5), 4.0, cases), Suite("two", datetime(2026, 1, 1), 0, [])],
    )
    assert text.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    root = ElementTree.fromstring(text)
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors"), root.get("time")) == (
        "testsuites",
        "3",
        "1",
        "1",
        "4.000",
    )
    first, second = root.findall("testsuite")
    assert (first.get("name"), first.get("timestamp"), first.get("tests")) == (
        "one",
        "2026-01-02T03:04:05",
        "3",
    )
    assert second.get("tests") == "0" and not list(second)
    fine, wrong, broken = first.findall("testcase")
    assert (fine.get("classname"), fine.get("time"), list(fine)) == ("one", "0.250", [])
    failure, error = wrong.find("failure"), broken.find("error")
    assert failure is not None and error is not None
    assert failure.get("message") == "expected denied"
    assert failure.text == "line 1\nline 2 \ufffd[31m"
    assert error.text == "no root"
