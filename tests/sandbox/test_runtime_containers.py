"""Containers that are processes of this machine: what they live in, how they end, and how to join them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime import Document, Runtime, addresses, container, ready, sandbox

from axoneme.rpc import Client
from axoneme.sandbox import execute
from axoneme.sandbox.client import Verdict
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.report import LogsWish

OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: shell, labels: {tier: front}}
spec:
  hostAliases: [{ip: 192.0.2.1, hostnames: [far.example]}]
  containers:
  - name: shell
    image: nowhere.example/shell
    command: [sh, -c]
    args: ["echo 'started as $(NAME) with $$(NOT)' on $NODE; trap 'echo told to go; exit 0' TERM; while :; do sleep 0.05; done"]
    workingDir: /tmp
    env:
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
---
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  initContainers: [{name: wait, image: busybox, command: [sh, -c, "exit 1"]}]
  containers: [{name: echo, image: nowhere.example/echo, ports: [{containerPort: 80}]}]
"""


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with sandbox("containers", OBJECTS) as made:
        yield made


def run(runtime: Runtime, pod: str, *argv: str) -> tuple[int, str]:
    """A command in a pod as another process would run it, with its code and what it wrote."""
    program = (
        "import sys; from axoneme.sandbox.execute import exec_in_pod; "
        "sys.exit(exec_in_pod(sys.argv[1], 'default', sys.argv[2], sys.argv[3:]))"
    )
    source = str(Path(execute.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, runtime.name, pod, *argv],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"},
        input="not for the pod",
    )
    return done.returncode, done.stdout + done.stderr


def logs(runtime: Runtime, pod: str) -> str:
    wish = LogsWish(namespace="default", pod=pod)
    return "".join(Client(runtime.layout.supervisor_socket).stream("pod.logs", wish))


def test_a_command_gets_its_environment_and_its_output_is_kept(runtime: Runtime) -> None:
    node = runtime.pod("shell")["spec"]["nodeName"]
    text = f"started as shell with $(NOT) on {node}\n"
    runtime.wait(lambda: logs(runtime, "shell") == text, f"the log says {text!r}")


def test_a_process_lives_in_namespaces_of_its_pod(runtime: Runtime) -> None:
    own = addresses(runtime.pod("shell"))
    code, said = run(
        runtime, "shell", "sh", "-c", "hostname; pwd; echo $ADDRESS $TIER; cat /proc/1/comm /etc/hosts"
    )
    assert code == 0, said
    assert said.splitlines()[:4] == ["shell", "/tmp", f"{own[0]} front", "sh"]
    assert f"{own[0]} shell" in said
    assert "192.0.2.1 far.example" in said
    code, said = run(runtime, "shell", "ip", "-o", "addr", "show", "dev", "eth0")
    assert all(f"{address}/" in said for address in own), said


def test_a_command_in_an_echo_pod_gets_its_network_and_name(runtime: Runtime) -> None:
    own = addresses(runtime.pod("echo"))
    code, said = run(
        runtime, "echo", "sh", "-c", "hostname; ip -o addr show dev eth0; cat /etc/resolv.conf; cat"
    )
    assert code == 0, said
    assert said.startswith("echo\n")
    assert f"{own[0]}/" in said
    assert "search default.svc.cluster.local" in said
    assert "not for the pod" not in said


def test_no_process_of_a_pod_sees_the_files_of_the_sandbox(runtime: Runtime) -> None:
    for pod in ("shell", "echo"):
        code, said = run(runtime, pod, "ls", str(runtime.layout.directory))
        assert (code, said) == (0, ""), pod


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$; true"], 137),
        (["no-such-program"], 127),
        (["/etc/hostname"], 126),
    ],
)
@pytest.mark.parametrize("pod", ["shell", "echo"])
def test_exec_ends_as_the_command_ended(runtime: Runtime, pod: str, argv: list[str], code: int) -> None:
    if pod == "echo" and code == 137:
        argv = ["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"]  # process 1 of a namespace cannot kill itself
    assert run(runtime, pod, *argv)[0] == code


