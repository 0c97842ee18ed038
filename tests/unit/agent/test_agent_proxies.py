"""Listeners for policies: few of them, at ports that stay, in force when their proxy says so."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from axoneme.agent.control import Control
from axoneme.agent.proxies import Patience, Proxies
from axoneme.model.l7 import NameMatch
from axoneme.model.labels import Labels
from axoneme.model.policies import parse_policy
from axoneme.model.redaction import Redaction
from axoneme.policy.engine import PolicyEngine, PolicyKey
from axoneme.proxy.config import ProxiesConfig
from axoneme.proxy.names import Names
from axoneme.proxy.plan import PLAN, REPORT, Plan, Report, directory
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Store

from .fakes import FakeJournal, FakePlane

DEFAULT = ProxiesConfig()
#: For proxies that run, as long as a test may take; for those that have to start, not at all.
LONG = Patience(60, 0)
NAMESPACE = "io.kubernetes.pod.namespace"


class Node:
    """An agent's control of proxies; made anew over the same folder it is the next agent."""

    def __init__(
        self, folder: Path, plane: FakePlane, config: ProxiesConfig = DEFAULT, patience: Patience = LONG
    ) -> None:
        self.folder, self.plane = folder, plane
        self.proxies = Proxies("node1", folder, (4, 6), folder / "l7.sock", config, Redaction(), patience)
        self.control = Control(
            "node1",
            PolicyEngine(),
            plane,  # type: ignore[arg-type]
            FakeJournal(),
            proxies=self.proxies,
        )
        for number, app in enumerate(["web", "db", "api"], 300):
            self.control.identity_known(number, Labels.parse([f"k8s:app={app}", f"k8s:{NAMESPACE}=shop"]))
            self.control.local_subject(number, app, True)

    def policy(
        self, name: str, *rules: object, app: str = "web", port: str = "80", kind: str = "http"
    ) -> None:
        entry = {"ports": [{"port": port, "protocol": "TCP"}], "rules": {kind: list(rules)}}
        spec = {"endpointSelector": {"matchLabels": {"app": app}}, "ingress": [{"toPorts": [entry]}]}
        self.tell(name, spec)

    def tell(self, name: str, spec: object, **metadata: object) -> None:
        key = PolicyKey("CiliumNetworkPolicy", "shop", name)
        self.control.policy_changed(key, parse_policy(manifest(name, spec, **metadata)))

    def plan(self, kind: str = "envoy") -> Plan | None:
        try:
            return msgspec.json.decode((directory(self.folder, kind) / PLAN).read_bytes(), type=Plan)
        except FileNotFoundError:
            return None

    def ports(self) -> list[int]:
        plan = self.plan()
        return [listener.port for listener in plan.listeners] if plan else []

    def entries(self) -> list[int]:
        """The proxies' ports in the kernel's table."""
        _, values = self.plane.policies.read_all()
        return sorted({int(port) for port in values["proxy_port"] if port})

    def report(
        self, ready: Sequence[int], errors: Mapping[int, str] = MappingProxyType({}), kind: str = "envoy"
    ) -> None:
        plan = self.plan(kind)
        assert plan
        said = Report(plan.revision, tuple(ready), dict(errors), os.getpid())
        draft = directory(self.folder, kind) / ".draft"
        draft.write_bytes(msgspec.json.encode(said))
        draft.rename(draft.with_name(REPORT))


def manifest(name: str, spec: object, **metadata: object) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", **metadata}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path, FakePlane())
    made.control.start()
    return made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = SqliteStore(tmp_path / "store.db")
    yield opened
    await opened.close()


