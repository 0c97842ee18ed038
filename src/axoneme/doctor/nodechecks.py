"""Checks of the node by itself: from the kernel up to what runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from axoneme.agent.authentication import AUTHENTICATION
from axoneme.agent.healthendpoint import LINK as HEALTH_LINK
from axoneme.certificates.files import DIRECTORY
from axoneme.datapath.features import Feature
from axoneme.doctor.facts import Facts, Route, within
from axoneme.doctor.findings import Finding, Severity
from axoneme.health.answering import PORT
from axoneme.net.node import OVERHEAD, OVERLAY, PROTOCOL
from axoneme.net.pods import is_pod_link

ERROR, WARNING = Severity.ERROR, Severity.WARNING

#: Without these the datapath does not load, or has no overlay.
_NEEDED: Final = {Feature.RING_BUFFER, Feature.COARSE_CLOCK}
_FULL, _NEARLY = 1.0, 0.9

#: Links that other network plugins leave, by pattern.
OTHERS: Final = {
    "cilium_*": "Cilium",
    "lxc*": "Cilium",
    "cali*": "Calico",
    "vxlan.calico": "Calico",
    "vxlan-v6.calico": "Calico",
    "flannel.*": "Flannel",
    "flannel-v6.*": "Flannel",
    "cni0": "the bridge plugin",
    "weave": "Weave",
    "kube-bridge": "kube-router",
    "antrea-gw0": "Antrea",
    "ovn-k8s-mp0": "OVN-Kubernetes",
}


def kernel(facts: Facts) -> Iterator[Finding]:
    if facts.bpf_fault:
        yield Finding(
            severity=ERROR,
            hop="kernel",
            what="it may not be asked about BPF",
            evidence=(facts.bpf_fault,),
            remedy="run axo doctor as root, with CAP_BPF and CAP_NET_ADMIN",
        )
    needed = _NEEDED | ({Feature.TUNNEL_KEY} if facts.overlay else set())
    for each in facts.missing_features:
        yield Finding(
            severity=ERROR if each in needed else WARNING,
            hop="kernel",
            what=f"it has no {each.title}: {each.without}",
            evidence=("a trial of it was refused",),
            remedy=f"Linux {each.since} and later have it",
        )


def bpffs(facts: Facts) -> Iterator[Finding]:
    if not facts.bpffs:
        yield Finding(
            severity=ERROR,
            hop="BPF filesystem",
            what=f"none is mounted at {facts.config.bpffs_path}",
            evidence=("statfs(2) names another kind of filesystem, or there is no such folder",),
            remedy="restart the agent, which mounts it; look for what unmounts it (systemd's PrivateMounts?)",
        )


def store(facts: Facts) -> Iterator[Finding]:
    if facts.store_fault:
        config = facts.config.store
        where = config.path if config.kind == "sqlite" else ", ".join(config.endpoints)
        yield Finding(
            severity=ERROR,
            hop="shared state",
            what=f"{config.kind} at {where} cannot be used",
            evidence=(facts.store_fault,),
            remedy="nodes, identities and policies stay as they were last heard until it is back: "
            + (
                "put the file back, give it room and rights"
                if config.kind == "sqlite"
                else "start etcd, or mend the way to it and the certificates"
            ),
        )


def agent(facts: Facts) -> Iterator[Finding]:
    if facts.agent is None:
        yield Finding(
            severity=ERROR,
            hop="agent",
            what=f"it does not answer at {facts.config.agent_socket_path}",
            evidence=(facts.agent_fault, facts.agent_process or "no process runs axo agent for this node"),
            remedy="traffic goes on as it was; restart the agent (systemctl restart axoneme-agent)",
        )
    elif facts.agent.phase != "ready":
        yield Finding(
            severity=ERROR,
            hop="agent",
            what=f"it is {facts.agent.phase}: it waits for {facts.agent.waits_for}",
            evidence=(f"process {facts.agent.pid}, version {facts.agent.version}",),
            remedy="nothing changes in the datapath until then; its log says what it tries",
        )
    else:
        for key, problem in facts.agent.problems.items():
            if key.startswith((DIRECTORY, AUTHENTICATION)):
                continue
            yield Finding(
                severity=WARNING,
                hop=key.removeprefix("objects/"),
                what="the agent cannot use it, and what it said before stays in force",
                evidence=(problem,),
                remedy="put the object right, or delete it",
            )


def certificates(facts: Facts) -> Iterator[Finding]:
    for problem in facts.certificates:
        yield Finding(
            severity=WARNING,
            hop="certificates",
            what=problem.reason,
            evidence=(problem.what,),
            remedy=problem.remedy,
            suspect=True,
        )
    said = facts.agent.problems.get(DIRECTORY) if facts.agent else None
    if said and not facts.certificates:
        yield Finding(
            severity=WARNING,
            hop="certificates",
            what="the agent does not get what it asks for",
            evidence=(said,),
            remedy="`axo ca show` where the authority is; its holder must run (docs/certificates.md)",
            suspect=True,
        )


def authentication(facts: Facts) -> Iterator[Finding]:
    for key, problem in facts.agent.problems.items() if facts.agent else ():
        if key.startswith(AUTHENTICATION):
            yield Finding(
                severity=WARNING,
                hop=key,
                what="what policies allow only between who has proved who he is does not pass",
                evidence=(problem,),
                remedy="docs/authentication.md: certificates on both nodes, and the way to the other's port",
            )


def flows(facts: Facts) -> Iterator[Finding]:
    if facts.flows is None:
        if facts.flows_fault:
            yield Finding(
                severity=WARNING,
                hop="flow server",
                what="it does not answer: no flows are seen, and old entries of the flow table stay",
                evidence=(facts.flows_fault,),
                remedy="start it: axo flows serve --config FILE",
            )
        return
    for what, lost in (("flow", facts.flows.lost_flows), ("drop", facts.flows.lost_drops)):
        if lost:
            yield Finding(
                severity=WARNING,
                hop="events",
                what=f"{lost} {what} events found their ring full since the agent made it",
                evidence=(f"{what} events lost: {lost}",),
                remedy=f"raise tables.{what}_events, or find what keeps the flow server from its turn",
            )


def devices(facts: Facts) -> Iterator[Finding]:
    wanted = [*facts.config.uplinks, *([OVERLAY] if facts.overlay else [])]
    for name in wanted:
        found = facts.devices.get(name)
        hop = f"overlay device {name}" if name == OVERLAY else f"uplink {name}"
        remedy = "restart the agent" if name == OVERLAY else "bring it up, or name another one in uplinks"
        if found is None:
            what, evidence = "it is not there", f"devices: {', '.join(facts.devices)}"
        elif not found.up:
            what, evidence, remedy = "it is down", "its flags lack UP", f"ip link set {name} up"
        elif not found.carrier:
            what, evidence = "it has no carrier", "its flags lack LOWER_UP: nobody is at the other end"
            remedy = "see to the cable, the switch's port, or the other end of the veth pair"
        else:
            continue
        yield Finding(severity=ERROR, hop=hop, what=what, evidence=(evidence,), remedy=remedy)


def local_mtu(facts: Facts) -> Iterator[Finding]:
    """Whether what the overlay lets pods send fits through the uplink, both as they are now."""
    overlay = facts.devices.get(OVERLAY)
    version = 6 if facts.config.underlay_addresses and ":" in facts.config.underlay_addresses[0] else 4
    for name in facts.config.uplinks:
        uplink = facts.devices.get(name)
        if facts.overlay and uplink and overlay and uplink.mtu < overlay.mtu + OVERHEAD[version]:
            yield Finding(
                severity=ERROR,
                hop=f"uplink {name}",
                what=f"its MTU of {uplink.mtu} is too small for the overlay's {overlay.mtu}",
                evidence=(
                    f"{overlay.mtu} + {OVERHEAD[version]} bytes of VXLAN over IPv{version} "
                    f"= {overlay.mtu + OVERHEAD[version]}",
                ),
                remedy=f"raise the MTU of {name}, or set mtu: {uplink.mtu} and restart the agent; pods keep "
                "theirs until they are made anew",
            )


def programs(facts: Facts) -> Iterator[Finding]:
    wanted = [
        (name, *place)
        for name in facts.config.uplinks
        for place in (("ingress", "from_uplink"), ("egress", "to_uplink"))
    ]
    if facts.overlay:
        wanted += [(OVERLAY, "ingress", "from_overlay"), (OVERLAY, "egress", "to_overlay")]
    for device, point, program in wanted:
        there = facts.programs.get((device, point), ())
        if not any(each.ours for each in there):
            yield Finding(
                severity=ERROR,
                hop=f"{point} of {device}",
                what=f"program {program} is not attached",
                evidence=(f"attached there: {', '.join(each.name for each in there) or 'nothing'}",),
                remedy="restart the agent, which attaches it",
            )


def foreign(facts: Facts) -> Iterator[Finding]:
    for (device, point), there in facts.programs.items():
        if strangers := [each for each in there if not each.ours]:
            yield Finding(
                severity=WARNING,
                hop=f"{point} of {device}",
                what="programs of somebody else see the packets as well",
                suspect=True,
                evidence=tuple(f"program {each.name} (id {each.number})" for each in strangers),
                remedy="bpftool net detach, or remove whoever attaches them",
            )
    for device, filters in facts.filters.items():
        yield Finding(
            severity=WARNING,
            hop=f"filters of {device}",
            what="filters or queues of somebody else see the packets as well",
            suspect=True,
            evidence=filters,
            remedy=f"tc filter del, tc qdisc del dev {device}, or remove whoever adds them",
        )


def pins(facts: Facts) -> Iterator[Finding]:
    known = {*facts.config.uplinks, OVERLAY}
    for pin in facts.pins:
        name = pin.name.rpartition("-")[0]
        if pin.ifindex and name in known:
            continue
        gone = "its interface is gone" if not pin.ifindex else f"{name} is no uplink of this node"
        yield Finding(
            severity=WARNING,
            hop=f"pin {pin.name}",
            what=f"it is stale: {gone}",
            evidence=(f"{facts.config.bpffs_path}/links/{pin.name}: ifindex {pin.ifindex}",),
            remedy=f"rm {facts.config.bpffs_path}/links/{pin.name}",
        )


def leftovers(facts: Facts) -> Iterator[Finding]:
    for name in facts.devices:
        owner = next((owner for pattern, owner in OTHERS.items() if fnmatch(name, pattern)), None)
        if owner:
            ways = tuple(f"route {each}" for each in facts.routes if each.device == name)
            yield Finding(
                severity=WARNING,
                hop=f"link {name}",
                what=f"{owner} left it, or still runs here",
                suspect=True,
                evidence=(f"{name} is there", *ways),
                remedy=f"remove {owner} from this machine, then: ip link del {name}",
            )
    if facts.network_files:
        yield Finding(
            severity=ERROR,
            hop=str(Path(facts.config.cni_config).parent),
            what="runtimes take the first file, and it is not ours: new containers are not on this network",
            evidence=(f"before {Path(facts.config.cni_config).name}: {', '.join(facts.network_files)}",),
            remedy="remove these files, or give cni_config a name that sorts before them",
        )


def other_routes(facts: Facts) -> Iterator[Finding]:
    """Routes over pod ranges that are not ours: more exact ones win, and pods' own are the most exact."""
    pools = [pool for pool, _ in facts.config.pools()]
    for route in facts.routes:
        inside = any(within(route.destination, pool) for pool in pools)
        if inside and route.protocol != PROTOCOL and not _of_a_pod(route) and route.device != OVERLAY:
            yield Finding(
                severity=WARNING,
                hop=f"route {route.destination}",
                what="somebody else leads packets for pods elsewhere",
                suspect=True,
                evidence=(str(route),),
                remedy=f"ip route del {route.destination} dev {route.device}",
            )


