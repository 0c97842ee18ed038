"""Sandboxes come up, survive what dies in them, and leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from runtime import Runtime, addresses, container, plan, populate, ready, sandbox

from axoneme.net import netns
from axoneme.sandbox import cgroups, lifecycle
from axoneme.sandbox.client import Verdict
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.plan import Family
from axoneme.sandbox.processes import ProcessId

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec: {containers: [{name: main, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: program}
spec:
  initContainers: [{name: once, image: x, command: [sh, -c, "echo once >> $FILE"], env: [{name: FILE, value: "/dev/null"}]}]
  containers: [{name: main, image: x, command: [sleep, "1000"]}]
"""


def kill(pid: int) -> None:
    """Kills a process of a sandbox and waits for it to be gone; it may be a child of this process."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        select.select([pidfd], [], [], 5)
    os.close(pidfd)


def supervisor(runtime: Runtime) -> int:
    return int(runtime.layout.supervisor_pid.read_text())


def recorded(runtime: Runtime, file: str) -> int:
    path = runtime.layout.directory / file
    return msgspec.json.decode(path.read_bytes(), type=ProcessId).pid


def traces(name: str) -> list[str]:
    """Everything outside of files that a sandbox of this name could leave."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{name}" in line]
    found += [str(path) for path in cgroups.hierarchy().glob(f"axoneme/{name}")]
    found += [str(path) for path in Path("/run/axoneme/sandbox").glob(name)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            dead = ") Z " in (process / "stat").read_text()  # for whoever has started it to bury
            if not dead and f"/axoneme/{name}/" in (process / "cgroup").read_text():
                found.append(f"process {process.name}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with sandbox("life", PODS) as made:
        yield made


def test_down_removes_everything_of_this_sandbox_and_nothing_of_another(runtime: Runtime) -> None:
    with sandbox("life-2", PODS) as other:
        assert {runtime.name, other.name} <= set(lifecycle.names())
        # The same addresses in both, and no way from one to the other.
        assert addresses(runtime.pod("echo")) == addresses(other.pod("echo"))
        removed = lifecycle.down(runtime.name)
        assert (removed.pods, removed.directory) == (2, True)
        assert removed.processes >= 7
        assert not traces(runtime.name)
        assert lifecycle.status(other.name).ready
        assert other.probe(other.outside, addresses(other.pod("echo"))[0], 80).answer
    assert not traces(other.name)
    assert not lifecycle.down(other.name).anything


def test_a_supervisor_that_is_started_again_adopts_what_runs(tmp_path: Path) -> None:
    with sandbox("adopt", PODS.replace("/dev/null", str(tmp_path / "init"))) as runtime:
        _kill_and_compare(runtime)
    assert (tmp_path / "init").read_text() == "once\n", "init containers run once"


def _kill_and_compare(runtime: Runtime) -> None:
    before = {name: runtime.pod(name) for name in ("echo", "program")}
    agent, echo = recorded(runtime, "nodes/node1/agent.pid"), recorded(runtime, "echo.pid")
    address = addresses(before["echo"])[0]
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: doomed}
spec: {containers: [{name: main, image: x, command: [sleep, "1000"]}]}
""")
    doomed = runtime.wait(
        lambda: (_pod := runtime.get("Pod", "doomed")) if ready(runtime.get("Pod", "doomed")) else None,
        "a pod",
    )
    with netns.open_socket(runtime.namespace("program"), socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect((address, 80))
        connection.sendall(b"first\n")
        assert b'"pod":"echo"' in connection.recv(65536)
        kill(supervisor(runtime))
        runtime.delete("Pod", "doomed")  # nobody is there to hear of it
        with pytest.raises(SandboxError, match="does not run"):
            lifecycle.status(runtime.name)
        report = runtime.up()
        assert report.ready
        connection.sendall(b"second\n")
        while b"second\n" not in connection.recv(65536):
            pass
    after = {name: runtime.pod(name) for name in ("echo", "program")}
    for name in before:
        assert addresses(after[name]) == addresses(before[name])
        assert container(after[name])["restartCount"] == 0
        assert after[name]["status"]["startTime"] == before[name]["status"]["startTime"]
    assert container(after["program"])["containerID"] == container(before["program"])["containerID"]
    assert (agent, echo) == (recorded(runtime, "nodes/node1/agent.pid"), recorded(runtime, "echo.pid"))
    assert runtime.probe(runtime.outside, address, 80).answer
    runtime.wait(
        lambda: not (runtime.layout.pods / doomed["metadata"]["uid"]).exists(), "the deleted pod goes"
    )
    # What it has adopted it also ends.
    process = int(container(after["program"])["containerID"].removeprefix("process://"))
    runtime.delete("Pod", "program")
    runtime.wait(lambda: not Path(f"/proc/{process}").exists(), "the adopted process is ended")


@pytest.mark.parametrize("what", ["agent", "flows"])
def test_a_process_of_a_node_that_dies_is_started_again(runtime: Runtime, what: str) -> None:
    file = f"nodes/node2/{what}.pid"
    first = recorded(runtime, file)
    kill(first)
    runtime.wait(lambda: recorded(runtime, file) != first, f"another {what}")
    report = runtime.settle()
    assert sum(node.restarts for node in report.nodes) == 1


def test_down_works_without_a_supervisor(runtime: Runtime) -> None:
    kill(supervisor(runtime))
    assert lifecycle.down(runtime.name).anything
    assert not traces(runtime.name)


def test_down_works_when_everything_has_been_killed(runtime: Runtime) -> None:
    cgroups.kill(cgroups.Groups(runtime.name).root)
    assert lifecycle.down(runtime.name).directory
    assert not traces(runtime.name)


def _no_plan(runtime: Runtime) -> None:
    runtime.layout.plan.unlink()


def _no_mount(runtime: Runtime) -> None:
    """As if `up` had been killed right after it made the directory."""
    cgroups.kill(cgroups.Groups(runtime.name).root)
    lifecycle.down(runtime.name)
    runtime.layout.directory.mkdir()
    (runtime.layout.directory / "netns").mkdir()
    netns.make(runtime.layout.directory / "netns" / "half", netns.ENDPOINT_SYSCTLS)


@pytest.mark.parametrize("break_it", [_no_plan, _no_mount])
def test_half_a_sandbox_is_refused_by_up_and_removed_by_down(
    runtime: Runtime, break_it: Callable[[Runtime], None]
) -> None:
    break_it(runtime)
    with pytest.raises(SandboxError, match=f"axo sandbox down --name {runtime.name}"):
        runtime.up()
    assert lifecycle.down(runtime.name).directory
    assert not traces(runtime.name)


def test_up_fills_a_sandbox_of_the_same_plan_and_refuses_another(runtime: Runtime) -> None:
    report = runtime.up(PODS.replace("name: echo", "name: second").replace("name: program", "name: third"))
    assert (report.pods, report.ready_pods) == (4, 4)
    with pytest.raises(SandboxError, match="exists already, with 2 nodes, overlay routing and family dual"):
        lifecycle.up(plan("life", nodes=3))


def test_up_says_what_it_waits_for_and_leaves_it_to_be_looked_at() -> None:
    wanted = plan("stuck")
    try:
        with pytest.raises(lifecycle.NotReady, match="node selector disk=ssd") as caught:
            lifecycle.up(
                wanted,
                populate("""
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec: {nodeSelector: {disk: ssd}, containers: [{name: main, image: x}]}
"""),
                deadline=2.0,
            )
        assert caught.value.report.waiting
        assert lifecycle.status(wanted.name).pods == 1
    finally:
        lifecycle.down(wanted.name)


def test_up_that_fails_leaves_nothing() -> None:
    wanted = plan("failing")

    async def fail(_: object) -> int:
        raise SandboxError("these objects cannot be")

    with pytest.raises(SandboxError, match="cannot be"):
        lifecycle.up(wanted, fail)
    assert not traces(wanted.name)


@pytest.mark.parametrize("family", [Family.IPV4, Family.IPV6])
def test_one_family_alone(family: Family) -> None:
    with sandbox(f"only-{family.value}", PODS, family=family) as made:
        (address,) = addresses(made.pod("echo"))
        assert (":" in address) == family.ipv6
        assert made.probe(made.namespace("program"), address, 80).answer
        for world in made.plan.world_addresses():
            assert made.probe(made.layout.namespace("node1"), world, 80).verdict is Verdict.CONNECTED


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "-dash", "x" * 33, "..", "under_score"])
def test_names_are_checked_before_anything_is_touched(name: str) -> None:
    with pytest.raises(SandboxError, match="not usable"):
        lifecycle.down(name)


def test_status_of_no_sandbox_says_how_to_make_one() -> None:
    with pytest.raises(SandboxError, match="there is no sandbox test-none; axo sandbox up makes one"):
        lifecycle.status("test-none")
