"""Host policies are tried, confirmed, given up; and an agent may die at any moment between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from axoneme.agent.control import Control
from axoneme.agent.failsafe import FAIL_SAFE, failsafe
from axoneme.agent.hostpolicies import HostPolicies
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.hostfilter import HostSettings
from axoneme.datapath.plane import Datapath
from axoneme.model.labels import NODE, RESERVED, Label, Labels
from axoneme.model.policy import Direction, Protocol
from axoneme.policy.engine import PolicyEngine
from axoneme.policy.identities import HOST, HOST_TRIED
from axoneme.policy.lookup import evaluate
from axoneme.sources.config import ConfigError

MINUTE = 60 * 10**9
REMOTE_NODE = 6
KEY = "CiliumClusterwideNetworkPolicy/hosts"


class Node:
    """A machine: its kernel, its disk and its clock outlive agents."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "host-policies.json"
        self.now = 10 * MINUTE
        self.boot = "first"
        self.settings = HostSettings()
        self.start()

    def start(self) -> None:
        """Another agent, which has been told nothing yet."""
        self.engine = PolicyEngine()
        self.subjects: set[int] = set()
        self.hosts = HostPolicies(
            cast(Control, self),
            cast(Datapath, self),
            self.path,
            failsafe(["TCP:22"], []),
            60,
            "default",
            lambda: self.now,
            self.boot,
        )

    # What `HostPolicies` asks of `Control` and `Datapath`.

    host_labels = Labels((Label(NODE, "pool", "a"), Label(RESERVED, "host")))

    def host_subject(self, identity: int, present: bool) -> None:
        if present and identity not in self.subjects:
            name = "tried" if identity == HOST_TRIED else "confirmed"
            self.engine.upsert_identity(identity, Labels((*self.host_labels, Label("host", name))))
            self.engine.add_subject(identity)
        elif not present and identity in self.subjects:
            self.engine.remove_subject(identity)
        (self.subjects.add if present else self.subjects.discard)(identity)

    def guard_host(self, settings: HostSettings) -> None:
        for subject in (settings.tried, settings.confirmed):
            assert not subject or any(key.subject == subject for key in self.engine.table), "no lock-out"
        self.settings = settings

    # What the agent and time do.

    def settle(self) -> None:
        self.hosts.prepare()
        self.engine.changes()
        if self.hosts.enforce():
            self.engine.changes()

    def in_force(self, port: int) -> bool | None:
        """Whether anybody may call a port of the node, as the kernel has it; None: no policy."""
        subject = self.settings.tried if self.now < self.settings.until else self.settings.confirmed
        if not subject:
            return None
        return evaluate(
            self.engine.table, subject, Direction.INGRESS, REMOTE_NODE, Protocol.TCP, port
        ).allowed


def rules(*numbers: int, pool: str = "a") -> dict[str, Any]:
    ports = [{"port": str(number), "protocol": "TCP"} for number in numbers]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "hosts"},
        "spec": {
            "nodeSelector": {"matchLabels": {"pool": pool}},
            "ingress": [{"fromEntities": ["all"], "toPorts": [{"ports": ports}]}],
        },
    }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_new_policy_is_in_force_until_its_time_is_over(node: Node) -> None:
    node.settle()
    assert node.in_force(80) is None
    node.hosts.told(KEY, rules(443))
    node.settle()
    assert (node.in_force(443), node.in_force(80), node.in_force(22)) == (True, False, True)
    assert node.hosts.state().pending == [KEY] and node.hosts.state().seconds == 60
    node.now += MINUTE
    assert node.in_force(80) is None, "without the agent"
    assert node.hosts.due
    node.settle()
    assert node.hosts.state().given_up == [KEY] and not node.subjects
    node.settle()
    assert node.in_force(80) is None, "given up is given up"
    node.hosts.told(KEY, rules(444))
    node.settle()
    assert node.in_force(444) is True and not node.hosts.state().given_up


def test_what_is_confirmed_stays_and_comes_back(node: Node) -> None:
    node.hosts.told(KEY, rules(443))
    node.settle()
    node.hosts.confirm()
    node.settle()
    assert node.settings == HostSettings(HOST, 0, 0)
    node.now += 10 * MINUTE
    assert (node.in_force(443), node.in_force(80)) == (True, False)
    node.hosts.told(KEY, rules(80))
    node.settle()
    assert (node.in_force(443), node.in_force(80)) == (False, True)
    node.now += MINUTE
    assert (node.in_force(443), node.in_force(80)) == (True, False)
    node.settle()
    assert (node.in_force(443), node.in_force(80)) == (True, False)
    node.hosts.told(KEY, None)
    node.settle()
    assert node.in_force(80) is None and not node.subjects


