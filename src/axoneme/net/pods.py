"""A pod's interface: a veth pair, one end inside, with one neighbour and one way out.

The gateway is the same link-local address for every pod; it exists nowhere. Its link layer address is
fixed in the pod's neighbour table (and answered for by the datapath if somebody asks all the same), and
all host ends have it.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import re
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axoneme.net.commands import NetworkError, ip, show

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Both as in bpf/config.h.
GATEWAY_MAC: Final = "02:61:78:6f:00:01"
OVERLAY_MAC: Final = "02:61:78:6f:00:02"
_HOST_INTERFACE: Final = re.compile("axo[0-9a-f]{8}")
_SIOCGIFFLAGS: Final = 0x8913
_IFF_RUNNING: Final = 0x40
#: Seconds for a link to run; it goes on without.
_LONGEST_WAIT: Final = 1.0
IPV4_GATEWAY: Final = "169.254.1.1"
IPV6_GATEWAY: Final = "fe80::1"


@dataclass(frozen=True, slots=True)
class PodLink:
    """``route_mtu`` is what fits through the overlay; ``mtu`` what the node's own link takes."""

    namespace: Path
    interface: str
    host_interface: str
    addresses: tuple[Address, ...]
    mac: str
    mtu: int
    route_mtu: int


def host_interface(container_id: str, interface: str) -> str:
    """The name of the host end: the same for the same container, so that a repeated ADD finds it."""
    return "axo" + hashlib.sha256(f"{container_id}/{interface}".encode()).hexdigest()[:8]


def mac_of(container_id: str, interface: str) -> str:
    """A locally administered unicast address, the same for the same container."""
    digest = hashlib.sha256(f"mac {container_id}/{interface}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in bytes([0x0A]) + digest[:5])


def create(link: PodLink) -> int:
    """Makes the pair, both ends down. The ifindex of the host end."""
    ip(
        [
            f"link add {link.host_interface} address {GATEWAY_MAC} mtu {link.mtu} type veth peer name "
            f"{link.interface} address {link.mac} mtu {link.mtu} netns {link.namespace}"
        ]
    )
    return socket.if_nametoindex(link.host_interface)


def connect(link: PodLink) -> None:
    """Gives the inside its addresses and routes, and the node its routes to it; both ends go up.

    The end that goes up last can send at once; the other only when the kernel has got round to noticing
    that (milliseconds, more on a busy machine), and drops until then. So the pod's is the last, and the
    node's is waited for.
    """
    connect_outside(link)
    ip(_inside(link), link.namespace)
    until = time.monotonic() + _LONGEST_WAIT
    while not _running(link.host_interface) and time.monotonic() < until:
        time.sleep(0.0005)


def _running(interface: str) -> bool:
    request = struct.pack("16sH22x", interface.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
    return bool(struct.unpack_from("16xH", answer)[0] & _IFF_RUNNING)


def connect_outside(link: PodLink) -> None:
    """The node's part of `connect`; may be repeated."""
    ip(_outside(link))
    accept_own(link.host_interface)


def accept_own(host_interface_name: str) -> None:
    """Lets packets in by a pod's link that the node itself has sent to the pod.

    The datapath sends those back in that a proxy has to look at first; the kernel would take them for forged.
    """
    knob = Path("/proc/sys/net/ipv4/conf") / host_interface_name / "accept_local"
    with suppress(FileNotFoundError):  # the link is going
        knob.write_text("1")


def remove(host_interface_name: str) -> bool:
    """Removes the pair; False when there was none (the pod's namespace may have gone with it)."""
    try:
        socket.if_nametoindex(host_interface_name)
    except OSError:
        return False
    ip([f"link del {host_interface_name}"], force=True)
    return True


def _inside(link: PodLink) -> list[str]:
    commands = [f"link set {link.interface} up", "link set lo up"]
    for address in link.addresses:
        gateway = IPV4_GATEWAY if address.version == 4 else IPV6_GATEWAY
        family = f"-{address.version}"
        commands += [
            f"addr add {address}/{address.max_prefixlen} dev {link.interface}"
            + (" nodad" if address.version == 6 else ""),
            f"neigh replace {gateway} lladdr {GATEWAY_MAC} nud permanent dev {link.interface}",
            *([f"route add {gateway} dev {link.interface} scope link"] if address.version == 4 else []),
            f"{family} route replace default via {gateway} dev {link.interface} mtu {link.route_mtu}".replace(
                f"{family} ", ""
            ),
        ]
    return commands


def _outside(link: PodLink) -> list[str]:
    commands = [f"link set {link.host_interface} up"]
    for address in link.addresses:
        commands += [
            f"neigh replace {address} lladdr {link.mac} nud permanent dev {link.host_interface}",
            f"route replace {address}/{address.max_prefixlen} dev {link.host_interface}",
        ]
    return commands


def faults(link: PodLink) -> list[str]:
    """What is missing inside; routes besides the way out are other plugins' matter."""
    found = [
        each for each in show("address", "show", namespace=link.namespace) if each["ifname"] == link.interface
    ]
    if not found:
        return [f"there is no {link.interface} inside"]
    here = {each["local"] for each in found[0]["addr_info"]}
    missing = [f"{link.interface} has no address {a}" for a in map(str, link.addresses) if a not in here]
    if "UP" not in found[0]["flags"]:
        missing.append(f"{link.interface} is down")
    if found[0]["address"] != link.mac:
        missing.append(f"{link.interface} has the address {found[0]['address']}, not {link.mac}")
    for version in {address.version for address in link.addresses}:
        routes = show(f"-{version}", "route", "show", "default", namespace=link.namespace)
        if not any(route.get("dev") == link.interface for route in routes):
            missing.append(f"there is no IPv{version} route by {link.interface}")
    return missing


def faults_outside(link: PodLink) -> list[str]:
    """What the node lacks of its ways to the pod; nothing without a link."""
    if not existing([link.host_interface]):
        return []
    device = ("dev", link.host_interface)
    try:
        routes = [each["dst"] for version in "46" for each in show(f"-{version}", "route", "show", *device)]
        here = {each["dst"]: each.get("lladdr") for each in show("neighbor", "show", *device)}
    except NetworkError:
        if existing([link.host_interface]):
            raise
        return [f"its link {link.host_interface} has gone"]  # at this moment, with its namespace
    return [f"the node has no route to {a}" for a in map(str, link.addresses) if a not in routes] + [
        f"the node has no neighbour {a}" for a in map(str, link.addresses) if here.get(a) != link.mac
    ]


def routed() -> set[tuple[str, str]]:
    """Pairs of an address, or a prefix, and the interface to which this network namespace routes it."""
    return {
        (route["dst"], route["dev"])
        for family in ("-4", "-6")
        for route in show(family, "route", "show")
        if "dev" in route
    }


def existing(names: Sequence[str]) -> dict[str, int]:
    """Which of these interfaces are there, with their ifindex."""
    here = {name: index for index, name in socket.if_nameindex()}
    return {name: here[name] for name in names if name in here}


def host_interfaces() -> list[str]:
    """The host ends of pods' links that are in this network namespace."""
    return [name for _, name in socket.if_nameindex() if is_pod_link(name)]


def is_pod_link(name: str) -> bool:
    return _HOST_INTERFACE.fullmatch(name) is not None
