"""A node's datapath without a network: real programs and tables, packets by hand."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import numpy as np

from axoneme.datapath import bpffs, testrun
from axoneme.datapath.plane import Constants, Datapath, Sizes, packed, prefix_bits
from axoneme.datapath.ring import RingReader
from axoneme.policy.arrays import entry_arrays
from axoneme.policy.table import Key, Value
from oracle.packets import ETHERNET, Address

PASS, SHOT, REDIRECT = 0, 2, 7
LOOPBACK = 1
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def private_network() -> Iterator[None]:
    """This thread in a network namespace of its own: no routes, and lo with ifindex 1."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if _libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    try:
        yield
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(home)


class Node:
    """Pods and peers are table entries; a packet is put where it would have been seen."""

    #: ifindex of a device to the outside, and of another one, where a test has made them.
    uplink = 0
    elsewhere = 0

    def __init__(self, root: Path, constants: Constants, **sizes: int) -> None:
        default = {"flows": 65536, "policies": 65536, "addresses": 65536}
        self.root = root
        self.plane = Datapath.load(root, constants, Sizes(default | sizes))
        event = self.plane.schema.struct("event")
        self._rings = [
            RingReader.pinned(root / "maps" / name, event) for name in ("flow_events", "drop_events")
        ]

    def endpoint(self, address: Address, identity: int, ifindex: int = LOOPBACK, number: int = 7) -> None:
        value = np.zeros((), self.plane.schema.struct("endpoint"))
        value["ifindex"], value["identity"], value["id"] = ifindex, identity, number
        value["mac"] = [10, 0, 0, 0, 0, number & 0xFF]
        self.plane.endpoints.put(self._address(address), value)

    def remove_endpoint(self, address: Address) -> None:
        self.plane.endpoints.discard(self._address(address))

    def _address(self, address: Address) -> Any:
        key = np.zeros((), self.plane.schema.struct("address_key"))
        key["address"] = np.frombuffer(packed(address), "u1")
        return key

    def address(
        self, prefix: Address | IPv4Network | IPv6Network, identity: int, node: Address | None, flags: int = 0
    ) -> None:
        network = prefix if isinstance(prefix, IPv4Network | IPv6Network) else ip_network(prefix)
        key = np.zeros((), self.plane.schema.struct("prefix_key"))
        key["prefix_length"] = prefix_bits(network)
        key["address"] = np.frombuffer(packed(network.network_address), "u1")
        value = np.zeros((), self.plane.schema.struct("address"))
        value["identity"], value["flags"] = identity, flags
        if node is not None:
            value["node"] = np.frombuffer(packed(node), "u1")
        self.plane.addresses.put(key, value)

    def policies(self, table: dict[Key, Value]) -> None:
        """The whole policy table, in place of what was there."""
        self.plane.policies.clear()
        keys, values = entry_arrays(
            list(table.items()),
            self.plane.schema.struct("policy_key"),
            self.plane.schema.struct("policy_value"),
        )
        self.plane.policies.write(keys, values)

    def open(self, *identities: int) -> None:
        """No policy selects these."""
        self.policies({Key(i, 0, d, 0, 0, 72): Value(1, 0) for i in identities for d in (0, 1)})

    def uplink_to_everywhere(self, *addresses: Address) -> None:
        """A device with these addresses and with routes to everywhere. It goes with the test's namespace."""
        lines = "link set lo up\nlink add up0 type veth peer name up1\n"
        lines += f"link set up0 address {ETHERNET[:6].hex(':')}\nlink set up0 up\nlink set up1 up\n"
        for address in addresses:
            lines += (
                f"addr add {address}/24 dev up0\nroute add default via 172.31.0.254\n"
                if address.version == 4
                else f"addr add {address}/64 dev up0 nodad\nroute add default via fd00:a0::fe dev up0\n"
            )
        subprocess.run(["ip", "-batch", "-"], text=True, check=True, input=lines)
        for knob in ("ipv4.conf.all.forwarding", "ipv6.conf.all.forwarding"):
            subprocess.run(["sysctl", "-qw", f"net.{knob}=1"], check=True)
        self.uplink, self.elsewhere = socket.if_nametoindex("up0"), socket.if_nametoindex("up1")

    def narrow_route(self, to: Address, mtu: int) -> None:
        """To this destination packets may be no larger than that."""
        way = "via 172.31.0.254" if to.version == 4 else "via fd00:a0::fe"
        arguments = f"route replace {to} {way} dev up0 mtu lock {mtu}"
        subprocess.run(["ip", *arguments.split()], check=True)

    def forget_routes(self, *destinations: Address) -> None:
        """Those of `narrow_route`."""
        for to in destinations:
            subprocess.run(["ip", "route", "flush", f"{to}/{to.max_prefixlen}"], check=True)

    def reset(self) -> None:
        """As it was when it was made, but for routes."""
        plane = self.plane
        for table in (plane.endpoints, plane.addresses, plane.policies, plane.uplinks, plane.exhausted):
            table.clear()
        for table in (plane.translations, plane.half_open_translations):
            table.clear()
        self.forget_flows()
        self.events()

    def masquerade(self, *addresses: Address) -> None:
        self._uplink(self.uplink, addresses)

    def uplink_is_known(self) -> None:
        self._uplink(self.uplink, ())

    def answer_as(self, *addresses: Address) -> None:
        """Of these, the node's messages to the senders of packets come."""
        self._uplink(0, addresses)

    def _uplink(self, ifindex: int, addresses: tuple[Address, ...]) -> None:
        value = np.zeros((), self.plane.schema.struct("uplink"))
        for address in addresses:
            value[f"ipv{address.version}"] = np.frombuffer(packed(address), "u1")
        self.plane.uplinks.put(ifindex, value)

    def forget_flows(self) -> None:
        """No connection is known any more."""
        self.plane.flows.clear()
        self.plane.half_open.clear()

    def send(self, program: str, packet: bytes, ifindex: int = LOOPBACK, **fields: int) -> testrun.Run:
        """``fields``: others of the socket buffer, by name."""
        return testrun.run(self.plane.program(program), packet, testrun.skb(ifindex=ifindex, **fields))

    def events(self) -> list[Any]:
        """What was reported since the last call, in the order of time."""
        found = [event for ring in self._rings for event in ring.read(1 << 16)]
        return sorted(found, key=lambda event: int(event["time"]))


@contextmanager
def node(root: Path, constants: Constants | None = None, **sizes: int) -> Iterator[Node]:
    """``sizes``: entries of tables, by name."""
    with private_network():
        made = Node(root, constants or Constants(), **sizes)
        try:
            yield made
        finally:
            made.plane.close()
            bpffs.unmount(root)
