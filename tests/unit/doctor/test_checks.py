"""Each check on facts as they are when that one thing is broken."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from axoneme.agent.api import Status
from axoneme.agent.config import AgentConfig, PoolConfig
from axoneme.certificates.examine import Problem
from axoneme.datapath.features import Feature
from axoneme.doctor.checks import CHECKS
from axoneme.doctor.facts import Device, Facts, Pin, PodFacts, Program, Route, Usage
from axoneme.doctor.findings import Placed, Severity, diagnose
from axoneme.doctor.firewall import (
    Rule,
    of_iptables,
    of_kube_proxy_iptables,
    of_kube_proxy_nft,
    of_nft,
    of_tc,
)
from axoneme.flows.status import Status as FlowsStatus
from axoneme.health.pathmtu import PathMtu
from axoneme.health.ways import Answer, HealthReport, Measurement, NodeHealth, ways
from axoneme.model.state import NodeState
from axoneme.services.view import FrontendView, ServiceView
from axoneme.sources.config import StoreConfig

CONFIG = AgentConfig(
    "a",
    "/nowhere",
    StoreConfig(path="/nowhere/store.db"),
    cluster_pool=[PoolConfig("10.244.0.0/16", 24)],
    cni_config="/etc/cni/net.d/05-axoneme.conflist",
)
NODES = (
    NodeState("a", ["192.0.2.1"], ["192.0.2.1"], ["10.244.0.0/24"], ["10.244.0.254"]),
    NodeState("b", ["192.0.2.2"], ["192.0.2.2"], ["10.244.1.0/24"], ["10.244.1.254"]),
)
FLOWS = FlowsStatus("a", 0, 9, 0, 0, 0.0, True, 0, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0)

WEB = ServiceView(
    "shop/web",
    "http",
    "TCP",
    (1,),
    (FrontendView("10.96.0.7", 40000, "ClusterIP"), FrontendView("0.0.0.0", 30080, "NodePort", True)),
)


def measured(broken: dict[str, str] = {}) -> HealthReport:  # noqa: B006
    """``broken``: address or protocol/address to the reason."""
    found = []
    for node in NODES:
        here = []
        for way in ways(node, (4,)):
            reason = broken.get(way.address) or broken.get(f"{way.protocol.value}/{way.address}")
            one = Measurement(way)
            here.append(one.failed(reason, 9.0) if reason else one.answered(Answer(0.001, node.name), 9.0))
        found.append(NodeHealth(node.name, here))
    return HealthReport("a", 7.0, found)


def well(**changes: Any) -> Facts:
    ours = (Program("ours", 7, True),)
    values: dict[str, Any] = {
        "config": CONFIG,
        "nodes": NODES,
        "policies": 2,
        "agent": Status("a", 1, "1", 0.0, "ready", policies=2),
        "flows": FLOWS,
        "health": measured(),
        "devices": {
            "eth0": Device(2, 1500, True, addresses=("192.0.2.1",)),
            "axo_overlay": Device(3, 1450, True),
        },
        "routes": (Route(ip_network("10.244.1.0/24"), "axo_overlay", protocol="112"),),
        "sysctls": {"net/ipv4/ip_forward": "1"},
        "programs": {
            ("eth0", "ingress"): ours,
            ("eth0", "egress"): ours,
            ("axo_overlay", "ingress"): ours,
            ("axo_overlay", "egress"): ours,
        },
        "pins": (Pin("eth0-ingress", 2), Pin("axo_overlay-egress", 3)),
        "tables": {"policies": Usage(10, 100)},
        "control_group": Path("/sys/fs/cgroup"),
        "at_sockets": {"connect4": True, "connect6": True},
        "services": (WEB,),
    }
    return Facts(**(values | changes))


def only(facts: Facts) -> Placed:
    (found,) = diagnose(CHECKS, {"a": facts}).findings
    assert found.finding.remedy
    assert found.finding.evidence
    return found


def test_nothing_is_wrong_where_nothing_is() -> None:
    assert diagnose(CHECKS, {"a": well()}).healthy


UNREACHED = {"192.0.2.2": "no answer", "10.244.1.254": "no answer"}
BY_CHECK: list[tuple[str, str, dict[str, Any]]] = [
    ("kernel", "kernel", {"missing_features": (Feature.COARSE_CLOCK,)}),
    ("kernel", "kernel", {"bpf_fault": "Operation not permitted"}),
    ("bpffs", "BPF filesystem", {"bpffs": False}),
    ("store", "shared state", {"store_fault": "it is gone", "nodes": (), "policies": 0}),
    ("agent", "agent", {"agent": None, "agent_fault": "nothing listens", "health": None}),
    ("agent", "agent", {"agent": Status("a", 1, "1", 0.0, "starting", "the datapath")}),
    ("agent", "NetworkPolicy/x/y", {"agent": Status("a", 1, "1", 0.0, "ready", policies=1,
                                                    problems={"objects/NetworkPolicy/x/y": "bad"})}),
    ("certificates", "certificates",
     {"certificates": (Problem("node.crt: notAfter", "it has ended", "renew"),)}),
    ("certificates", "certificates", {"agent": Status("a", 1, "1", 0.0, "ready", policies=2,
                                                      problems={"certificates": "nobody answers"})}),
    ("authentication", "authentication of identities 1 and 2 on b",
     {"agent": Status("a", 1, "1", 0.0, "ready", policies=1,
                      problems={"authentication of identities 1 and 2 on b": "no answer"})}),
    ("flows", "flow server", {"flows": None, "flows_fault": "nothing listens"}),
    ("flows", "events", {"flows": replace(FLOWS, lost_drops=3)}),
    ("devices", "uplink eth0", {"devices": {"eth0": Device(2, 1500, False, addresses=("192.0.2.1",)),
                                            "axo_overlay": Device(3, 1450, True)},
                                "health": measured(UNREACHED)}),
    ("devices", "overlay device axo_overlay", {"devices": {"eth0": Device(2, 1500, True,
                                                                          addresses=("192.0.2.1",))}}),
    ("local mtu", "uplink eth0", {"devices": {"eth0": Device(2, 1400, True, addresses=("192.0.2.1",)),
                                              "axo_overlay": Device(3, 1450, True)},
                                  "mtus": (PathMtu("b", next(ways(NODES[1], (4,))), 1500, 1400, 1400),)}),
    ("programs", "egress of axo_overlay", {"programs": {k: v for k, v in well().programs.items()
                                                        if k != ("axo_overlay", "egress")}}),
    ("programs", "egress of eth0", {"programs": {k: v for k, v in well().programs.items()
                                                 if k != ("eth0", "egress")}}),
    ("foreign", "ingress of eth0", {"programs": {**well().programs, ("eth0", "ingress"): (
        Program("theirs", 9, False), Program("ours", 7, True))}}),
    ("foreign", "filters of eth0", {"filters": {"eth0": ("ingress: flower filter",)}}),
    ("pins", "pin eth9-ingress", {"pins": (Pin("eth9-ingress", 0),)}),
    ("pins", "pin eth9-ingress", {"pins": (Pin("eth9-ingress", 9),)}),
    ("leftovers", "link cali12345", {"devices": {**well().devices, "cali12345": Device(9, 1500, True)}}),
    ("leftovers", "/etc/cni/net.d", {"network_files": ("00-other.conf",)}),
    ("other routes", "route 10.244.128.0/17", {"routes": (*well().routes,
                                                          Route(ip_network("10.244.128.0/17"), "eth0"))}),
    ("sysctls", "sysctl net.ipv4.ip_forward", {"sysctls": {"net/ipv4/ip_forward": "0"}}),
    ("sysctls", "sysctl net.ipv4.conf.eth0.rp_filter", {"sysctls": {"net/ipv4/conf/eth0/rp_filter": "1"}}),
    ("proxies", "way to proxies", {"no_way_to_proxies": ("the IPv6 route to proxies",)}),
    ("firewall", "firewall", {"firewall": (Rule("udp dport 8472 drop", True),)}),
    ("pods", "pod x/y", {"pods": (PodFacts("x/y", ("its link has gone",), 1450),)}),
    ("pods", "pod x/y", {"pods": (PodFacts("x/y", (), 1450, {4: 1500}),)}),
    ("sockets", "control groups", {"control_group": None}),
    ("sockets", "control group /sys/fs/cgroup", {"at_sockets": {"connect4": True, "connect6": False}}),
    ("kube-proxy", "kube-proxy", {"kube_proxy": ("table ip kube-proxy",)}),
    ("node ports", "node ports", {"sysctls": {"net/ipv4/ip_local_port_range": "30000\t60999"}}),
    ("tables", "table policies", {"tables": {"policies": Usage(95, 100)}}),
    ("names", "shared state", {"nodes": (replace(NODES[0], internal_addresses=["192.0.2.9"]), NODES[1])}),
    ("conflicts", "addresses of a and b", {"nodes": (NODES[0], replace(NODES[1],
                                                                       pod_cidrs=["10.244.0.0/16"])),
                                           "routes": (Route(ip_network("10.244.0.0/16"), "axo_overlay"),)}),
    ("conflicts", "address 192.0.2.2", {"health": measured({"tcp/192.0.2.2": "c answers there: two nodes"})}),
    ("watch", "watch of the shared state", {"policies": 3}),
    ("watch", "watch of the shared state", {"nodes": (*NODES, NodeState("c"))}),
    ("routes", "route to b's pods", {"routes": ()}),
    ("routes", "route to b's pods", {"routes": (Route(ip_network("10.244.1.0/24"), "eth0", "192.0.2.2",
                                                      "112"),)}),
    ("underlay", "underlay between a and b", {"health": measured(UNREACHED)}),
    ("agents", "agent of b", {"health": measured({"tcp/192.0.2.2": "refused",
                                                  "tcp/10.244.1.254": "refused"})}),
    ("pod network", "VXLAN between a and b", {"health": measured({"10.244.1.254": "no answer"})}),
    ("pod network", "policy of b's health endpoint, or its agent",
     {"health": measured({"tcp/10.244.1.254": "no answer"})}),
    ("pod network", "health endpoint", {"health": measured({"10.244.0.254": "no answer"})}),
    ("path mtu", "path MTU between a and b",
     {"mtus": (PathMtu("b", next(ways(NODES[1], (4,))), 1500, 1300),)}),
    ("answering", "health endpoint", {"pods": (PodFacts("axo_health", ("no route",), 1450),),
                                      "health": measured({"10.244.0.254": "no answer"})}),
    ("answering", "health endpoint", {"health": replace(measured(), problems=["port 4240 is taken"])}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "hop", "changes"), BY_CHECK)
def test_what_is_broken_is_named_and_nothing_else(check: str, hop: str, changes: dict[str, Any]) -> None:
    found = only(well(**changes))
    assert (found.check, found.finding.hop) == (check, hop)


def test_every_check_has_been_broken() -> None:
    assert {check for check, _, _ in BY_CHECK} | {"clocks"} == {check.name for check in CHECKS}


def test_clocks_that_differ() -> None:
    report = measured()
    late = [replace(m, answer=Answer(0.001, "b", -5.0)) for m in report.nodes[1].measurements]
    found = only(well(health=replace(report, nodes=[report.nodes[0], NodeHealth("b", late)])))
    assert (found.check, found.finding.severity) == ("clocks", Severity.WARNING)
    assert "-5.0 s" in found.finding.what


def test_native_routing_is_judged_by_the_next_hop() -> None:
    config = replace(CONFIG, routing="native")
    right = Route(ip_network("10.244.1.0/24"), "eth0", "192.0.2.2", "112")
    assert diagnose(CHECKS, {"a": well(config=config, routes=(right,))}).healthy
    wrong = Route(ip_network("10.244.1.0/24"), "eth0", "192.0.2.9", "112")
    assert only(well(config=config, routes=(wrong,))).check == "routes"
    lost = only(well(config=config, routes=(right,), health=measured({"10.244.1.254": "no answer"})))
    assert lost.finding.hop == "pods' packets between a and b"


def test_a_rule_that_drops_anything_is_told_where_something_gets_lost() -> None:
    rule = (Rule("chain INPUT drops what no rule accepts", False),)
    assert diagnose(CHECKS, {"a": well(firewall=rule)}).healthy
    found = only(well(firewall=rule, health=measured({"10.244.1.254": "no answer"})))
    assert (found.check, found.finding.severity) == ("firewall", Severity.ERROR)


RULESET = """
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		udp dport { 53, 8000-9000 } counter packets 3 bytes 90 drop
		udp dport 53 drop
		tcp dport 4240 reject
		udp dport 8472 accept
		ip saddr 192.0.2.0/24 drop
	}
}
"""


def test_rules_of_nftables() -> None:
    found = list(of_nft(RULESET, {8472, 4240}))
    assert [rule.ours for rule in found] == [False, True, True, False]
    assert found[1].text.startswith("table inet filter, chain input: udp dport { 53, 8000-9000 } counter")


SAVED = """
*filter
:INPUT DROP [1:60]
:OUTPUT ACCEPT [0:0]
[7:420] -A INPUT -p udp -m udp --dport 8472 -j DROP
[0:0] -A INPUT -p udp -m multiport --dports 1:99,8472 -j REJECT --reject-with icmp-port-unreachable
[0:0] -A INPUT -p tcp -m tcp --dport 22 -j DROP
[0:0] -A INPUT -p udp -m udp --dport 8472 -j ACCEPT
[0:0] -A INPUT -m conntrack --ctstate INVALID -j DROP
COMMIT
"""


def test_rules_of_iptables() -> None:
    found = list(of_iptables("iptables", SAVED, {8472}))
    assert [rule.ours for rule in found] == [False, True, True, False]
    assert found[1].text == "iptables: -A INPUT -p udp -m udp --dport 8472 -j DROP (7 packets)"


def test_filters_of_others_but_not_ours() -> None:
    theirs = {"handle": "0x5", "bpf_name": "stranger:[15648]"}
    listing = [
        {"protocol": "all", "pref": 1, "kind": "bpf", "chain": 0},
        {"protocol": "all", "pref": 1, "kind": "bpf", "chain": 0, "options": {"handle": "0x61786f"}},
        {"protocol": "all", "pref": 3, "kind": "bpf", "chain": 0, "options": theirs},
    ]
    assert list(of_tc("egress", listing)) == ["egress: bpf filter stranger:[15648], preference 3"]


def test_reserved_node_ports_are_nobody_s_own() -> None:
    ports = {"net/ipv4/ip_local_port_range": "30000\t60999"}
    for reserved, healthy in (("30080", True), ("8080,30000-32767", True), ("30081", False), ("", False)):
        sysctls = {**well().sysctls, **ports, "net/ipv4/ip_local_reserved_ports": reserved}
        assert diagnose(CHECKS, {"a": well(sysctls=sysctls)}).healthy == healthy, reserved


def test_traces_of_kube_proxy() -> None:
    listed = """table ip kube-proxy
table ip6 other
table ip kube-proxy-not {
	chain KUBE-SERVICES-NOT {
	}
}
table ip nat {
	chain KUBE-SERVICES {
	}
}
"""
    assert list(of_kube_proxy_nft(listed)) == ["table ip kube-proxy", "table ip nat, chain KUBE-SERVICES"]
    saved = ":KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X\n"
    assert list(of_kube_proxy_iptables("iptables-save", saved)) == [
        "iptables: chain KUBE-SERVICES has 1 rules"
    ]
    assert not list(of_kube_proxy_iptables("iptables-save", ":KUBE-SERVICES - [0:0]\n"))
