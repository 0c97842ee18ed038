"""`axo policy test` with real packets: what is as expected, what is not, and what cannot be tried."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from runtime import live

from axoneme.cli.place import Place
from axoneme.cli.policy import End, ask_both
from axoneme.cli.policytest import test as command
from axoneme.cli.scene import Scene
from axoneme.cli.scene import run as try_all
from axoneme.model.policy import Protocol
from axoneme.model.policytest import Expectation, Pods
from axoneme.sandbox import lifecycle
from manifests import folder, text

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "bakery"

STAR_WARS = """\
apiVersion: axoneme.io/v1alpha1
kind: PolicyTest
metadata: {name: star-wars}
manifests: [http-sw-app.yaml, sw_l3_l4_policy.yaml]
expect:
  - from default/tiefighter to default/deathstar port 80 -> allowed by rule1
  - from default/xwing to default/deathstar port 80 -> denied by rule1
  - from default/tiefighter to default/deathstar port 81 -> denied by rule1
  - from default/xwing to default/tiefighter port 4711 -> allowed
  - from default/deathstar to 192.0.2.77 port 53/UDP -> allowed
  - from 192.0.2.78 to default/deathstar port 80 -> denied by rule1
  - from host to default/deathstar port 80 -> allowed
  - from node1 to default/tiefighter port 4711 over ipv4 -> allowed
  - from default/xwing to default/deathstar icmp -> denied by default/rule1
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes the test beside the manifests of the star wars, and runs it."""

    def go(test: str, *options: str) -> Result:
        for each in folder("star-wars").iterdir():
            (tmp_path / each.name).write_text(each.read_text())
        (tmp_path / "test.yaml").write_text(test)
        name = f"test-policy-test-{os.getpid()}"
        found = CliRunner().invoke(
            command,
            [str(tmp_path / "test.yaml"), "--name", name, "--junit", str(tmp_path / "junit.xml"), *options],
            obj=Place(),
            standalone_mode=False,
        )
        if found.exception:
            raise found.exception
        assert name not in lifecycle.names(), "the sandbox is gone"
        return found

    return go


def test_the_empire_lands_and_the_rebels_do_not(run: Run, tmp_path: Path) -> None:
    found = run(STAR_WARS)
    assert found.return_value == 0, found.output
    assert "all 9 as expected" in found.output
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("9", "0", "0")
    assert {case.get("classname") for case in root.iter("testcase")} == {"star-wars"}


def test_what_comes_out_otherwise_is_named_with_its_connections(run: Run, tmp_path: Path) -> None:
    test = STAR_WARS.split("expect:", maxsplit=1)[0] + (
        "expect:\n"
        "  - from default/xwing to default/deathstar port 80 -> allowed\n"
        "  - from default/tiefighter to default/deathstar port 80 -> denied\n"
        "  - from default/tiefighter to default/deathstar port 80 -> allowed by rule2\n"
        "  - from default/tiefighter to default/deathstar port 80 -> allowed\n"
        "---\n"
        # Beside the manifests that it names, a file may hold others.
        "apiVersion: networking.k8s.io/v1\n"
        "kind: NetworkPolicy\n"
        "metadata: {name: beside}\n"
        "spec: {podSelector: {matchLabels: {class: deathstar}}}\n"
    )
    found = run(test)
    assert found.return_value == 1, found.output
    assert "3 of 4 not as expected" in found.output
    near = "CiliumNetworkPolicy default/rule1 spec.ingress[0] would allow it but for the label (it wants "
    assert f"{near}org=empire, the peer has org=alliance)" in found.output
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    failures = [case.find("failure") for case in root.iter("testcase")]
    assert failures[3] is None
    first, second, third = ((each.text or "").splitlines() for each in failures[:3] if each is not None)
    assert len(first) == 4, "both death stars, both families"
    assert all("expected allowed: default/xwing -> default/deathstar-" in line for line in first)
    assert all("denied (no answer) by" in line and "beside" in line and "rule1" in line for line in first)
    assert all("expected denied:" in line and "allowed (in " in line for line in second)
    assert all("expected allowed by rule2:" in line for line in third)


def test_an_end_that_is_nobody_ends_with_2(run: Run) -> None:
    expect = "from default/ywing to default/deathstar port 80 -> allowed"
    found = run(f"{STAR_WARS.split('expect:', maxsplit=1)[0]}nodes: 1\nexpect: ['{expect}']\n")
    assert found.return_value == 2, found.output
    assert "there are deathstar, tiefighter, xwing" in found.output


def test_packets_meet_what_why_says() -> None:
    """Expectations made of what the agents say without a packet, for all pairs of pods, then tried."""
    with live("policy-why", text(*(EXAMPLE / name for name in ("app.yaml", "policies.yaml")))) as runtime:
        runtime.policies_loaded(5)
        place = Place(sandbox=runtime.name)
        scene = Scene.of(place)
        scene.settle()
        expectations = []
        for source, target in itertools.permutations(scene.endpoints, 2):
            sender, receiver = (End(f"{each.namespace}/{each.pod}", "", each) for each in (source, target))
            for protocol, port in ((Protocol.TCP, 8080), (Protocol.TCP, 9000), (Protocol.ICMP, 0)):
                asked = ("ICMP", 8) if protocol is Protocol.ICMP else ("TCP", port)
                sides = ask_both(place, sender, receiver, asked[1], asked[0])
                stopped = [side for side in sides if not side.answer.allowed]
                deciding = [rule for side in stopped[:1] or sides for rule in side.answer.rules]
                by = tuple(dict.fromkeys(str(rule["name"]) for rule in deciding))
                ends = (Pods(source.namespace, source.pod), Pods(target.namespace, target.pod))
                # The agents are asked for one family's echo request, so only that is sent.
                families = (4,) if protocol is Protocol.ICMP else ()
                expectations.append(Expectation(*ends, protocol, port, not stopped, families, by))
        outcomes = try_all(place, expectations)
    assert not [str(made) for outcome in outcomes for made, _ in outcome.wrong]
    verdicts = Counter(outcome.fates for outcome in outcomes)
    assert verdicts["allowed"] > 20 and verdicts["denied"] > 20, verdicts