def test_a_trial_goes_on_under_the_next_agent_to_the_same_end(node: Node) -> None:
    node.hosts.told(KEY, rules(443))
    node.settle()
    until = node.settings.until
    node.now += MINUTE // 2
    node.start()
    node.hosts.told(KEY, rules(443))
    node.settle()
    assert node.settings.until == until
    node.hosts.confirm()
    node.start()  # it has died before it could tell the kernel
    node.hosts.told(KEY, rules(443))
    node.settle()
    assert node.settings == HostSettings(HOST, 0, 0) and node.in_force(443) is True


@pytest.mark.parametrize("boot", ["first", "second"])
def test_what_ran_out_while_no_agent_was_there_is_given_up(node: Node, boot: str) -> None:
    node.hosts.told(KEY, rules(443))
    node.settle()
    if boot == "first":
        node.now += MINUTE
    else:
        node.now, node.boot, node.settings = 1, boot, HostSettings()
    node.start()
    node.hosts.told(KEY, rules(443))
    node.settle()
    assert node.in_force(443) is None and node.hosts.state().given_up == [KEY]


def test_policies_for_other_nodes_are_nothing_here(node: Node) -> None:
    node.hosts.told(KEY, rules(443, pool="b"))
    node.settle()
    assert node.in_force(443) is None and not node.hosts.state().pending and not node.path.exists()


def test_a_file_that_cannot_be_read_is_not_passed_over(node: Node) -> None:
    node.path.write_text("{")
    with pytest.raises(ConfigError, match="which host policies are confirmed"):
        node.start()


def test_the_file_is_there_before_the_kernel_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(node, "guard_host", lambda _: told.append(json.loads(node.path.read_text())))
    node.hosts.told(KEY, rules(443))
    node.settle()
    assert told[0]["tried"].keys() == {KEY}


def test_a_version_that_nobody_could_try_is_not_confirmed(node: Node) -> None:
    node.hosts.told(KEY, rules(443))
    node.settle()
    node.hosts.told(KEY, rules(80))
    assert node.hosts.confirm().confirmed == [], "it came only now"
    node.hosts.prepare()
    assert node.hosts.confirm().confirmed == [], "nor has the kernel been told of it"
    node.settle()
    assert node.hosts.confirm().confirmed == [KEY]
    node.settle()
    assert (node.in_force(443), node.in_force(80)) == (False, True)


def test_a_policy_that_is_not_only_tried_any_more_is_another_version(node: Node) -> None:
    """`axoneme.io/audit` is no part of the spec."""
    only_tried = rules(443)
    only_tried["metadata"]["annotations"] = {"axoneme.io/audit": "true"}
    node.hosts.told(KEY, only_tried)
    node.settle()
    node.hosts.confirm()
    node.settle()
    assert node.in_force(80) is True
    node.hosts.told(KEY, rules(443))
    node.settle()
    assert node.in_force(80) is False and node.hosts.state().pending == [KEY]


def test_it_is_too_late_to_confirm_what_is_taken_back_already(node: Node) -> None:
    node.hosts.told(KEY, rules(443))
    node.settle()
    node.now += MINUTE
    assert node.hosts.confirm().confirmed == []
    node.settle()
    assert node.in_force(80) is None and node.hosts.state().given_up == [KEY]


def test_what_the_kernel_refused_to_hear_is_still_owed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: HostSettings) -> None:
        raise BpfError(12, "no memory")

    node.settle()
    assert not node.hosts.owed
    node.hosts.told(KEY, rules(443))
    with monkeypatch.context() as patch:
        patch.setattr(node, "guard_host", refuse)
        with pytest.raises(BpfError):
            node.settle()
    assert node.hosts.owed and node.in_force(80) is None
    node.settle()
    assert not node.hosts.owed and node.in_force(80) is False


def test_policies_that_stay_are_not_read_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.hosts.told(KEY, rules(443))
    node.settle()
    node.hosts.confirm()
    node.settle()
    told: list[object] = []
    monkeypatch.setattr(node.engine, "upsert_policy", lambda *of: told.append(of))
    node.settle()
    assert told == []
    node.hosts.told(KEY, rules(80))
    node.hosts.prepare()
    assert told


def test_fail_safe_ports_come_before_every_deny(node: Node) -> None:
    object = rules(443)
    object["spec"]["ingressDeny"] = [{"fromEntities": ["all"]}]
    node.hosts.told(KEY, object)
    node.settle()
    assert (node.in_force(22), node.in_force(443)) == (True, False)
    assert failsafe(["TCP:22"], ["UDP:67"]).ref == FAIL_SAFE
    for wrong in ("22", "TCP:0", "TCP:x", "ICMP:8"):
        with pytest.raises(ValueError, match="is no port"):
            failsafe([wrong], [])
