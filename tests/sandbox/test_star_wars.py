"""Cilium's first demonstration, on our datapath: the empire lands, the rebels time out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from runtime import Live, addresses, live

from axoneme.sandbox.client import Protocol, Verdict
from manifests import folder, text


@pytest.fixture(scope="module")
def empire() -> Iterator[Live]:
    with live("starwars", text(folder("star-wars") / "http-sw-app.yaml")) as runtime:
        yield runtime


def land(runtime: Live, ship: str) -> list[Verdict]:
    """What becomes of a landing on each of the death stars, over both families."""
    found = []
    for station in runtime.pods(**{"class": "deathstar"}):
        for address in addresses(station):
            answer = runtime.probe(runtime.namespace(ship), address, 80, Protocol.HTTP, b"", timeout=2)
            found.append(answer.verdict)
            if answer.answer is not None:
                assert answer.answer.pod == station["metadata"]["name"]
                assert answer.answer.peer.address in addresses(runtime.pod(ship)), "the address is kept"
    return found


#: As the demonstration has it: ``curl -s -XPOST deathstar.default.svc.cluster.local/v1/request-landing``.
REQUEST = """
import urllib.request
url = "http://deathstar.default.svc.cluster.local/v1/request-landing"
request = urllib.request.Request(url, method="POST")
try:
    print(urllib.request.urlopen(request, timeout=3).read().decode())
except OSError as failure:
    print(failure)
"""


def request_landing(runtime: Live, ship: str) -> str:
    """What a program in the ship is told, that calls the death star by its name."""
    axo = (sys.executable, "-m", "axoneme.cli", "--sandbox", runtime.name, "exec", ship, "--")
    done = subprocess.run(
        [*axo, sys.executable, "-c", REQUEST], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_without_policy_everybody_lands(empire: Live) -> None:
    assert {pod["spec"]["nodeName"] for pod in empire.every("Pod")} == {"node1", "node2"}
    for ship in ("tiefighter", "xwing"):
        assert land(empire, ship) == [Verdict.CONNECTED] * 4


def test_the_policy_keeps_the_rebels_out(empire: Live) -> None:
    empire.apply((folder("star-wars") / "sw_l3_l4_policy.yaml").read_text())
    empire.policies_loaded(1)
    assert land(empire, "tiefighter") == [Verdict.CONNECTED] * 4
    assert land(empire, "xwing") == [Verdict.TIMEOUT] * 4
    station = addresses(empire.pods(**{"class": "deathstar"})[0])[0]
    late = empire.probe(empire.namespace("tiefighter"), station, 81, timeout=1)
    assert late.verdict is Verdict.TIMEOUT, "also the empire only on port 80"


def test_the_same_by_name_through_the_service(empire: Live) -> None:
    stations = [each["metadata"]["name"] for each in empire.pods(**{"class": "deathstar"})]
    empire.wait(
        lambda: any(each in request_landing(empire, "tiefighter") for each in stations) or None,
        "the tie fighter lands",
    )
    assert "timed out" in request_landing(empire, "xwing")

    def calls() -> list[dict[str, Any]] | None:
        wanted = {"from_pod": ["default/tiefighter"], "service": ["default/deathstar"]}
        return empire.flows(filters=[wanted]) or None

    for flow in empire.wait(calls, "its node has seen whom the tie fighter called"):
        assert flow["destination_service"]["name"] == "deathstar"
        assert flow["destination"]["pod_name"] in stations, "and which station it was"


def test_the_drop_is_seen_with_the_policys_name(empire: Live) -> None:
    def drops() -> list[dict[str, Any]] | None:
        return empire.flows(filters=[{"verdict": ["DROPPED"], "from_pod": ["default/xwing"]}]) or None

    for flow in empire.wait(drops, "drops of the x-wing's packets"):
        assert flow["drop_reason_desc"] == "POLICY_DENIED"
        assert flow["destination"]["workloads"] == [{"name": "deathstar", "kind": "Deployment"}]
        assert "k8s:org=alliance" in flow["source"]["labels"]
        assert [each["name"] for each in flow["ingress_denied_by"]] == ["rule1"]
    allowed = empire.flows(
        filters=[{"verdict": ["FORWARDED"], "from_pod": ["default/tiefighter"], "port": [80]}]
    )
    assert any(each["name"] == "rule1" for flow in allowed for each in flow.get("ingress_allowed_by", ()))


def test_the_agents_say_the_same_without_a_packet(empire: Live) -> None:
    endpoints = empire.endpoints()
    station = next(each for each in endpoints.values() if each["workload"] == "deathstar")
    assert empire.why(endpoints["default/tiefighter"], station, 80)
    assert not empire.why(endpoints["default/tiefighter"], station, 81)
    assert not empire.why(endpoints["default/xwing"], station, 80)


def test_a_ship_that_changes_sides_may_land(empire: Live) -> None:
    empire.change("Pod", "xwing", lambda pod: pod["metadata"]["labels"].update(org="empire"))
    empire.wait(
        lambda: set(land(empire, "xwing")) == {Verdict.CONNECTED} or None, "the captured x-wing lands"
    )


def test_without_the_policy_again_everybody_lands(empire: Live) -> None:
    empire.change("Pod", "xwing", lambda pod: pod["metadata"]["labels"].update(org="alliance"))
    empire.delete("CiliumNetworkPolicy", "rule1")
    empire.policies_loaded(0)
    assert land(empire, "xwing") == [Verdict.CONNECTED] * 4
