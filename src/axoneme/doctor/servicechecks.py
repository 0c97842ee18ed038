"""Checks of load balancing: what else translates services here, and what keeps ours from doing it."""

from __future__ import annotations

from collections.abc import Iterator

from axoneme.doctor.facts import Facts
from axoneme.doctor.findings import Finding, Severity
from axoneme.services.balanced import FrontendKind

ERROR, WARNING = Severity.ERROR, Severity.WARNING

_LOCAL_PORTS, _RESERVED_PORTS = "net/ipv4/ip_local_port_range", "net/ipv4/ip_local_reserved_ports"
_OF_NODES = (FrontendKind.NODE_PORT.value, FrontendKind.HOST_PORT.value)


def kube_proxy(facts: Facts) -> Iterator[Finding]:
    if facts.kube_proxy:
        yield Finding(
            severity=WARNING,
            hop="kube-proxy",
            what="it translates services here as well, or its rules have stayed: which of the two a "
            "connection meets depends on where it comes from",
            suspect=True,
            evidence=facts.kube_proxy,
            remedy="stop kube-proxy on this node, then: kube-proxy --cleanup",
        )


def sockets(facts: Facts) -> Iterator[Finding]:
    group = facts.control_group
    if group is None:
        yield Finding(
            severity=WARNING,
            hop="control groups",
            what="no cgroup v2 hierarchy is mounted: processes of the node itself cannot call services, "
            "pods' calls are translated packet by packet",
            evidence=("/proc/self/mounts has no cgroup2",),
            remedy="mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified, then restart the agent",
        )
    elif missing := [name for name, attached in facts.at_sockets.items() if not attached]:
        yield Finding(
            severity=ERROR,
            hop=f"control group {group}",
            what="calls of its processes are not translated where they are made",
            evidence=(f"not attached: {', '.join(missing)}",),
            remedy="restart the agent, which attaches them"
            if group.is_dir()
            else f"{group} is not there: name another one in cgroup, or leave it out for the whole machine",
        )


def node_ports(facts: Facts) -> Iterator[Finding]:
    """Ports of services that programs of the node may get for connections of their own."""
    first, _, last = facts.sysctls.get(_LOCAL_PORTS, "").partition("\t")
    if not last:
        return
    reserved = set(_ports(facts.sysctls.get(_RESERVED_PORTS, "")))
    taken = {
        frontend.port: service.name
        for service in facts.services
        for frontend in service.frontends
        if frontend.type in _OF_NODES and int(first) <= frontend.port <= int(last)
    }
    found = [f"{port} of {name}" for port, name in sorted(taken.items()) if port not in reserved]
    if found:
        yield Finding(
            severity=WARNING,
            hop="node ports",
            what=f"{len(found)} of them lie where programs of the node get ports for their own connections "
            f"({first} to {last}), whose answers would go to the service",
            evidence=tuple(found[:5]),
            remedy=f"sysctl -w {_RESERVED_PORTS.replace('/', '.')}={','.join(map(str, sorted(taken)))}",
        )


def _ports(text: str) -> Iterator[int]:
    """From ``8080,30000-32767``."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
