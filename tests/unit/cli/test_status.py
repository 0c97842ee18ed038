"""`axo status`, `axo logs`, `axo exec` as far as they go without namespaces, and the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from axoneme import __version__
from axoneme.rpc import NOT_FOUND, RpcError
from axoneme.sandbox import planfile
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.plan import Family, Plan, Routing

from .conftest import Answer, Axo, Params, Sandbox, serving


def says(answer: object) -> Answer:
    return lambda params: answer


AGENT = {"node": "n", "phase": "ready", "endpoints": 3, "policies": 2, "started": 1.0, "new": True}
FLOWS = {"node_name": "n", "num_flows": 5, "seen_flows": 99, "attached": True}
REPORT = {
    "name": "default",
    "routing": "overlay",
    "family": "dual",
    "supervisor": 1,
    "nodes": [],
    "pods": 4,
    "ready_pods": 4,
}


@contextmanager
def running(
    sandbox: Sandbox,
    agent: object = AGENT,
    flows: object = FLOWS,
    report: object = REPORT,
    more: dict[str, Answer] | None = None,
) -> Iterator[None]:
    planfile.save(Plan(name="default"), sandbox.layout)
    with ExitStack() as stack:
        stack.enter_context(serving(sandbox.layout.supervisor_socket, {"status": says(report)}))
        for node in ("node1", "node2"):
            files = sandbox.layout.node(node)
            stack.enter_context(serving(files.agent_socket, {"status": says(agent), **(more or {})}))
            stack.enter_context(serving(files.flows_socket, {"status": says(flows)}))
        yield


def test_all_well(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        found = axo("status")
        document = axo("status", "-o", "json")
    assert found.code == 0
    assert found.lines[0].startswith("sandbox default: well;")
    assert [row[0] for row in found.cells[3:5]] == ["node1", "node2"]
    assert document.code == 0
    assert document.json["well"] is True
    assert [node["agent"]["policies"] for node in document.json["nodes"]] == [2, 2]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"agent": {**AGENT, "phase": "starting", "waits_for": "the shared state"}}, "the shared state"),
        (
            {"agent": {**AGENT, "problems": {"objects/NetworkPolicy/a/b": "no good"}}},
            "NetworkPolicy/a/b: no good",
        ),
        (
            {"agent": {**AGENT, "health": {"nodes": 2, "reachable": 1, "unreachable": ["node7"]}}},
            "does not reach node7",
        ),
        ({"flows": {**FLOWS, "attached": False}}, "waits for the datapath"),
        ({"report": {**REPORT, "ready_pods": 3, "waiting": ["Pod a/b: not ready"]}}, "Pod a/b: not ready"),
    ],
)
def test_what_is_not_well_is_said_and_the_exit_code(
    axo: Axo, sandbox: Sandbox, trouble: dict[str, object], said: str
) -> None:
    with running(sandbox, **trouble):
        found = axo("status")
    assert found.code == 1
    assert "not well" in found.lines[0]
    assert said in found.out


def test_what_the_kernel_lacks_is_no_trouble_but_is_said(axo: Axo, sandbox: Sandbox) -> None:
    lack = "this kernel has no tcx links"
    with running(sandbox, {**AGENT, "kernel": "6.1.0", "kernel_lacks": [lack]}):
        found = axo("status")
        document = axo("status", "-o", "json").json
    assert found.code == 0
    assert f"node1, node2: {lack}" in found.lines
    assert [node["agent"]["kernel_lacks"] for node in document["nodes"]] == [[lack], [lack]]


def test_what_is_balanced(axo: Axo, sandbox: Sandbox) -> None:
    balancing = {
        "services": 12,
        "frontends": 30,
        "backends": 1,
        "empty": 2,
        "algorithm": "maglev",
        "forwarding": "snat",
        "sockets": "/sys/fs/cgroup",
    }
    with running(sandbox, {**AGENT, "balancing": balancing}):
        found = axo("status")
        document = axo("status", "-o", "json").json
    assert (
        "Load balancing: 12 service ports, 30 frontends, 1 backend; maglev, snat; at sockets; "
        "2 without backends (axo service list --problems)"
    ) in found.lines
    assert document["nodes"][0]["agent"]["balancing"] == balancing
    with running(sandbox, {**AGENT, "balancing": {**balancing, "sockets": ""}}):
        assert "at sockets on 0/2 nodes only" in axo("status").out
    with running(sandbox):
        assert "Load balancing: none" in axo("status").lines


def test_how_the_nodes_reach_each_other(axo: Axo, sandbox: Sandbox) -> None:
    way = {"path": "pods", "protocol": "tcp", "address": "10.244.0.254"}
    report = {
        "node": "n",
        "interval": 7.0,
        "nodes": [
            {
                "node": "far",
                "measurements": [
                    {"way": way, "measured": 9.0, "last_success": 9.0, "answer": {"latency": 0.00123}},
                    {"way": {**way, "protocol": "icmp"}, "measured": 9.0, "reason": "lost", "failures": 1},
                    {"way": {**way, "path": "underlay"}},
                ],
            }
        ],
    }
    health = {"nodes": 2, "reachable": 2}
    with running(sandbox, {**AGENT, "health": health}, more={"health.status": says(report)}):
        assert "Health: 2/2 nodes reachable" in axo("status").lines
        verbose = axo("status", "--verbose")
        document = axo("status", "-v", "-o", "json").json
    rows = verbose.cells[-6:-3]
    assert [row[:6] for row in rows] == [
        ["n", "far", "pod-network", "tcp", "10.244.0.254", "1.23ms"],
        ["n", "far", "pod-network", "icmp", "10.244.0.254", "no"],
        ["n", "far", "underlay", "tcp", "10.244.0.254", "-"],
    ]
    assert [row[-1] for row in rows] == ["-", "lost", "-"]
    assert rows[1][-2] == "never"
    assert document["health"][0]["nodes"][0]["node"] == "far"


def test_processes_that_do_not_answer(axo: Axo, sandbox: Sandbox) -> None:
    planfile.save(Plan(name="default"), sandbox.layout)
    found = axo("status")
    assert found.code == 1
    for said in ("supervisor", "node1: its agent does not answer", "node2: its flow server does not answer"):
        assert said in found.out


def test_the_list_of_sandboxes(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        found = axo("sandbox", "status", "--name", "default")
        assert found.code == 0
        assert found.cells[1][:4] == ["default", "yes", "0", "4/4"]
        assert axo("sandbox", "status", "--name", "default", "-o", "json").json[0]["ready"] is True
    found = axo("sandbox", "status", "--name", "default")
    assert found.code == 1
    assert "does not run" in found.out


def test_options_that_are_not_given_are_those_of_the_sandbox(
    axo: Axo, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    planfile.save(Plan(name="default", nodes=5, family=Family.IPV6), sandbox.layout)
    asked: list[Plan] = []

    def up(plan: Plan, *_: object, **__: object) -> None:
        asked.append(plan)
        raise SandboxError("enough")

    monkeypatch.setattr("axoneme.sandbox.lifecycle.up", up)
    axo("sandbox", "up")
    axo("sandbox", "up", "--nodes", "3")
    axo("sandbox", "up", "--name", "new", "--routing", "native")
    assert asked == [
        Plan(name="default", nodes=5, family=Family.IPV6),
        Plan(name="default", nodes=3, family=Family.IPV6),
        Plan(name="new", routing=Routing.NATIVE),
    ]


def test_without_a_sandbox(axo: Axo, sandbox: Sandbox) -> None:
    assert axo("status", "--sandbox", "other").code == 1


# ---- pods ------------------------------------------------------------------------------------------------


@contextmanager
def desk(sandbox: Sandbox) -> Iterator[list[Params]]:
    asked: list[Params] = []

    async def read(params: Params) -> AsyncIterator[object]:
        asked.append(params)
        if params.pod == "gone":
            raise RpcError(NOT_FOUND, "there is no pod gone in namespace default")
        yield "one\n"
        yield "two\n"

    def enter(params: Params) -> object:
        raise RpcError(NOT_FOUND, f"there is no pod {params.pod} in namespace {params.namespace}")

    with serving(sandbox.layout.supervisor_socket, {"pod.exec": enter}, {"pod.logs": read}):
        yield asked


def test_logs(axo: Axo, sandbox: Sandbox) -> None:
    with desk(sandbox) as asked:
        assert axo("logs", "web", "-c", "main", "--tail", "5", "-n", "shop").out == "one\ntwo\n"
        assert axo("logs", "gone").code == 1
    wish = asked[0]
    assert (wish.namespace, wish.pod, wish.container, wish.tail) == ("shop", "web", "main", 5)
    assert asked[1].tail is None


def test_logs_of_a_workload_are_those_of_a_pod_of_it(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.put(
        {
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web-1"}}},
        }
    )
    with desk(sandbox) as asked:
        assert "has no pod" in axo("logs", "deploy/web").err
        sandbox.pod("web-1")
        sandbox.pod("db-1")
        assert axo("logs", "deploy/web").code == 0
    assert [params.pod for params in asked] == ["web-1"]


def test_exec_in_a_pod_that_is_not_there(axo: Axo, sandbox: Sandbox) -> None:
    with desk(sandbox):
        found = axo("exec", "nobody", "--", "ls", "-l")
    assert found.code == 1
    assert "there is no pod nobody" in found.err
    assert axo("exec", "nobody").code == 2


@pytest.mark.parametrize("code", [0, 7, 137])
def test_exec_ends_as_the_command_does(
    axo: Axo, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    called: list[object] = []

    def exec_in_pod(*arguments: object, **options: object) -> int:
        called.append((arguments, options))
        return code

    monkeypatch.setattr("axoneme.sandbox.execute.exec_in_pod", exec_in_pod)
    assert axo("exec", "-i", "web", "-c", "side", "-n", "shop", "--", "sh", "-c", "exit 7").code == code
    assert called == [
        (
            ("default", "shop", "web", ("sh", "-c", "exit 7"), False),
            {"stdin": True, "container": "side"},
        )
    ]


# ---- the rest --------------------------------------------------------------------------------------------


def test_version(axo: Axo) -> None:
    assert axo("version").lines[0] == f"axoneme {__version__}"
    assert axo("version", "-o", "json").json["axoneme"] == __version__


def test_sandbox_up_looks_at_the_manifests_first(axo: Axo, sandbox: Sandbox) -> None:
    found = axo("sandbox", "up", "--name", "new", "-f", "-", stdin="kind: Pod\napiVersion: v1\n")
    assert found.code == 1
    assert "metadata" in found.err
    assert not sandbox.layout.directory.with_name("new").exists()
    assert axo("sandbox", "up", "--nodes", "0").code == 2
    assert axo("sandbox", "up", "--family", "ipv5").code == 2


def test_every_command_has_help(axo: Axo) -> None:
    from axoneme.cli.root import COMMANDS

    names = [name for section in COMMANDS.values() for name in section]
    for words in [[], *([name] for name in names), ["sandbox", "up"], ["policy", "why"], ["flows", "serve"]]:
        found = axo(*words, "--help")
        assert (found.code, found.err) == (0, ""), words
        assert "Usage: axo" in found.out
