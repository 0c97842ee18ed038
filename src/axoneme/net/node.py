"""The node's own side of the network: the overlay device, and the ways to the pods of other nodes."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from axoneme.net.commands import NetworkError, ip, show
from axoneme.net.pods import OVERLAY_MAC, is_pod_link

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

OVERLAY: Final = "axo_overlay"
#: Marks our routes among those of others (one of the numbers that iproute2 names for nobody).
PROTOCOL: Final = "112"
_SIOCGIFMTU: Final = 0x8921
_LINKS: Final = IPv6Network("fe80::/10")
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

    def command(self) -> str:
        if self.via is not None:
            return f"route replace {self.pods} via {self.via} proto {PROTOCOL}"
        source = f" src {self.source}" if self.source is not None else ""
        return f"route replace {self.pods} dev {OVERLAY}{source} mtu {self.mtu} proto {PROTOCOL}"


def prepare() -> None:
    """Lets this network namespace forward packets."""
    for name, value in _SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def overlay_device(port: int, mtu: int, index: int = 0) -> int:
    """Makes the VXLAN device in metadata mode if it is not there, with the ifindex ``index`` if not 0. Its
    ifindex.

    It resolves no neighbours: all overlay devices have one address, and the identity and the node stand
    in the tunnel's header.
    """
    try:
        return socket.if_nametoindex(OVERLAY)
    except OSError:
        pass
    ip(
        [
            f"link add {OVERLAY} {f'index {index} ' if index else ''}address {OVERLAY_MAC} mtu {mtu} "
            f"type vxlan external dstport {port} nolearning",
            f"link set {OVERLAY} arp off up",
        ]
    )
    return socket.if_nametoindex(OVERLAY)


def remove_overlay_device() -> None:
    ip([f"link del {OVERLAY}"], force=True)


def change_routes(gone: set[Network], wanted: set[NodeRoute]) -> None:
    """Removes the ways to the first and writes the second; `NetworkError` names one that is refused."""
    if deletions := [
        f"route del {pods} proto {PROTOCOL}" for pods in gone - {route.pods for route in wanted}
    ]:
        ip(deletions, force=True)
    if wanted:
        ip([route.command() for route in sorted(wanted, key=str)])


def routed() -> set[Network]:
    """The pod ranges to which this network namespace has routes of ours, from whichever agent."""
    return {
        ip_network(route["dst"])
        for family in ("-4", "-6")
        for route in show(family, "route", "show", "proto", PROTOCOL)
    }


def addresses() -> dict[str, list[Address]]:
    """The addresses of each interface of this network namespace but the pods', without loopback's and IPv6
    links'. First those that it would call from: the deprecated ones are called all the same."""
    found: dict[str, list[Address]] = {}
    for link in show("address", "show"):
        if link and not is_pod_link(link["ifname"]):
            held = sorted(link.get("addr_info", ()), key=_is_second_choice)
            own = [ip_address(each["local"]) for each in held if "local" in each]
            found[link["ifname"]] = [each for each in own if not each.is_loopback and each not in _LINKS]
    return found


def _is_second_choice(info: Mapping[str, Any]) -> bool:
    return info.get("scope") != "global" or bool(info.get("deprecated"))


def link_mtu(interface: str) -> int:
    """By a socket, which belongs to this network namespace; /sys shows the one where it was mounted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            answer = fcntl.ioctl(handle, _SIOCGIFMTU, struct.pack("16sI20x", interface.encode(), 0))
        except OSError as error:
            raise NetworkError(f"interface {interface}: {error.strerror}; name one that exists") from error
    return int(struct.unpack("16sI20x", answer)[1])