def test_exec_says_what_is_wrong(runtime: Runtime) -> None:
    with pytest.raises(SandboxError, match="there is no pod nobody in namespace default"):
        execute.exec_in_pod(runtime.name, "default", "nobody", ["true"])
    with pytest.raises(SandboxError, match="no container 'side'; it has: echo"):
        execute.exec_in_pod(runtime.name, "default", "echo", ["true"], container="side")


def test_init_containers_of_an_echo_pod_count_as_done(runtime: Runtime) -> None:
    status = runtime.pod("echo")["status"]
    assert status["phase"] == "Running"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_a_deleted_pod_is_told_to_go_and_leaves_nothing(runtime: Runtime) -> None:
    pod = runtime.pod("shell")
    directory = runtime.layout.pods / pod["metadata"]["uid"]
    namespace = runtime.namespace(pod)
    log = directory / "shell.log"
    with log.open() as kept:
        runtime.change(
            "Pod", "shell", lambda pod: pod["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
        )
        runtime.wait(lambda: runtime.get("Pod", "shell") is None, "the pod is gone", timeout=5)
        assert kept.read().endswith("told to go\n")
    assert not directory.exists()
    assert not namespace.exists()
    uid = pod["metadata"]["uid"]
    assert not list(Path("/sys/fs/cgroup").rglob(f"*{uid}*"))


def test_process_one_without_a_handler_goes_at_once(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec: {containers: [{name: deaf, image: x, command: [sleep, "1000"]}]}
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "deaf")), "the pod is ready")
    runtime.change(
        "Pod", "deaf", lambda pod: pod["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
    )
    runtime.wait(lambda: runtime.get("Pod", "deaf") is None, "the pod is gone, long before 30 s", timeout=5)


def test_init_containers_run_in_order_before_the_others(runtime: Runtime, tmp_path: Path) -> None:
    runtime.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: ordered}}
spec:
  initContainers:
  - {{name: first, image: x, command: [sh, -c, "echo first >> {tmp_path}/order"]}}
  - {{name: absent, image: x, command: [no-such-program]}}
  - {{name: second, image: x, command: [sh, -c, "echo second >> {tmp_path}/order"]}}
  containers:
  - {{name: main, image: x, command: [sh, -c, "echo main >> {tmp_path}/order; sleep 1000"]}}
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "ordered")), "the pod is ready")
    order = tmp_path / "order"
    runtime.wait(lambda: order.read_text().split() == ["first", "second", "main"], "the order is right")
    runtime.delete("Pod", "ordered")
    runtime.wait(lambda: runtime.get("Pod", "ordered") is None, "the pod is gone")


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [("Never", 0, "Succeeded", 0), ("Never", 3, "Failed", 0), ("OnFailure", 0, "Succeeded", 0)],
)
def test_a_finished_pod_keeps_its_code_and_gives_its_address_back(
    runtime: Runtime, policy: str, code: int, phase: str, restarts: int
) -> None:
    runtime.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: brief}}
spec:
  restartPolicy: {policy}
  containers: [{{name: main, image: x, command: [sh, -c, "echo was here; exit {code}"]}}]
""")

    def finished() -> Document | None:
        pod = runtime.get("Pod", "brief")
        return pod if pod and pod.get("status", {}).get("phase") in {"Succeeded", "Failed"} else None

    pod = runtime.wait(finished, "the pod finishes")
    assert pod["status"]["phase"] == phase
    assert container(pod)["state"]["terminated"]["exitCode"] == code
    assert container(pod)["restartCount"] == restarts
    assert logs(runtime, "brief") == "was here\n"
    runtime.wait(lambda: not runtime.namespace(pod).exists(), "its namespace is gone")
    runtime.delete("Pod", "brief")
    directory = runtime.layout.pods / pod["metadata"]["uid"]
    runtime.wait(lambda: not directory.exists(), "its files are gone")


def test_a_container_that_ends_is_started_again_at_once_then_backs_off(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: crashing}
spec: {containers: [{name: main, image: x, command: [sh, -c, "exit 5"]}]}
""")

    def backing_off() -> Document | None:
        pod = runtime.get("Pod", "crashing")
        found = container(pod) if pod and pod.get("status", {}).get("containerStatuses") else None
        waiting = found["state"].get("waiting", {}) if found else {}
        return found if waiting.get("reason") == "CrashLoopBackOff" else None

    status = runtime.wait(backing_off, "it backs off")
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 5
    assert not ready(runtime.pod("crashing"))
    runtime.delete("Pod", "crashing")


