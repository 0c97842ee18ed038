"""A machine leaves the network for good: what its agents have made is taken away, the objects stay.

An agent that only ends leaves all of this to the next one.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

from axoneme.agent import healthendpoint
from axoneme.agent.config import AgentConfig
from axoneme.certificates.files import DIRECTORY as CERTIFICATES
from axoneme.certificates.state import ISSUED, REQUESTS
from axoneme.datapath import attach, bpffs, hostfilter
from axoneme.flows.rules import FILE_NAME
from axoneme.model.state import ENDPOINTS, node_key
from axoneme.net import netns, node, pods, proxying
from axoneme.rpc import Client, RpcError
from axoneme.sources.config import open_store
from axoneme.sources.identities import HOLDS
from axoneme.sources.podranges import release
from axoneme.sources.store import Store


class StillInUse(RuntimeError):
    """The machine cannot leave yet; the text says why, and what to do."""


def leave(config: AgentConfig, force: bool = False) -> list[str]:
    """What was removed, a line each. `StillInUse` with a running agent, or containers without ``force``.

    May be repeated, also after it was interrupted.
    """
    try:
        pid = Client(config.agent_socket_path).call("status")["pid"]
        raise StillInUse(f"the agent of {config.node} runs (process {pid}): stop it first")
    except RpcError:
        pass
    links = pods.host_interfaces()
    if links and not force:
        found = f"{len(links)} containers are attached to {config.node}"
        raise StillInUse(f"{found}: remove them, or cut them off with --force")
    done = []
    if config.cni_config and Path(config.cni_config).exists():
        Path(config.cni_config).unlink()  # first: runtimes bring no more containers
        done.append(f"{config.cni_config}: the network of container runtimes")
    for link in links:
        pods.remove(link)
        done.append(f"{link}: the interface of a container")
    pods.remove(healthendpoint.LINK)
    netns.release(config.health_namespace)
    for name in config.uplinks:
        _detach(config, name)
    if bpffs.unmount(config.bpffs_path):
        done.append(f"{config.bpffs_path}: programs and tables")
    node.remove_overlay_device()
    if routes := node.routed():
        node.change_routes(routes, set())
        done.append(f"routes to {len(routes)} pod ranges of other nodes")
    if proxying.withdraw():
        done.append("the rule for packets to proxies")
    done += asyncio.run(_withdraw(config))
    shutil.rmtree(config.state_path / "endpoints", ignore_errors=True)
    shutil.rmtree(config.state_path / CERTIFICATES, ignore_errors=True)
    for path in (
        config.state_path / FILE_NAME,
        config.agent_socket_path,
        Path(config.cni_socket or "/nowhere"),
    ):
        path.unlink(missing_ok=True)
    return done


def _detach(config: AgentConfig, uplink: str) -> None:
    """Filters stay with the interface; links go with their pins."""
    try:
        ifindex = socket.if_nametoindex(uplink)
    except OSError:
        return
    links = config.bpffs_path / "links"
    attach.detach(ifindex, attach.INGRESS, links / f"{uplink}-ingress")
    attach.detach(ifindex, attach.EGRESS, links / f"{uplink}-egress")
    hostfilter.remove(ifindex)


async def _withdraw(config: AgentConfig) -> list[str]:
    store: Store = open_store(config.store)
    try:
        done = [f"the claim on {prefix}" for prefix in await release(store, config.node)]
        for kind in (ENDPOINTS, HOLDS, REQUESTS, ISSUED):
            prefix = f"{kind}{config.node}/"
            for entry in (await store.list(prefix)).entries:
                await store.delete(entry.key)
        if await store.get(node_key(config.node)) is not None:
            await store.delete(node_key(config.node))
            done.append(f"node {config.node}")
        return done
    finally:
        await store.close()