@asynccontextmanager
async def running(node: Node, store: Store) -> AsyncIterator[None]:
    task = asyncio.create_task(node.proxies.run(store))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_thousand_policies_over_ten_rule_sets_make_ten_listeners(node: Node) -> None:
    for number in range(1000):
        app, port = ("web", "db", "api")[number % 3], str(1000 + number // 3)
        node.policy(f"p{number}", {"path": f"/{number % 10}/.*"}, app=app, port=port)
    node.control.settle()
    assert len(node.ports()) == 10 == len(set(node.ports()))
    assert node.entries() == sorted(node.ports())


def test_several_policies_for_the_same_traffic_are_one_listener(node: Node) -> None:
    node.policy("a", {"method": "GET"})
    node.policy("b", {"method": "PUT"})
    node.control.settle()
    plan = node.plan()
    assert plan and [rule.method for rule in plan.listeners[0].rules.http] == ["GET", "PUT"]
    assert len(plan.listeners) == 1 and plan.listeners[0].direction == "ingress"


def test_a_policy_that_changes_keeps_its_port(node: Node) -> None:
    node.policy("a", {"method": "GET"})
    node.control.settle()
    (port,), before = node.ports(), node.plan()
    node.policy("a", {"method": "GET"}, {"method": "PUT"})
    node.control.settle()
    after = node.plan()
    assert node.ports() == node.entries() == [port]
    assert before and after and after.revision > before.revision
    assert len(after.listeners[0].rules.http) == 2


def test_a_listener_goes_when_no_entry_names_it_any_more(node: Node) -> None:
    node.policy("a", {"method": "GET"})
    node.policy("b", {"path": "/x"}, app="db")
    node.control.settle()
    assert len(node.ports()) == 2
    writes: list[list[int]] = []
    delete = node.plane.policies.delete

    def spy(keys: Any) -> int:
        writes.append(node.ports())
        return delete(keys)

    node.plane.policies.delete = spy  # type: ignore[method-assign]
    node.control.policy_changed(PolicyKey("CiliumNetworkPolicy", "shop", "a"), ())
    node.control.settle()
    assert writes and all(len(ports) == 2 for ports in writes), "it listens until the last entry is gone"
    assert len(node.ports()) == 1
    node.control.policy_changed(PolicyKey("CiliumNetworkPolicy", "shop", "b"), ())
    node.control.settle()
    assert node.plan() is None and node.entries() == []


def test_the_next_agent_finds_its_listeners_where_they_were(node: Node) -> None:
    for number in range(5):
        node.policy(f"p{number}", {"method": f"M{number}"}, port=str(80 + number))
    node.control.settle()
    before, entries = node.plan(), dict(node.plane.policies.entries)
    again = Node(node.folder, node.plane)
    for number in reversed(range(5)):
        again.policy(f"p{number}", {"method": f"M{number}"}, port=str(80 + number))
    written = again.control.start()
    after = again.plan()
    assert before and after and after.listeners == before.listeners and after.revision > before.revision
    assert node.plane.policies.entries == entries and written == 0


def test_what_was_deleted_while_no_agent_ran_has_no_listener(node: Node) -> None:
    node.policy("a", {"method": "GET"})
    node.control.settle()
    assert node.plan()
    again = Node(node.folder, node.plane)
    again.control.start()
    assert again.plan() is None and again.entries() == []


async def test_entries_wait_for_a_proxy_that_runs(node: Node, store: Store) -> None:
    node.policy("a", {"method": "GET"})
    node.control.settle(hold=True)
    assert not node.control.holds, "nobody is there who could be waited for"
    node.report(node.ports())
    async with running(node, store):
        await until(lambda: all(state.state == "ready" for state in node.proxies.states()))
        node.policy("b", {"method": "PUT"}, app="db")
        node.control.settle(hold=True)
        assert node.control.holds and len(node.ports()) == 2 and len(node.entries()) == 1
        assert sorted(each.state for each in node.proxies.states()) == ["ready", "waiting"]
        waiting = asyncio.create_task(node.proxies.ready())
        node.report(node.ports())
        await waiting
        node.control.settle()
        assert not node.control.holds and node.entries() == sorted(node.ports())


async def test_a_listener_that_failed_is_not_waited_for(node: Node, store: Store) -> None:
    node.policy("a", {"method": "GET"})
    node.control.settle()
    async with running(node, store):
        node.report([], {node.ports()[0]: "no"})
        await until(lambda: [each.state for each in node.proxies.states()] == ["failed"])
        assert not node.proxies.waiting
        assert dict(node.proxies.problems()) == {f"proxy/envoy/{node.ports()[0]}": "HTTP: 1 rule: no"}


async def test_a_proxy_that_is_silent_delays_and_does_not_prevent(tmp_path: Path, store: Store) -> None:
    node = Node(tmp_path, FakePlane(), patience=Patience(0.05, 0))
    node.control.start()
    node.policy("a", {"method": "GET"})
    node.control.settle()
    node.report([])
    async with running(node, store):
        await until(lambda: node.proxies.heard("envoy"))
        node.policy("b", {"method": "PUT"}, app="db")
        node.control.settle(hold=True)
        await node.proxies.ready()
        node.control.settle()
        assert node.entries() == sorted(node.ports())


async def test_a_proxy_that_is_needed_for_the_first_time_may_start(tmp_path: Path, store: Store) -> None:
    node = Node(tmp_path, FakePlane(), patience=Patience(0, 60))
    node.control.start()
    async with running(node, store):
        node.policy("a", {"method": "GET"})
        node.control.settle(hold=True)
        assert node.control.holds and node.entries() == []
        waiting = asyncio.create_task(node.proxies.ready())
        node.report(node.ports())
        await waiting
        node.control.settle()
        assert node.entries() == node.ports()


async def test_to_try_a_policy_does_not_cut_short_what_waits_for_a_proxy(
    tmp_path: Path, store: Store
) -> None:
    node = Node(tmp_path, FakePlane(), patience=Patience(0, 60))
    node.control.start()
    async with running(node, store):
        node.policy("a", {"method": "GET"})
        entry = {"ports": [{"port": "81", "protocol": "TCP"}], "rules": {"http": [{"method": "PUT"}]}}
        other = parse_policy(manifest("b", {"endpointSelector": {}, "ingress": [{"toPorts": [entry]}]}))
        node.control.tried({PolicyKey("CiliumNetworkPolicy", "shop", "b"): other})
        assert node.control.holds and node.entries() == []
        waiting = asyncio.create_task(node.control.released())
        node.report(node.ports())
        await node.proxies.ready()
        assert not waiting.done()
        node.control.settle()
        await waiting
        assert node.entries() == node.ports() and len(node.ports()) == 1


async def test_what_changes_no_entry_waits_for_nobody(tmp_path: Path, store: Store) -> None:
    """Nor does it keep listeners that nobody needs any more."""
    node = Node(tmp_path, FakePlane(), patience=Patience(0, 60))
    node.control.start()
    async with running(node, store):
        node.policy("a", {"method": "GET"})
        node.control.settle(hold=True)
        node.control.settle()
        assert node.proxies.waiting
        node.control.settle(hold=True)
        assert not node.control.holds
        node.control.policy_changed(PolicyKey("CiliumNetworkPolicy", "shop", "a"), ())
        node.control.settle(hold=True)
        node.control.settle()
        assert node.plan() is None and node.entries() == []


async def test_of_secrets_those_that_rules_name_are_told(node: Node, store: Store) -> None:
    async def put(name: str, **data: str) -> None:
        value = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}}
        await store.put(f"objects/Secret/shop/{name}", json.dumps({**value, "stringData": data}).encode())

    await put("token-of-others", value="x")
    await put("unused", value="x")
    header = {"name": "X-Token", "secret": {"name": "token"}}
    node.policy("a", {"headerMatches": [header]})
    node.control.settle()

    def known() -> dict[str, dict[str, bytes]]:
        plan = node.plan()
        return {each.name: each.data for each in plan.secrets} if plan else {}

    key = "objects/Secret/shop/token"
    async with running(node, store):
        await until(lambda: key in dict(node.proxies.problems()))
        assert known() == {}
        await put("token", value="one")
        await until(lambda: known() == {"token": {"value": b"one"}})
        assert key not in dict(node.proxies.problems())
        await put("token", value="two")
        await until(lambda: known() == {"token": {"value": b"two"}})
        await store.put(key, b"{}")
        await until(lambda: known() == {})
        assert (
            "metadata" in dict(node.proxies.problems())[key] or "kind" in dict(node.proxies.problems())[key]
        )
        node.control.policy_changed(PolicyKey("CiliumNetworkPolicy", "shop", "a"), ())
        node.control.settle()
        assert not dict(node.proxies.problems())


