"""A cluster that is broken on purpose, in one place after another: the doctor names the place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime import Live, live

from axoneme.agent.config import load
from axoneme.agent.healthendpoint import LINK
from axoneme.datapath import attach, bpf, clsact, tcx
from axoneme.datapath.features import Feature, has
from axoneme.datapath.uapi import ProgramType
from axoneme.doctor.examine import Patient, examine
from axoneme.doctor.findings import Severity
from axoneme.net import kernel, netns, pods
from axoneme.net.commands import ip, show
from axoneme.net.node import OVERLAY

PODS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: server}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      containers: [{name: main, image: echo, ports: [{containerPort: 7000}]}]
"""


#: r0 = TCX_NEXT; exit
PASS_ON = bytes.fromhex("b7000000ffffffff9500000000000000")


class Ward:
    """The nodes under examination."""

    def __init__(self, cluster: Live) -> None:
        self.cluster = cluster
        self.names = [node.name for node in cluster.plan.all_nodes()]

    def namespace(self, node: str) -> Path:
        return self.cluster.layout.namespace(node)

    def bpffs(self, node: str) -> Path:
        return self.cluster.layout.node(node).bpffs

    def run(self, node: str, *command: str) -> None:
        subprocess.run(["nsenter", f"--net={self.namespace(node)}", "--", *command], check=True)

    def findings(self) -> dict[tuple[str, str], tuple[Severity, str]]:
        """By node and check: how bad, and which hop."""
        patients = {
            name: Patient(load(self.cluster.layout.node(name).config), self.namespace(name))
            for name in self.names
        }
        return {
            (each.node, each.check): (each.finding.severity, each.finding.hop)
            for each in examine(patients).findings
        }

    def recovered(self) -> None:
        self.cluster.wait(lambda: self.findings() == {}, "the doctor finds nothing any more", timeout=30)

    def restart_agents(self) -> None:
        dead = [self.cluster.agent_pid(name) for name in self.names]
        for pid in dead:
            os.kill(pid, signal.SIGKILL)

        def ready() -> bool:
            try:
                found = [agent.call("status") for agent in self.cluster.agents()]
            except Exception:
                return False
            return all(each["phase"] == "ready" and each["pid"] not in dead for each in found)

        self.cluster.wait(ready, "new agents are ready")


@pytest.fixture(scope="module")
def ward() -> Iterator[Ward]:
    with live("doctor", PODS, nodes=2, dns=False) as cluster:  # one pod on each node
        made = Ward(cluster)
        made.recovered()  # from being made
        yield made


