"""`axo policy preview` and `axo policy suggest` against real packets: what they foretell is what happens."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner
from runtime import Live, addresses, live

from axoneme.cli.place import Place
from axoneme.cli.policypreview import BREAKS
from axoneme.cli.policypreview import preview as preview_command
from axoneme.cli.policysuggest import suggest as suggest_command
from axoneme.sandbox.client import Probe, Protocol, Verdict

POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}
spec:
  nodeName: {node}
  containers:
  - {{name: echo, image: axoneme/echo, ports: [{{name: web, containerPort: 8080}}]}}
---
"""
PODS = (
    ("web", "shop", "{app: web, tier: front}", "node1"),
    ("canary", "shop", "{app: web, tier: front, track: canary}", "node2"),
    ("db", "shop", "{app: db}", "node2"),
    ("client", "other", "{app: client}", "node1"),
)
APP = "".join(
    f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n" for name in ("shop", "other")
) + "".join(
    POD.format(name=name, namespace=namespace, labels=labels, node=node)
    for name, namespace, labels, node in PODS
)
PORTS = (8080, 4711)

#: Changes, one after the other: allows by label, by namespace, by named port; a deny; both directions.
CHANGES = (
    """
    {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {
      podSelector: {matchLabels: {app: db}},
      ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: web}]}]}}
    """,
    """
    {apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: db, namespace: shop}, spec: {
      endpointSelector: {matchLabels: {app: db}},
      ingress: [{fromEntities: [cluster]}],
      ingressDeny: [{fromEndpoints: [{matchLabels: {track: canary}}]}]}}
    """,
    """
    {apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: front}, spec: {
      endpointSelector: {matchLabels: {tier: front}},
      ingress: [{fromEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": other}}],
        toPorts: [{ports: [{port: "4711", protocol: TCP}]}]}],
      egress: [{toEndpoints: [{matchLabels: {"k8s:app": db}}], toPorts: [{ports: [{port: "8080"}]}]}]}}
    """,
)


class Call(NamedTuple):
    source: str
    destination: str
    port: int


#: All that could be.
CALLS = [
    Call(f"{a[1]}/{a[0]}", f"{b[1]}/{b[0]}", port)
    for a, b in itertools.permutations(PODS, 2)
    for port in PORTS
]


class Cluster:
    def __init__(self, runtime: Live) -> None:
        self.runtime = runtime
        self.pods = {f"{ns}/{name}": runtime.pod(name, ns) for name, ns, *_ in PODS}

    def make(self, calls: list[Call]) -> dict[Call, bool]:
        """Makes them over both families, at once; whether they were answered."""
        wishes = [
            Probe(self.runtime.namespace(self.pods[call.source]), address, call.port, Protocol.TCP, 1.0, b"")
            for call in calls
            for address in addresses(self.pods[call.destination])
        ]
        results = iter(self.runtime.probe_all(wishes))
        found = {}
        for call in calls:
            answered = {
                next(results).verdict in (Verdict.CONNECTED, Verdict.REFUSED)
                for _ in addresses(self.pods[call.destination])
            }
            assert len(answered) == 1, f"{call}: the families differ"
            found[call] = answered.pop()
        return found

    def recorded(self, calls: list[Call], since: int) -> None:
        """Waits until flows of all of these are there."""

        def all_there() -> bool:
            seen = {
                Call(
                    f"{flow['source'].get('namespace')}/{flow['source'].get('pod_name')}",
                    f"{flow['destination'].get('namespace')}/{flow['destination'].get('pod_name')}",
                    flow["l4"].get("TCP", {}).get("destination_port", 0),
                )
                for flow in self.runtime.flows(since=since)
            }
            return set(calls) <= seen

        self.runtime.wait(all_there, "flows of all calls")

    def axo(self, command: Any, *arguments: str) -> tuple[int, Any]:
        found = CliRunner().invoke(
            command, arguments, obj=Place(sandbox=self.runtime.name, named=True), standalone_mode=False
        )
        assert found.exception is None, found.output
        return found.return_value, json.loads(found.stdout)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with live("preview", APP.removesuffix("---\n"), nodes=2) as runtime:
        yield Cluster(runtime)


def _effects(report: Any) -> dict[Call, str]:
    return {
        Call(_name(each["source"]), _name(each["destination"]), int(each["service"].partition("/")[0])): each[
            "effect"
        ]
        for each in report["changed"]
    }


def _name(party: Any) -> str:
    return f"{party['namespace']}/{party['workload'].removeprefix('pod/')}"


def test_what_is_foretold_is_what_happens(cluster: Cluster, tmp_path: Any) -> None:
    runtime = cluster.runtime
    since = time.time_ns()
    before = cluster.make(CALLS)
    assert all(before.values())
    cluster.recorded(CALLS, since)
    broken = 0
    for number, text in enumerate(CHANGES, start=1):
        document = yaml.safe_load(text)
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(document))
        code, report = cluster.axo(preview_command, "-f", str(path), "-o", "json")
        effects = _effects(report)
        runtime.apply(path.read_text())
        runtime.policies_loaded(number)
        after = cluster.make(CALLS)
        assert effects == {
            call: "opens" if after[call] else "breaks" for call in CALLS if after[call] != before[call]
        }, document["metadata"]["name"]
        assert (code == BREAKS) == ("breaks" in effects.values())
        broken += len(effects)
        before = after
    assert broken > 10
    # And back: without the first of them, some open again.
    code, report = cluster.axo(preview_command, "--delete", "ccnp/front", "-o", "json")
    assert (code, set(_effects(report).values())) == (0, {"opens"})
    for kind, name, namespace in (
        ("NetworkPolicy", "db", "shop"),
        ("CiliumNetworkPolicy", "db", "shop"),
        ("CiliumClusterwideNetworkPolicy", "front", ""),
    ):
        path_namespace = namespace or "_"
        runtime.store(lambda store, p=f"objects/{kind}/{path_namespace}/{name}": store.delete(p))  # type: ignore[misc]
    runtime.policies_loaded(0)
    opened = _effects(report)
    assert all(cluster.make(list(opened)).values())


def test_a_suggestion_lets_what_was_seen_pass_and_nothing_else(cluster: Cluster) -> None:
    wanted = [
        Call("shop/web", "shop/db", 8080),
        Call("shop/canary", "shop/db", 4711),
        Call("other/client", "shop/web", 8080),
        Call("shop/web", "other/client", 4711),
    ]
    since = time.time_ns()
    assert all(cluster.make(wanted).values())
    cluster.recorded(wanted, since)
    moment = datetime.fromtimestamp(since / 1e9, UTC).isoformat()
    _, made = cluster.axo(suggest_command, "-n", "shop", "--since", moment, "-o", "json")
    policies = made["items"]
    assert sorted(each["metadata"]["name"] for each in policies) == [
        "canary-observed",
        "db-observed",
        "web-observed",
    ]
    cluster.runtime.apply(yaml.safe_dump_all(policies))
    cluster.runtime.policies_loaded(3)
    found = cluster.make(CALLS)
    inside = {call for call in CALLS if "shop/" in call.source or "shop/" in call.destination}
    assert {call for call in inside if found[call]} == set(wanted)
