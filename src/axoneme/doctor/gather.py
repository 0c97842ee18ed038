"""Looks at a node: the machine by itself, and what its agent and its flow server say.

All of it happens in the network namespace of the calling thread, and changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from axoneme.agent.api import Status
from axoneme.agent.config import AgentConfig
from axoneme.agent.endpoints import EndpointRecord
from axoneme.certificates.examine import Problem, problems
from axoneme.certificates.files import DIRECTORY, Files
from axoneme.certificates.names import hubble_name
from axoneme.datapath import attach, bpf, bpffs, clsact, features, sockets
from axoneme.datapath.uapi import AttachType, Command, LinkType
from axoneme.doctor import firewall
from axoneme.doctor.facts import Device, Facts, Pin, PodFacts, Program, Route, Usage
from axoneme.flows.status import Status as FlowsStatus
from axoneme.health.pathmtu import PathMtu
from axoneme.health.ways import HealthReport
from axoneme.model.policies import POLICY_KINDS
from axoneme.model.state import NODES, NodeState, decode
from axoneme.net import cgroup2, node, pods, proxying
from axoneme.net.commands import NetworkError, show
from axoneme.rpc import Client, RpcError
from axoneme.services.view import ServiceView
from axoneme.sources.config import StoreConfig, open_store
from axoneme.sources.store import StoreError

T = TypeVar("T")

_POINTS: Final = {"ingress": attach.INGRESS, "egress": attach.EGRESS}
#: Seconds that a process may take for an answer, and for probing every node.
_PATIENCE, _PROBING = 5.0, 60.0
#: Bytes that must be free where a SQLite store is.
_ROOM: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Words:
    """What the two processes of a node say."""

    agent: Status | None
    agent_fault: str
    flows: FlowsStatus | None
    flows_fault: str
    health: HealthReport | None
    mtus: tuple[PathMtu, ...]
    services: tuple[ServiceView, ...]


def ask(config: AgentConfig) -> Words:
    """Has the agent probe everything now. Needs no namespace, and may take some seconds."""
    agent = Client(config.agent_socket_path, _PATIENCE)
    status, agent_fault = _call(agent, "status", Status)
    flows, flows_fault = _call(Client(config.flows_socket_path, _PATIENCE), "status", FlowsStatus)
    services, _ = _call(agent, "services", list[ServiceView])
    health, mtus = None, None
    if status and status.health is not None:
        probing = Client(config.agent_socket_path, _PROBING)
        health, _ = _call(probing, "health.probe", HealthReport)
        mtus, _ = _call(probing, "health.mtu", list[PathMtu])
    return Words(status, agent_fault, flows, flows_fault, health, tuple(mtus or ()), tuple(services or ()))


def _call(client: Client, method: str, kind: type[T]) -> tuple[T | None, str]:
    try:
        return client.call(method, None, kind), ""
    except RpcError as error:
        return None, error.message


def devices() -> dict[str, Device]:
    """Of this network namespace, by name."""
    return {
        link["ifname"]: Device(
            ifindex=link["ifindex"],
            mtu=link["mtu"],
            up="UP" in link["flags"],
            carrier="LOWER_UP" in link["flags"],
            addresses=tuple(each["local"] for each in link.get("addr_info", ()) if "local" in each),
            sent=link["stats64"]["tx"]["packets"],
            received=link["stats64"]["rx"]["packets"],
        )
        for link in show("-statistics", "address", "show")
    }


def gather(config: AgentConfig, words: Words, before: dict[str, Device]) -> Facts:
    """``before``: the devices before anything was probed."""
    missing, bpf_fault = _features()
    store_fault = check_store(config.store)
    nodes, policies = ((), 0) if store_fault else _stored(config.store)
    now = devices()
    mounted = not bpf_fault and bpffs.is_mount(config.bpffs_path)
    pins, links = _pins(config.bpffs_path / "links") if mounted else ((), frozenset())
    wanted = [name for name in (*config.uplinks, node.OVERLAY) if name in now]
    return Facts(
        config=config,
        missing_features=missing,
        bpf_fault=bpf_fault,
        bpffs=mounted or bool(bpf_fault),
        store_fault=store_fault,
        nodes=nodes,
        policies=policies,
        agent=words.agent,
        agent_fault=words.agent_fault,
        agent_process="" if words.agent else _process(config),
        flows=words.flows,
        flows_fault=words.flows_fault,
        health=words.health,
        mtus=words.mtus,
        devices=now,
        devices_before=before,
        routes=tuple(_routes()),
        unresolved=tuple(_unresolved()),
        sysctls=dict(_sysctls([*config.uplinks, node.OVERLAY])),
        pins=pins,
        programs={}
        if bpf_fault
        else {
            (name, point): _programs(now[name].ifindex, kind, links)
            for name in wanted
            for point, kind in _POINTS.items()
        },
        filters={name: found for name in wanted if (found := firewall.filters(name))},
        firewall=firewall.rules(config.overlay_port),
        network_files=tuple(_network_files(config)),
        no_way_to_proxies=tuple(proxying.missing(4 if name == "ipv4" else 6 for name in config.families)),
        pods=() if bpf_fault else tuple(_pods(config)),
        tables=dict(_tables(config, words)) if mounted else {},
        services=words.services,
        kube_proxy=firewall.kube_proxy(),
        control_group=(group := Path(config.cgroup) if config.cgroup else cgroup2.hierarchy()),
        at_sockets={
            name: bool(sockets.attached(group, point, sockets.pin_of(config.bpffs_path / "links", name)))
            for name, point in (sockets.POINTS if config.tcp_health else sockets.CALLS).items()
        }
        if mounted and group
        else {},
        certificates=tuple(_certificates(config)),
    )


def _certificates(config: AgentConfig) -> Iterator[Problem]:
    """What is wrong with those that the agent keeps, and with those that the Hubble API was given."""
    name, now = hubble_name(config.node, config.cluster_name), time.time()
    if (config.state_path / DIRECTORY).is_dir():
        yield from problems(Files.of_node(config.state_path), name, now)
    if config.hubble.tls.given:
        yield from problems(config.hubble.tls.files(config.state_path), name, now, kept=False)


# ---- the kernel ---------------------------------------------------------------------------------


def _features() -> tuple[tuple[features.Feature, ...], str]:
    try:
        return tuple(features.missing()), ""
    except bpf.BpfError as error:
        return (), str(error)


def _pins(folder: Path) -> tuple[tuple[Pin, ...], frozenset[int]]:
    """The pinned links to interfaces, and the ids of all."""
    found, ids = [], set()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            link = bpf.pinned(path)
        except bpf.BpfError:
            continue
        try:
            info = bpf.link_info(link)
        finally:
            os.close(link)
        if info.kind != LinkType.CGROUP:
            found.append(Pin(path.name, info.ifindex))
        ids.add(info.id)
    return tuple(found), frozenset(ids)


def _programs(ifindex: int, point: AttachType, links: frozenset[int]) -> tuple[Program, ...]:
    """What is attached by tcx; without tcx our filter, which is known by its handle."""
    if not features.has(features.Feature.TCX):
        number = clsact.attached(ifindex, point)
        return (Program(_program_name(number), number, True),) if number else ()
    return tuple(
        Program(_program_name(each.program_id), each.program_id, each.link_id in links)
        for each in bpf.query(ifindex, point)
    )


def _program_name(number: int) -> str:
    try:
        program = bpf.by_id(Command.PROG_GET_FD_BY_ID, number)
    except bpf.BpfError:
        return "?"
    try:
        return bpf.program_info(program).name
    finally:
        os.close(program)


def _tables(config: AgentConfig, words: Words) -> Iterator[tuple[str, Usage]]:
    used = {}
    if words.agent:
        used = {
            "policies": words.agent.policy_entries,
            "addresses": words.agent.addresses,
            "endpoints": words.agent.endpoints,
        }
    if words.flows:
        used |= {"flows": words.flows.connections}
    for name, entries in used.items():
        with suppress(bpf.BpfError):
            table = bpf.pinned(config.bpffs_path / "maps" / name)
            try:
                yield name, Usage(entries, bpf.map_info(table).max_entries)
            finally:
                os.close(table)


# ---- routes and devices -------------------------------------------------------------------------


def _routes() -> Iterator[Route]:
    for family in ("-4", "-6"):
        for each in show(family, "route", "show", "table", "main"):
            text = each["dst"]
            if text == "default":
                text = "0.0.0.0/0" if family == "-4" else "::/0"
            via = each.get("gateway") or each.get("via", {}).get("host", "")
            if found := Route.read(
                text, each.get("dev", each.get("type", "")), via, each.get("protocol", "")
            ):
                yield found


def _unresolved() -> Iterator[str]:
    """Addresses on our links for which nobody answers."""
    for each in show("neighbor", "show"):
        if {"FAILED", "INCOMPLETE"} & set(each.get("state", ())):
            yield each["dst"]


def _sysctls(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    wanted = [
        "net/ipv4/ip_local_port_range",
        "net/ipv4/ip_local_reserved_ports",
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/conf/all/rp_filter",
    ]
    for name in (*wanted, *(f"net/ipv4/conf/{name}/rp_filter" for name in names)):
        with suppress(OSError):
            yield name, (Path("/proc/sys") / name).read_text().strip()


def _network_files(config: AgentConfig) -> list[str]:
    """The files that a runtime prefers to ours: those that sort before it."""
    if not config.cni_config:
        return []
    ours = Path(config.cni_config)
    try:
        found = sorted(path.name for path in ours.parent.iterdir())
    except OSError:
        return []
    return [name for name in found if name < ours.name and name.endswith((".conf", ".conflist", ".json"))]


# ---- pods ---------------------------------------------------------------------------------------


def _pods(config: AgentConfig) -> Iterator[PodFacts]:
    folder = config.state_path / "endpoints"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with suppress(OSError, msgspec.DecodeError):
            yield _pod(msgspec.json.decode(path.read_bytes(), type=EndpointRecord))


def _pod(record: EndpointRecord) -> PodFacts:
    state = record.state
    name = f"{state.namespace}/{state.pod}" if state.pod else state.host_interface
    here = pods.existing([state.host_interface]).get(state.host_interface)
    if here is None:
        return PodFacts(name, (f"its link {state.host_interface} has gone",), record.route_mtu)
    link = pods.PodLink(
        Path(record.namespace_path),
        record.interface,
        state.host_interface,
        tuple(map(ip_address, state.addresses)),
        record.mac,
        record.mtu,
        record.route_mtu,
    )
    faults = [
        f"no program of ours at the {point} of {state.host_interface}"
        for point, kind in _POINTS.items()
        if not clsact.attached(here, kind)
    ]
    mtus: dict[int, int] = {}
    try:
        faults += pods.faults_outside(link)
        if link.namespace.exists():
            faults += pods.faults(link)
            mtus = dict(_route_mtus(link))
    except NetworkError as error:
        faults.append(str(error))
    return PodFacts(name, tuple(faults), record.route_mtu, mtus)


def _route_mtus(link: pods.PodLink) -> Iterator[tuple[int, int]]:
    for version in {address.version for address in link.addresses}:
        for each in show(f"-{version}", "route", "show", "default", namespace=link.namespace):
            metrics = each.get("metrics") or [{}]
            yield version, int(metrics[0].get("mtu", link.mtu))


# ---- the shared state ---------------------------------------------------------------------------


def check_store(config: StoreConfig) -> str:
    """Why it cannot be read and written; empty when it can."""
    if config.kind == "sqlite":
        return _check_sqlite(Path(config.path))
    try:
        asyncio.run(_read(config))
    except (StoreError, TimeoutError, OSError, ValueError) as error:
        return str(error) or "no answer"
    return ""


def _check_sqlite(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist"
    space = os.statvfs(path.parent)
    if space.f_bavail * space.f_frsize < _ROOM:
        return f"{path.parent}: {space.f_bavail * space.f_frsize} bytes are free"
    try:
        database = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=2.0, isolation_level=None)
        try:
            database.execute("SELECT 1 FROM entries LIMIT 1")
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        finally:
            database.close()
    except sqlite3.Error as error:
        return f"{path}: {error}"
    return ""


def _stored(config: StoreConfig) -> tuple[tuple[NodeState, ...], int]:
    """What it says of nodes, and how many objects with policies there are."""
    try:
        return asyncio.run(_read(config))
    except (StoreError, TimeoutError, OSError, ValueError):
        return (), 0


async def _read(config: StoreConfig) -> tuple[tuple[NodeState, ...], int]:
    store = open_store(config)
    try:
        async with asyncio.timeout(_PATIENCE):
            nodes = [decode(e.value, NodeState, e.key) for e in (await store.list(NODES)).entries]
            policies = 0
            for kind in POLICY_KINDS:
                policies += len((await store.list(f"objects/{kind}/")).entries)
            return tuple(nodes), policies
    finally:
        await store.close()


# ---- processes ----------------------------------------------------------------------------------


def _process(config: AgentConfig) -> str:
    """The agent of this node among the machine's processes, in words; empty when there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"agent" in words and any(_names(word, config) for word in words):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                meaning = {"T": "stopped by a signal", "D": "waiting for the disk", "Z": "dead"}
                return f"process {folder.name} is there, state {state} ({meaning.get(state, 'running')})"
    return ""


def _names(word: bytes, config: AgentConfig) -> bool:
    """Whether an argument is the configuration of this node."""
    path = Path(os.fsdecode(word))
    return path.suffix in (".yaml", ".yml", ".json") and path.parent == Path(config.directory)