def _of_a_pod(route: Route) -> bool:
    return is_pod_link(route.device) or route.device == HEALTH_LINK


def sysctls(facts: Facts) -> Iterator[Finding]:
    forwarding = {
        "net/ipv4/ip_forward": "ipv4",
        "net/ipv6/conf/all/forwarding": "ipv6",
    }
    for name, family in forwarding.items():
        if family in facts.config.families and facts.sysctls.get(name, "1") == "0":
            yield _sysctl(name, "0", "1", ERROR, "the kernel forwards nothing between devices")
    everywhere = facts.sysctls.get("net/ipv4/conf/all/rp_filter", "0")
    for device in (*facts.config.uplinks, OVERLAY):
        name = f"net/ipv4/conf/{device}/rp_filter"
        own = facts.sysctls.get(name, "0")
        if max(own, everywhere) == "1":  # the larger one holds: 1 is strict, 2 loose
            which = name if own == "1" else "net/ipv4/conf/all/rp_filter"
            yield _sysctl(which, "1", "0", WARNING, f"answers that come in by {device} may be dropped")


def proxies(facts: Facts) -> Iterator[Finding]:
    if facts.no_way_to_proxies:
        yield Finding(
            severity=ERROR,
            hop="way to proxies",
            what="connections with rules above L4 (HTTP, Kafka, DNS) do not pass",
            evidence=tuple(f"{each} is not there" for each in facts.no_way_to_proxies),
            remedy="the agent makes it anew within seconds: see that it runs, and find who takes it away",
        )


