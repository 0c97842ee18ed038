"""One node whose pods talk to each other; what is on it is looked at from every side."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from checkers import OPEN, Place, Report, between, forbidden, mesh, under_traffic
from one_node import Node, node
from two_nodes import inside

from axoneme.datapath import attach
from axoneme.net import pods
from axoneme.net.commands import show
from axoneme.rpc import RpcError

POLICY_KEY = "objects/CiliumNetworkPolicy/default/members"
ECHO = [{"fields": [{"family": "IPv4", "type": 8}, {"family": "IPv6", "type": 128}]}]
PORTS = [{"ports": [{"port": str(OPEN), "protocol": protocol} for protocol in ("TCP", "UDP")]}]
MEMBER = {"matchLabels": {"role": "member"}}
POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "members", "namespace": "default"},
    "spec": {
        "endpointSelector": MEMBER,
        "ingress": [
            {"fromEndpoints": [MEMBER], "toPorts": PORTS},
            {"fromEndpoints": [MEMBER], "icmps": ECHO},
            {"fromEntities": ["host"]},
        ],
    },
}


class Alone:
    """A node with two members and a stranger."""

    def __init__(self, made: Node) -> None:
        self.node = made
        self.places: dict[str, Place] = {}
        made.start()
        for name in ("a", "b", "stranger"):
            self.plug(name, "stranger" if name == "stranger" else "member")
        made.write({POLICY_KEY: POLICY})
        made.wait(lambda: self.status()["policies"] == 1, "the policy", self.status)

    def plug(self, name: str, role: str) -> Place:
        namespace = self.node.namespaces.add(name)
        self.places[name] = place = Place(name, namespace, self.attach(name, namespace, role))
        return place

    def attach(self, name: str, namespace: Path, role: str = "member") -> tuple[str, ...]:
        """Its addresses; RpcError."""
        wish = {"container_id": name, "netns": str(namespace), "ifname": "eth0", "namespace": "default",
                "pod": name, "labels": {"role": role}}  # fmt: skip
        answer = self.node.client.call("endpoint.attach", wish)
        return tuple(each["address"] for each in answer["addresses"])

    @contextlib.contextmanager
    def traffic(self, program: Path, fault: str) -> Iterator[Report]:
        members = [self.places["a"], self.places["b"]]
        host = Place("node", self.node.namespace, ("172.31.0.1", "fd00:a0::1"), watched=False)
        streams = [*mesh(members), *forbidden(members, [self.places["stranger"]])]
        for place in members:
            streams += between(host, place)
        with under_traffic(program, fault, [*self.places.values(), host], streams) as report:
            yield report

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.node.client.call("status")
        return found

    def problems(self) -> dict[str, str]:
        found: dict[str, str] = self.status()["problems"]
        return found

    # ---- from every side -----------------------------------------------------------------------

    def remembered(self) -> dict[str, dict[str, Any]]:
        """Records on disk, by link."""
        records = [json.loads(path.read_bytes()) for path in self._records.glob("*.json")]
        return {record["state"]["host_interface"]: record for record in records}

    @property
    def _records(self) -> Path:
        config = yaml.safe_load((self.node.folder / "agent.yaml").read_text())
        return Path(config.get("state", self.node.folder / "state")) / "endpoints"

    def record_of(self, name: str) -> Path:
        return self._records / f"{pods.host_interface(name, 'eth0')}.json"

    def links(self) -> dict[str, int]:
        with inside(self.node.namespace):
            return pods.existing([*pods.host_interfaces(), "axo_health"])

    def routes(self) -> set[tuple[str, str]]:
        with inside(self.node.namespace):
            found = pods.routed()
        return {(to, link) for to, link in found if pods.is_pod_link(link) or link == "axo_health"}

    def overlay(self) -> dict[str, Any]:
        with inside(self.node.namespace):
            return show("-details", "link", "show", "axo_overlay")[0]

    def programs(self, link: str) -> int:
        """How many of ours are attached to a device."""
        with inside(self.node.namespace):
            ifindex = socket.if_nametoindex(link)
            return sum(len(attach.attached(ifindex, point)) for point in (attach.INGRESS, attach.EGRESS))

    def table(self, name: str) -> dict[bytes, bytes]:
        """A pinned table, as bpftool would show it."""
        from axoneme.datapath.maps import Table
        from axoneme.datapath.schema import Schema

        schema = Schema.load()
        key, value = {
            "endpoints": ("address_key", "endpoint"),
            "addresses": ("prefix_key", "address"),
            "policies": ("policy_key", "policy_value"),
        }[name]
        opened = Table.pinned(
            self.node.folder / "bpf" / "maps" / name, schema.struct(key), schema.struct(value)
        )
        try:
            keys, values = opened.read_all()
        finally:
            opened.close()
        return {k.tobytes(): v.tobytes() for k, v in zip(keys, values, strict=True)}

    def disagreements(self) -> list[str]:
        """Where records, links, routes, the kernel's table, the store and the agent differ about pods."""
        records = self.remembered()
        links = self.links()
        addresses = {a for record in records.values() for a in record["state"]["addresses"]}
        known = {str(_address(key)) for key in self.table("endpoints")}
        store = self.store()
        endpoints = {
            value["host_interface"]: value
            for key, value in store.items()
            if key.startswith("state/endpoints/node1/")
        }
        identities = {record["state"]["identity"] for record in records.values()}
        used = {value for value in identities if value >= 256}
        held = {
            int(key.rpartition("/")[2]) for key in store if key.startswith("state/identities/holds/node1/")
        }
        found = []
        for what, one, other in (
            ("records and links", set(records), set(links)),
            ("addresses of records and of the kernel", addresses, known),
            (
                "addresses of records and routes",
                addresses,
                {to for to, _ in self.routes() if not to.startswith("fe80:")},
            ),
            ("identities of records and those held", used, held),
        ):
            if one != other:
                found.append(f"{what}: {one ^ other}")
        for host, record in records.items():
            if record["ifindex"] != links.get(host):
                found.append(f"{host}: the record says {record['ifindex']}, the kernel {links.get(host)}")
            if host in endpoints and endpoints[host] != record["state"]:
                found.append(f"{host}: the store has {endpoints[host]}")
        pods_here = {host for host, record in records.items() if record["state"]["identity"] >= 256}
        if set(endpoints) != pods_here:
            found.append(f"records and the store: {set(endpoints) ^ pods_here}")
        if left := list(self._records.glob("*.partial")):
            found.append(f"left on the disk: {left}")
        return found

    def store(self) -> dict[str, dict[str, Any]]:
        """All of the shared state."""
        import asyncio

        from axoneme.sources.sqlite import SqliteStore

        async def read() -> dict[str, dict[str, Any]]:
            store = SqliteStore(self.node.store)
            try:
                listing = await store.list("state/")
                return {entry.key: json.loads(entry.value) for entry in listing.entries}
            finally:
                await store.close()

        return asyncio.run(read())


def _address(key: bytes) -> object:
    from ipaddress import IPv6Address

    full = IPv6Address(key[:16])
    return full.ipv4_mapped or full


@contextlib.contextmanager
def alone(**more: Any) -> Iterator[Alone]:
    with node(**more) as made:
        yield Alone(made)


def mounted(folder: Path, size: str) -> None:
    """A small tmpfs over it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "test-disk", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


__all__ = ["POLICY", "POLICY_KEY", "Alone", "RpcError", "alone", "fill", "mounted"]
