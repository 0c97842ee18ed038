"""A pod's network, as its node's agent makes it: the kubelet's side of `endpoint.attach` and `detach`.

And the hosts file that its processes see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from axoneme.rpc import CONFLICT, NOT_FOUND, AsyncClient, RpcError
from axoneme.sandbox.dns.domain import DOMAIN
from axoneme.sandbox.kubelet.programs import hostname
from axoneme.sandbox.objects import Pod

INTERFACE: Final = "eth0"


class AttachedAddress(msgspec.Struct, frozen=True):
    address: str
    prefix_length: int
    gateway: str


class Attached(msgspec.Struct, frozen=True):
    """The agent's answer: the pod can send and receive, under its policy."""

    addresses: tuple[AttachedAddress, ...]
    mac: str = ""
    mtu: int = 0
    host_interface: str = ""
    identity: int = 0
    endpoint_id: int = 0

    def texts(self) -> tuple[str, ...]:
        return tuple(each.address for each in self.addresses)


async def attach(agent: AsyncClient, pod: Pod, namespace: Path) -> Attached:
    """Puts the pod on the network; raises RpcError, UNAVAILABLE when the agent is not there.

    A supervisor that was killed between the agent's doing and its own writing it down left an endpoint
    that nobody knows: that one makes way.
    """
    wish = {
        "container_id": pod.metadata.uid,
        "netns": str(namespace),
        "ifname": INTERFACE,
        "namespace": pod.metadata.namespace,
        "pod": pod.metadata.name,
        "uid": pod.metadata.uid,
    }
    try:
        return await agent.call("endpoint.attach", wish, Attached)
    except RpcError as failure:
        if failure.code != CONFLICT:
            raise
    await detach(agent, pod.metadata.uid)
    return await agent.call("endpoint.attach", wish, Attached)


async def detach(agent: AsyncClient, uid: str) -> None:
    """Takes the pod off the network, also when the agent knows of none."""
    try:
        await agent.call("endpoint.detach", {"container_id": uid, "ifname": INTERFACE})
    except RpcError as failure:
        if failure.code != NOT_FOUND:
            raise


def hosts_file(pod: Pod, addresses: tuple[str, ...]) -> str:
    """/etc/hosts as a kubelet writes it."""
    name = hostname(pod)
    names = name
    if pod.spec.subdomain:
        names = f"{name}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{DOMAIN} {name}"
    lines = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        *(f"{address} {names}" for address in addresses),
        *(f"{alias.ip} {' '.join(alias.hostnames)}" for alias in pod.spec.host_aliases),
    ]
    return "\n".join(lines) + "\n"
