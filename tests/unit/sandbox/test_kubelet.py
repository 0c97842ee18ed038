"""The kubelet's pure parts: what a container is, its ports, its probes' timing, its pod's status."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.sandbox.kubelet import network, probes, programs
from axoneme.sandbox.kubelet.backoff import Backoff
from axoneme.sandbox.kubelet.echoports import echo_ports
from axoneme.sandbox.kubelet.goodbye import pause
from axoneme.sandbox.kubelet.podstatus import ContainerView, PodView, compose
from axoneme.sandbox.kubelet.probes import Health
from axoneme.sandbox.kubelet.probing import ProbeFailed
from axoneme.sandbox.kubelet.resolving import NameServers, nsswitch_conf, resolv_conf
from axoneme.sandbox.objects import Container, Pod, Probe, Service, read
from axoneme.sandbox.wildcard import Port


def pod(*containers: dict[str, object], **spec: object) -> Pod:
    metadata = {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "a"}}
    return read(msgspec.json.encode({"metadata": metadata, "spec": {"containers": containers, **spec}}), Pod)


def service(*ports: dict[str, object], namespace: str = "n", **selector: str) -> Service:
    spec = {"selector": selector, "ports": ports}
    return read(
        msgspec.json.encode({"metadata": {"name": "s", "namespace": namespace}, "spec": spec}), Service
    )


# ---- programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(C) $A ${A} $", "$(C) $A ${A} $"),
    ],
)
def test_variables_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert programs.expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text())
def test_text_without_a_dollar_stays(text: str) -> None:
    assert programs.expand(text.replace("$", ""), {}) == text.replace("$", "")


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({"command": ["here"]}, True),
        ({"args": ["here"]}, True),
        ({"command": ["absent"], "args": ["here"]}, False),
        ({}, False),
    ],
)
def test_a_container_is_a_program_where_its_command_exists(
    container: dict[str, object], expected: bool
) -> None:
    parsed = msgspec.convert({"name": "c", **container}, Container)
    assert programs.is_program(parsed, lambda name: name == "here") is expected


def test_environment_takes_earlier_variables_and_fields_of_the_pod() -> None:
    wanted = pod(
        {
            "name": "c",
            "command": ["run", "$(BOTH)"],
            "env": [
                {"name": "A", "value": "a"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "BOTH", "value": "$(A) $(APP)"},
            ],
        }
    )
    made = programs.program(wanted, wanted.spec.containers[0], programs.Facts("node1", "h", ["10.0.0.1"]))
    assert made.argv == ("run", "a a")
    assert made.environment["IP"] == "10.0.0.1"


# ---- ports -----------------------------------------------------------------------------------------


def test_echo_ports_are_all_that_the_manifests_name() -> None:
    wanted = pod(
        {
            "name": "c",
            "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}],
            "livenessProbe": {"httpGet": {"port": 9000}},
            "readinessProbe": {"exec": {"command": ["x"]}},
        }
    )
    services = [
        service({"port": 1, "targetPort": "http"}, {"port": 2}, {"port": 3, "targetPort": "none"}, app="a"),
        service({"port": 4, "targetPort": 5000, "protocol": "UDP"}, app="a"),
        service({"port": 6}, app="other"),
        service({"port": 7}),
        service({"port": 8}, namespace="elsewhere", app="a"),
    ]
    assert echo_ports(wanted, wanted.spec.containers, services) == {
        Port("TCP", 80),
        Port("UDP", 53),
        Port("TCP", 9000),
        Port("TCP", 2),
        Port("UDP", 5000),
    }


def test_beside_a_real_process_only_the_echo_containers_own_ports_are_served() -> None:
    wanted = pod(
        {"name": "real", "ports": [{"containerPort": 1}]}, {"name": "echo", "ports": [{"containerPort": 2}]}
    )
    ports = echo_ports(wanted, wanted.spec.containers[1:], [service({"port": 3}, app="a")])
    assert ports == {Port("TCP", 2)}


# ---- probes ----------------------------------------------------------------------------------------


class Script:
    """Answers of a probed container by time, on a clock that only sleeping moves."""

    def __init__(self, fails: Callable[[str, float], bool]) -> None:
        self.now = 0.0
        self.attempts: list[tuple[str, float]] = []
        self.changes: list[tuple[float, bool, bool]] = []
        self._fails = fails

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)
        if self.now > 1000:
            await asyncio.Event().wait()

    async def attempt(self, probe: Probe) -> None:
        kind = "/".join(probe.exec.command) if probe.exec else ""
        self.attempts.append((kind, self.now))
        if self._fails(kind, self.now):
            raise ProbeFailed("no")

    async def run(self, delays: bool = True, **specs: dict[str, object]) -> str:
        fields = {f"{kind}Probe": {"exec": {"command": [kind]}, **spec} for kind, spec in specs.items()}
        container = msgspec.convert({"name": "c", **fields}, Container)
        health = Health.at_start(container)
        try:
            async with asyncio.timeout(5):
                return await probes.watch(
                    container,
                    health,
                    self.attempt,
                    lambda: self.changes.append((self.now, health.started, health.ready)),
                    delays=delays,
                    sleep=self.sleep,
                    clock=lambda: self.now,
                )
        except TimeoutError:
            return ""


async def until(script: Script, **specs: dict[str, object]) -> None:
    """Lets a script without end run to the end of its time."""
    task = asyncio.create_task(script.run(**specs))  # type: ignore[arg-type]
    while script.now <= 1000:
        await asyncio.sleep(0)
    task.cancel()


async def test_readiness_is_tried_soon_until_it_succeeds_and_then_by_its_period() -> None:
    script = Script(lambda kind, now: now < 5)
    await until(script, readiness={"periodSeconds": 100})
    first = [now for _, now in script.attempts if now < 7]
    assert all(later - earlier <= 1.0 for earlier, later in itertools.pairwise(first))
    (ready_at,) = [now for now, _, ready in script.changes if ready]
    assert 5 <= ready_at <= 6
    assert len([now for _, now in script.attempts if now > 7]) <= 10


async def test_readiness_is_lost_after_the_threshold_and_comes_back() -> None:
    script = Script(lambda kind, now: 100 <= now < 200)
    await until(script, readiness={"periodSeconds": 10, "failureThreshold": 3})
    assert [(now, ready) for now, _, ready in script.changes] == [(0, True), (120, False), (200, True)]


async def test_liveness_gives_up_after_failures_in_a_row() -> None:
    script = Script(lambda kind, now: now in {10, 20} or now >= 50)
    assert await script.run(liveness={"periodSeconds": 10}) == "liveness probe failed: no"
    assert script.now == 70


async def test_the_startup_probe_holds_the_others_back() -> None:
    script = Script(lambda kind, now: kind == "startup" and now < 7)
    await until(script, startup={"periodSeconds": 5}, liveness={"periodSeconds": 5}, readiness={})
    assert {kind for kind, now in script.attempts if now < 7} == {"startup"}
    assert script.changes[-1][1:] == (True, True)


async def test_the_startup_probes_patience_is_period_times_threshold() -> None:
    script = Script(lambda kind, now: True)
    assert "startup probe failed" in await script.run(startup={"periodSeconds": 5, "failureThreshold": 4})
    assert 20 <= script.now <= 21


@pytest.mark.parametrize(("delays", "first"), [(True, 30), (False, 0)])
async def test_initial_delays_are_kept_for_processes_only(delays: bool, first: float) -> None:
    script = Script(lambda kind, now: True)
    await script.run(delays, liveness={"initialDelaySeconds": 30, "failureThreshold": 1})
    assert script.attempts[0][1] == first


def test_backoff_doubles_up_to_five_minutes_and_forgives() -> None:
    backoff = Backoff()
    assert [backoff.pause(1.0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert [backoff.pause(601.0), backoff.pause(1.0)] == [0, 10]


# ---- status ----------------------------------------------------------------------------------------


def view(state: str) -> ContainerView:
    made = ContainerView(Container(name=state))
    if state != "waiting":
        made.start("id", "t0")
        made.ready = state == "ready"
    if state in {"succeeded", "failed", "crashed"}:
        made.end({"succeeded": 0}.get(state, 3), "t1")
        made.settled = state != "crashed"
    if state == "crashed":
        made.wait("CrashLoopBackOff")
    return made


@pytest.mark.parametrize(
    ("states", "phase", "ready"),
    [
        (["waiting"], "Pending", False),
        (["ready"], "Running", True),
        (["ready", "running"], "Running", False),
        (["ready", "waiting"], "Pending", False),
        (["ready", "succeeded"], "Running", False),
        (["succeeded", "succeeded"], "Succeeded", False),
        (["succeeded", "failed"], "Failed", False),
        (["crashed"], "Running", False),
    ],
)
def test_phase_and_readiness_follow_from_the_containers(
    states: Sequence[str], phase: str, ready: bool
) -> None:
    made = compose(
        pod(),
        PodView(["h"], "t0", ["a", "b"], initialized=True, containers=[view(state) for state in states]),
        "t2",
    )
    assert made.phase == phase
    conditions = {each.type: each.status for each in made.conditions}
    assert conditions["Ready"] == conditions["ContainersReady"] == str(ready)
    assert (made.pod_ip, [each.ip for each in made.pod_ips], made.host_ip) == ("a", ["a", "b"], "h")


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    state = PodView(["h"], "t0", ["a"], initialized=True, containers=[view("ready")])
    first = compose(pod(), state, "t1")
    before = read(msgspec.json.encode({"metadata": {"name": "p"}, "status": first}), Pod)
    state.containers = [view("running")]
    times = {each.type: each.last_transition_time for each in compose(before, state, "t2").conditions}
    assert (times["PodScheduled"], times["Ready"]) == ("t1", "t2")


def test_hosts() -> None:
    aliases = [{"ip": "192.0.2.1", "hostnames": ["x", "y"]}]
    wanted = pod(hostname="db-0", subdomain="db", hostAliases=aliases)
    hosts = network.hosts_file(wanted, ("10.0.0.1", "fd00::1")).splitlines()
    assert "10.0.0.1 db-0.db.n.svc.cluster.local db-0" in hosts
    assert "192.0.2.1 x y" in hosts


CLUSTER = ("nameserver 10.96.0.10", "search n.svc.cluster.local svc.cluster.local cluster.local")
CONFIG = {
    "nameservers": ["192.0.2.53", "203.0.113.10"],
    "searches": ["more.example"],
    "options": [{"name": "ndots", "value": "2"}, {"name": "use-vc"}],
}


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        ({}, (*CLUSTER, "options ndots:5")),
        ({"hostNetwork": True}, ("nameserver 203.0.113.10", "nameserver 2001:db8:a::10")),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            (*CLUSTER, "options ndots:5"),
        ),
        ({"dnsPolicy": "Default"}, ("nameserver 203.0.113.10", "nameserver 2001:db8:a::10")),
        (
            {"dnsPolicy": "None", "dnsConfig": CONFIG},
            (
                "nameserver 192.0.2.53",
                "nameserver 203.0.113.10",
                "search more.example",
                "options ndots:2 use-vc",
            ),
        ),
        (
            {"dnsConfig": CONFIG},
            (
                CLUSTER[0],
                "nameserver 192.0.2.53",
                "nameserver 203.0.113.10",
                f"{CLUSTER[1]} more.example",
                "options ndots:2 use-vc",
            ),
        ),
        (
            {"dnsPolicy": "Default", "dnsConfig": CONFIG},
            (
                "nameserver 203.0.113.10",
                "nameserver 2001:db8:a::10",
                "nameserver 192.0.2.53",  # and no fourth, nor one twice
                "search more.example",
                "options ndots:2 use-vc",
            ),
        ),
    ],
)
def test_resolv_conf(spec: dict[str, object], lines: tuple[str, ...]) -> None:
    known = NameServers(("10.96.0.10", "fd00:10:96::a"), ("203.0.113.10", "2001:db8:a::10"))
    assert resolv_conf(pod(**spec), known) == "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("machine", "ours"),
    [
        ("passwd: files\nhosts: mdns4 resolve dns\n", "passwd: files\nhosts: files dns\n"),
        ("passwd: files", "passwd: files\nhosts: files dns\n"),
    ],
)
def test_names_of_hosts_come_from_the_pods_own_files(machine: str, ours: str) -> None:
    assert nsswitch_conf(machine) == ours


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        (["sleep", "15"], 15),
        (["/bin/sleep", "0.5"], 0.5),
        (["/bin/sh", "-c", "sleep 20"], 20),
        (["sh", "-c", "sleep 20; rm -rf /data"], 0),
        (["nginx", "-s", "quit"], 0),
        ([], 0),
    ],
)
def test_a_command_that_only_sleeps_is_understood(command: list[str], seconds: float) -> None:
    assert pause(command) == seconds