def told(*arguments: str, within: Path = Path("/proc/self/ns/net")) -> tuple[int, str]:
    """Exit code and output of the command in a network namespace."""
    done = subprocess.run(
        ["nsenter", f"--net={within}", "--", sys.executable, "-m", "axoneme.cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_healthy_cluster_by_the_command(ward: Ward) -> None:
    code, text = told("--sandbox", ward.cluster.name)
    assert (code, text.partition(":")[0]) == (0, "node1, node2")
    assert "nothing is wrong" in text


def test_what_is_lost_on_the_machine_itself_and_found_by_the_agent_that_comes_next(ward: Ward) -> None:
    with netns.opened(ward.namespace("node2")) as there, kernel.inside(there):
        link = next(name for name in pods.host_interfaces())
        clsact.detach(pods.existing([link])[link], attach.INGRESS)
    (ward.bpffs("node1") / "links" / f"{OVERLAY}-ingress").unlink()
    route = next(
        each for each in show("-4", "route", "show", "proto", "112", namespace=ward.namespace("node1"))
    )
    ip([f"route del {route['dst']} proto 112"], ward.namespace("node1"))
    (own,) = show("-4", "route", "show", "dev", LINK, namespace=ward.namespace("node2"))
    ip([f"route del {own['dst']} dev {LINK}"], ward.namespace("node2"))
    found = ward.findings()
    assert found.pop(("node2", "answering")) == (Severity.ERROR, "health endpoint")
    assert found.pop(("node2", "pods")) == (Severity.ERROR, found_pod(ward, link))
    assert found.pop(("node1", "programs")) == (Severity.ERROR, f"ingress of {OVERLAY}")
    assert found.pop(("node1", "routes")) == (Severity.ERROR, "route to node2's pods")
    assert found == {}
    ward.restart_agents()
    ward.recovered()


def found_pod(ward: Ward, link: str) -> str:
    by_link = {each["host_interface"]: name for name, each in ward.cluster.endpoints().items()}
    return f"pod {by_link[link]}"


@pytest.mark.skipif(not has(Feature.TCX), reason="without tcx links nothing is pinned")
def test_what_others_have_left_and_what_we_have(ward: Ward) -> None:
    ip(
        [
            "link add cilium_host type veth peer name cilium_net",
            "link set cilium_host up",
            "route add 10.244.128.0/17 dev cilium_host",
            "link add extra type veth peer name other",
        ],
        ward.namespace("node1"),
    )
    stale = ward.bpffs("node1") / "links" / "extra-ingress"
    with netns.opened(ward.namespace("node1")) as there, kernel.inside(there):
        uplink = pods.existing(["eth0", "extra"])
        program = bpf.program_load(ProgramType.SCHED_CLS, PASS_ON, "stranger")
        tcx.attach(program, uplink["extra"], attach.INGRESS, stale)
        stranger = bpf.link_create(program, uplink["eth0"], attach.INGRESS)
    ip(["link del extra"], ward.namespace("node1"))
    try:
        found = ward.findings()
        assert found.pop(("node1", "leftovers"))[0] is Severity.WARNING
        assert found.pop(("node1", "pins")) == (Severity.WARNING, "pin extra-ingress")
        assert found == {}, "the route and the stranger's program are put down to Cilium"
        ip(["link del cilium_host"], ward.namespace("node1"))
        stale.unlink()
        assert ward.findings() == {("node1", "foreign"): (Severity.WARNING, "ingress of eth0")}
    finally:
        os.close(stranger)
        os.close(program)
    assert ward.findings() == {}


@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables")
def test_vxlan_that_a_firewall_drops(ward: Ward) -> None:
    rule = ("INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP")
    ward.run("node2", "iptables", "-A", *rule)
    code, text = told("--sandbox", ward.cluster.name, "-o", "json")
    ward.run("node2", "iptables", "-D", *rule)
    diagnosis: dict[str, Any] = json.loads(text)
    assert (code, diagnosis["healthy"]) == (1, False)
    (finding,) = diagnosis["findings"]
    assert (finding["node"], finding["check"], finding["severity"]) == ("node2", "firewall", "error")
    assert (
        "dport 8472" in finding["evidence"][0]
    )  # in the words of iptables-save, or of nft where that is there
    assert any("VXLAN between node1 and node2" in each for each in finding["consequences"])


def test_large_packets_that_get_lost(ward: Ward) -> None:
    """First at a node's own device, then somewhere on the way."""
    ip(["link set eth0 mtu 1400"], ward.namespace("node2"))
    found = ward.findings()
    ip(["link set eth0 mtu 1500"], ward.namespace("node2"))
    assert found == {("node2", "local mtu"): (Severity.ERROR, "uplink eth0")}
    ip(["link set node2 mtu 1400"], ward.cluster.outside)
    found = ward.findings()
    ip(["link set node2 mtu 1500"], ward.cluster.outside)
    assert found == {("node1", "path mtu"): (Severity.ERROR, "path MTU between node1 and node2")}


def test_a_link_a_stopped_agent_a_store_and_a_forwarding_that_are_gone(ward: Ward) -> None:
    ip(["link set node2 down"], ward.cluster.outside)
    found = ward.findings()
    ip(["link set node2 up"], ward.cluster.outside)
    assert found == {("node2", "devices"): (Severity.ERROR, "uplink eth0")}

    store = ward.cluster.layout.store
    away = store.with_name("away.db")
    store.rename(away)
    ward.run("node1", "sysctl", "-qw", "net.ipv4.ip_forward=0")
    found = ward.findings()
    ward.run("node1", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    away.rename(store)
    assert found == {
        ("node1, node2", "store"): (Severity.ERROR, "shared state"),
        ("node1", "sysctls"): (Severity.ERROR, "sysctl net.ipv4.ip_forward"),
    }

    pid = ward.cluster.agent_pid("node1")
    os.kill(pid, signal.SIGSTOP)
    config = ward.cluster.layout.node("node1").config
    code, text = told("--config", str(config), within=ward.namespace("node1"))
    os.kill(pid, signal.SIGCONT)
    assert code == 1
    assert text.count("\nerror") + text.startswith("error  node1: agent: it does not answer") == 1
    assert f"process {pid} is there, state T (stopped by a signal)" in text
    ward.recovered()


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_kube_proxy_beside_us_and_calls_that_nobody_translates(ward: Ward) -> None:
    ward.run("node1", "nft", "add", "table", "ip", "kube-proxy")
    (ward.bpffs("node2") / "links" / "socket-connect6").unlink()
    found = ward.findings()
    ward.run("node1", "nft", "delete", "table", "ip", "kube-proxy")
    group = load(ward.cluster.layout.node("node2").config).cgroup
    assert found == {
        ("node1", "kube-proxy"): (Severity.WARNING, "kube-proxy"),
        ("node2", "sockets"): (Severity.ERROR, f"control group {group}"),
    }
    ward.restart_agents()
    ward.recovered()