async def test_the_next_agents_first_plan_lacks_nothing_that_the_last_one_had(
    node: Node, store: Store
) -> None:
    """What opens TLS would be closed meanwhile, and answers let out before their addresses are in force."""

    def tell(node: Node) -> None:
        node.policy("a", {"headerMatches": [{"name": "X-Token", "secret": {"name": "token"}}]})
        entry = {"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": "*"}]}}
        node.tell("b", {"endpointSelector": {}, "egress": [{"toPorts": [entry]}]})

    def secrets(node: Node) -> list[str]:
        plan = node.plan()
        return [each.name for each in plan.secrets] if plan else []

    key, value = "objects/Secret/shop/token", {"metadata": {"name": "token", "namespace": "shop"}}
    await store.put(key, json.dumps({**value, "kind": "Secret", "stringData": {"value": "x"}}).encode())
    tell(node)
    node.proxies.names_are(Names((NameMatch("a.io"),)))
    node.control.settle()
    async with running(node, store):
        await until(lambda: secrets(node) == ["token"])
    again = Node(node.folder, node.plane)
    tell(again)
    again.control.start()
    dns = again.plan("dns")
    assert dns and dns.names == Names((NameMatch("a.io"),)) and secrets(again) == ["token"]
    await store.delete(key)
    async with running(again, store):
        await until(lambda: secrets(again) == [])
        assert dict(again.proxies.problems())[key] == "rules refer to it: there is none"


