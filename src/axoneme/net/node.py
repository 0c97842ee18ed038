"""The node's own side of the network: the overlay device, and the ways to the pods of other nodes."""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

from axoneme.net.commands import NetworkError, ip
from axoneme.net.pods import OVERLAY_MAC

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

OVERLAY: Final = "axo_overlay"
_SIOCGIFMTU: Final = 0x8921
#: Outer Ethernet, IP, UDP and VXLAN headers (RFC 7348).
OVERHEAD: Final = {4: 50, 6: 70}

_SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # Answers to pods come from where no route of the kernel's points.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}


@dataclass(frozen=True, slots=True)
class NodeRoute:
    """Another node's pods: ``via`` its underlay address, or through the overlay where that is None.

    ``source`` is what this node itself sends from.
    """

    pods: Network
    via: Address | None
    source: Address | None
    mtu: int

    def command(self, verb: str) -> str:
        if self.via is not None:
            return f"route {verb} {self.pods} via {self.via}"
        source = f" src {self.source}" if self.source is not None else ""
        return f"route {verb} {self.pods} dev {OVERLAY}{source} mtu {self.mtu}"


def prepare() -> None:
    """Lets this network namespace forward packets."""
    for name, value in _SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def overlay_device(port: int, mtu: int) -> int:
    """Makes the VXLAN device in metadata mode if it is not there; its ifindex.

    It resolves no neighbours: all overlay devices have one address, and the identity and the node stand
    in the tunnel's header.
    """
    try:
        return socket.if_nametoindex(OVERLAY)
    except OSError:
        pass
    ip(
        [
            f"link add {OVERLAY} address {OVERLAY_MAC} mtu {mtu} "
            f"type vxlan external dstport {port} nolearning",
            f"link set {OVERLAY} arp off up",
        ]
    )
    return socket.if_nametoindex(OVERLAY)


def remove_overlay_device() -> None:
    ip([f"link del {OVERLAY}"], force=True)


def change_routes(gone: set[NodeRoute], wanted: set[NodeRoute]) -> None:
    """Removes the first and writes the second; `NetworkError` names one that the kernel refuses."""
    keep = {route.pods for route in wanted}
    if deletions := [route.command("del") for route in gone if route.pods not in keep]:
        ip(deletions, force=True)
    if wanted:
        ip([route.command("replace") for route in sorted(wanted, key=str)])


def link_mtu(interface: str) -> int:
    """By a socket, which belongs to this network namespace; /sys shows the one where it was mounted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            answer = fcntl.ioctl(handle, _SIOCGIFMTU, struct.pack("16sI20x", interface.encode(), 0))
        except OSError as error:
            raise NetworkError(f"interface {interface}: {error.strerror}; name one that exists") from error
    return int(struct.unpack("16sI20x", answer)[1])