def test_probes_decide_readiness_and_life(runtime: Runtime, tmp_path: Path) -> None:
    runtime.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: probed}}
spec:
  containers:
  - name: main
    image: x
    command: [sleep, "1000"]
    readinessProbe: {{exec: {{command: [test, -e, {tmp_path}/ready]}}, periodSeconds: 0.1, failureThreshold: 1}}
    livenessProbe: {{exec: {{command: [test, "!", -e, {tmp_path}/dead]}}, periodSeconds: 0.1}}
""")
    running = lambda: (runtime.get("Pod", "probed") or {}).get("status", {}).get("phase") == "Running"
    runtime.wait(running, "the pod runs")
    assert not ready(runtime.pod("probed"))
    (tmp_path / "ready").touch()
    runtime.wait(lambda: ready(runtime.pod("probed")), "the pod is ready")
    (tmp_path / "ready").unlink()
    runtime.wait(lambda: not ready(runtime.pod("probed")), "the pod is not ready any more")
    (tmp_path / "dead").touch()
    runtime.wait(lambda: container(runtime.pod("probed"))["restartCount"] > 0, "it is started again")
    (tmp_path / "dead").unlink()
    runtime.delete("Pod", "probed")


def test_a_real_server_is_probed_over_http_and_served_beside_an_echo(
    runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "healthy").touch()
    runtime.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: mixed}}
spec:
  containers:
  - name: real
    image: x
    command: [{sys.executable}, -m, http.server, "8000", --directory, {tmp_path}, --bind, "::"]
    readinessProbe: {{httpGet: {{path: /healthy, port: 8000}}, periodSeconds: 1}}
    ports: [{{containerPort: 8000}}]
  - {{name: stand-in, image: x, ports: [{{containerPort: 9090}}]}}
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "mixed")), "the pod is ready")
    address, source = addresses(runtime.pod("mixed"))[0], runtime.namespace("echo")
    real = runtime.probe(source, address, 8000)
    assert (real.verdict, real.answer) == (Verdict.CONNECTED, None)
    assert runtime.probe(source, address, 9090).answer is not None
    runtime.delete("Pod", "mixed")


def test_a_pod_in_the_network_of_its_node(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: agentlike}
spec:
  hostNetwork: true
  nodeName: node2
  containers: [{name: main, image: x, ports: [{containerPort: 9999}]}]
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "agentlike")), "the pod is ready")
    assert addresses(runtime.pod("agentlike")) == ["172.31.0.2", "fd00:a0::2"]
    result = runtime.probe(runtime.layout.namespace("node1"), "172.31.0.2", 9999)
    assert result.answer is not None
    runtime.delete("Pod", "agentlike")
    runtime.wait(
        lambda: (
            runtime.probe(runtime.layout.namespace("node1"), "172.31.0.2", 9999).verdict is Verdict.REFUSED
        ),
        "its port is closed",
    )


def test_a_container_ends_though_a_probe_in_it_was_cut_off(runtime: Runtime, tmp_path: Path) -> None:
    runtime.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: slow}}
spec:
  containers:
  - name: main
    image: x
    command: [sleep, "1000"]
    readinessProbe: {{exec: {{command: [sleep, "500"]}}, timeoutSeconds: 400}}
    livenessProbe: {{exec: {{command: [test, "!", -e, {tmp_path}/dead]}}, periodSeconds: 0.1, failureThreshold: 1}}
""")
    runtime.wait(
        lambda: (runtime.get("Pod", "slow") or {}).get("status", {}).get("phase") == "Running", "it runs"
    )
    (tmp_path / "dead").touch()
    runtime.wait(lambda: container(runtime.pod("slow"))["restartCount"] > 0, "it is started again", timeout=5)
    runtime.delete("Pod", "slow")
