"""A proxy between a client and a server that know nothing of it: three network namespaces in a row.

Here the kernel's own TPROXY hands the packets to the listeners, in the datapath's place.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from axoneme.net import kernel, netns
from axoneme.proxy import sockets

PORT = 10007
#: Of a family: the client, the server, and the proxy's node on either side.
ADDRESSES = {
    socket.AF_INET: ("10.1.0.1", "10.2.0.1", "10.1.0.254", "10.2.0.254"),
    socket.AF_INET6: ("fd00:1::1", "fd00:2::1", "fd00:1::fe", "fd00:2::fe"),
}


def steered(ports: Mapping[int | None, int]) -> str:
    """Rules for nft. ``ports``: by the port of the server (None: all others), the proxy's."""
    redirects = []
    for called, listening in sorted(ports.items(), key=lambda item: item[0] is None):
        which = "meta l4proto { tcp, udp }" + (f" th dport {called}" if called else "")
        redirects += [
            f"meta mark 0x200 {which} ip daddr 10.2.0.1 tproxy ip to 127.0.0.1:{listening} accept",
            f"meta mark 0x200 {which} ip6 daddr fd00:2::1 tproxy ip6 to [::1]:{listening} accept",
        ]
    lines = "\n        ".join(redirects)
    return f"""
table inet steered {{
    chain arriving {{
        type filter hook prerouting priority mangle;
        iifname toclient meta l4proto {{ tcp, udp }} meta mark set 0x200
        {lines}
        iifname toserver meta l4proto tcp socket transparent 1 meta mark set 0x200
        iifname toserver meta l4proto udp meta mark set 0x200
    }}
    chain leaving {{
        type filter hook output priority mangle;
        meta mark & 0xf00 == 0xb00 counter name egress
        meta mark & 0xf00 == 0xa00 counter name ingress
        meta mark & 0xf00 == 0x900 counter name answers
    }}
    counter egress {{}}
    counter ingress {{}}
    counter answers {{}}
}}
"""


class Rig:
    """Three network namespaces in a row."""

    def __init__(self, folder: Path) -> None:
        self.client, self.proxy, self.server = folder / "client", folder / "proxy", folder / "server"

    def socket(self, where: Path, family: int, kind: int) -> socket.socket:
        made = netns.open_socket(where, family, kind)
        made.settimeout(10)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        return made

    def run(self, where: Path, command: str | list[str], text: str = "") -> str:
        words = command.split() if isinstance(command, str) else command
        done = subprocess.run(
            ["nsenter", f"--net={where}", *words],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def listener(
        self, family: socket.AddressFamily, kind: socket.SocketKind, port: int = PORT
    ) -> socket.socket:
        with netns.opened(self.proxy) as descriptor, kernel.inside(descriptor):
            return sockets.listener(family, port, kind)

    def count(self, mark: str) -> int:
        return int(
            self.run(self.proxy, f"nft list counter inet steered {mark}").split("packets ")[1].split()[0]
        )


@contextmanager
def rig_in(folder: Path, ports: Mapping[int | None, int] = {None: PORT}) -> Iterator[Rig]:
    """In namespaces below ``folder``; ``ports`` as for `steered`."""
    made = Rig(folder)
    places = (made.client, made.proxy, made.server)
    for place in places:
        netns.make(place, netns.ROUTER_SYSCTLS if place is made.proxy else netns.ENDPOINT_SYSCTLS)
    try:
        for index, (place, name) in enumerate(((made.client, "toclient"), (made.server, "toserver"))):
            peer = os.open(place, os.O_RDONLY)
            made.run(
                made.proxy, f"ip link add {name} type veth peer name pod netns /proc/{os.getpid()}/fd/{peer}"
            )
            os.close(peer)
            made.run(made.proxy, f"ip link set {name} up")
            made.run(place, "ip link set pod up")
            for family, addresses in ADDRESSES.items():
                own, gateway = addresses[index], addresses[2 + index]
                bits = 24 if family == socket.AF_INET else 64
                made.run(made.proxy, f"ip address add {gateway}/{bits} dev {name}")
                made.run(place, f"ip address add {own}/{bits} dev pod")
                made.run(place, f"ip -{'4' if bits == 24 else '6'} route add default via {gateway}")
        for version in ("-4", "-6"):
            made.run(made.proxy, f"ip {version} rule add fwmark 0x200/0xf00 lookup 100")
            made.run(made.proxy, f"ip {version} route add local default dev lo table 100")
        made.run(made.proxy, "nft -f -", steered(ports))
        yield made
    finally:
        for place in places:
            netns.release(place)
