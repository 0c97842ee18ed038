"""All checks, in the order in which one may explain another."""

from __future__ import annotations

from typing import Final

from axoneme.doctor import nodechecks, servicechecks, waychecks
from axoneme.doctor.facts import Facts
from axoneme.doctor.findings import Check

_HOST = ("kernel", "bpffs", "devices")
_AGENT = (*_HOST, "store", "agent", "names", "answering")
_WIRE = (*_AGENT, "sysctls", "conflicts", "watch", "firewall", "foreign")
_PODS = (*_WIRE, "underlay", "agents", "routes", "leftovers", "other routes", "programs", "local mtu")

CHECKS: Final[tuple[Check[Facts], ...]] = (
    Check("kernel", nodechecks.kernel),
    Check("bpffs", nodechecks.bpffs, ("kernel",)),
    Check("devices", nodechecks.devices),
    Check("store", nodechecks.store),
    Check("names", waychecks.names, ("store", "devices")),
    Check("agent", nodechecks.agent, (*_HOST, "store")),
    Check("answering", waychecks.answering, ("agent",)),
    Check("certificates", nodechecks.certificates),
    Check("authentication", nodechecks.authentication, ("certificates",)),
    Check("flows", nodechecks.flows, ("kernel", "bpffs", "agent")),
    Check("sysctls", nodechecks.sysctls),
    Check("proxies", nodechecks.proxies, ("agent",)),
    Check("leftovers", nodechecks.leftovers),
    Check("other routes", nodechecks.other_routes, ("leftovers",)),
    Check("firewall", nodechecks.firewall),
    Check("foreign", nodechecks.foreign, ("leftovers",)),
    Check("programs", nodechecks.programs, _HOST),
    Check("pins", nodechecks.pins, _HOST),
    Check("local mtu", nodechecks.local_mtu),
    Check("pods", nodechecks.pods, _HOST),
    Check("tables", nodechecks.tables),
    Check("conflicts", waychecks.conflicts, ("store", "names")),
    Check("watch", waychecks.watch, ("store", "agent")),
    Check("routes", waychecks.routes, ("agent", "watch", "devices")),
    Check("underlay", waychecks.underlay, _WIRE),
    Check("agents", waychecks.agents, (*_WIRE, "underlay")),
    Check("pod network", waychecks.pod_network, _PODS),
    Check("path mtu", waychecks.path_mtu, (*_PODS, "pod network")),
    Check("sockets", servicechecks.sockets, _HOST),
    Check("kube-proxy", servicechecks.kube_proxy),
    Check("node ports", servicechecks.node_ports, ("agent",)),
    Check("clocks", waychecks.clocks),
)