def test_what_no_proxy_can_hold_to_is_denied_and_told_with_both_names(node: Node) -> None:
    node.policy("a", {"method": "GET"})
    node.control.settle()
    node.policy("b", {"topic": "t"}, kind="kafka")
    node.control.settle()
    assert node.entries() == [] and node.plan() is None and node.plan("kafka") is None
    told = node.control.conflicts
    assert told.keys() == {"objects/CiliumNetworkPolicy/shop/a", "objects/CiliumNetworkPolicy/shop/b"}
    (why,) = set(told.values())
    assert "shop/a spec.ingress[0].toPorts[0] and CiliumNetworkPolicy shop/b" in why
    node.control.policy_changed(PolicyKey("CiliumNetworkPolicy", "shop", "b"), ())
    node.control.settle()
    assert not node.control.conflicts and node.entries() == node.ports()


def test_a_conflict_is_found_before_it_is_there(node: Node) -> None:
    node.policy("a", {"method": "GET"})
    node.control.settle()
    entry = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"kafka": [{}]}}
    other = parse_policy(manifest("b", {"endpointSelector": {}, "ingress": [{"toPorts": [entry]}]}))
    needs = node.control.tried({PolicyKey("CiliumNetworkPolicy", "shop", "b"): other})
    assert [need.problem for need in needs if need.problem] and node.entries() == node.ports()


def test_more_rule_sets_than_ports_are_refused_and_the_others_hold(tmp_path: Path) -> None:
    node = Node(tmp_path, FakePlane(), ProxiesConfig(ports=(10000, 10001)))
    node.control.start()
    for number in range(3):
        node.policy(f"p{number}", {"method": f"M{number}"}, port=str(80 + number))
    node.control.settle()
    assert len(node.ports()) == 2 and node.entries() == sorted(node.ports())
    (why,) = node.control.refused.values()
    assert "proxies.ports: 2 listeners at most, 3 needed" in why


def test_what_is_only_tried_goes_through_a_proxy_that_lets_pass(node: Node) -> None:
    entry = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}
    spec = {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"toPorts": [entry]}]}
    node.tell("a", spec, annotations={"axoneme.io/audit": "true"})
    node.control.settle()
    plan = node.plan()
    assert plan and [listener.audit for listener in plan.listeners] == [True]
    _, values = node.plane.policies.read_all()
    assert {int(each) for each in values["verdict"]} == {1}, "everything passes"