def _sysctl(name: str, found: str, wanted: str, severity: Severity, what: str) -> Finding:
    dotted = name.replace("/", ".")
    return Finding(
        severity=severity,
        suspect=True,
        hop=f"sysctl {dotted}",
        what=what,
        evidence=(f"{dotted} = {found}",),
        remedy=f"sysctl -w {dotted}={wanted}, and find who sets it (/etc/sysctl.d, systemd)",
    )


def firewall(facts: Facts) -> Iterator[Finding]:
    """Rules that drop. Those that name no port of ours matter only where something gets lost."""
    port = facts.config.overlay_port
    for rule in facts.firewall:
        yield Finding(
            severity=WARNING if rule.ours else Severity.SUSPECT,
            suspect=True,
            hop="firewall",
            what=f"a rule drops what nodes send each other (UDP {port}, TCP {PORT}, ICMP)"
            if rule.ours
            else "a rule may drop what nodes send each other",
            evidence=(rule.text,),
            remedy=f"let UDP {port}, TCP {PORT} and ICMP pass between the nodes' addresses",
        )


def pods(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        if pod.faults and pod.name != HEALTH_LINK:
            yield Finding(
                severity=ERROR,
                hop=f"pod {pod.name}",
                what="it is not plugged in as it should be",
                evidence=pod.faults,
                remedy="restart the agent; if that does not help, make the pod anew",
            )
        for version, mtu in pod.mtus.items():
            if mtu > pod.expected_mtu:
                yield Finding(
                    severity=ERROR,
                    hop=f"pod {pod.name}",
                    what=f"it sends larger IPv{version} packets than fit between nodes",
                    evidence=(f"MTU of its default route: {mtu}, of the way out: {pod.expected_mtu}",),
                    remedy="make the pod anew: it gets the MTU of now",
                )


def tables(facts: Facts) -> Iterator[Finding]:
    for name, usage in facts.tables.items():
        if usage.room and usage.used >= _NEARLY * usage.room:
            full = usage.used >= _FULL * usage.room
            yield Finding(
                severity=ERROR if full else WARNING,
                hop=f"table {name}",
                what="it is full" if full else "it is nearly full",
                evidence=(f"{usage.used} of {usage.room} entries",),
                remedy=f"raise tables.{name} in the agent's configuration",
            )
