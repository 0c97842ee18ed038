"""A neighbour on the nodes' link: asks for addresses by hand, and hears what is announced."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from axoneme.net import netns
from oracle.packets import ICMPV6, ip_header, with_checksum

Address = IPv4Address | IPv6Address

_ALL: Final = 3  # ETH_P_ALL
#: Who asks: nobody has these.
_FROM: Final = {4: IPv4Address("172.31.0.199"), 6: IPv6Address("fe80::aa")}


class Neighbour:
    """On a bridge, whose own sockets see what its ports bring."""

    def __init__(self, namespace: Path, device: str = "br0") -> None:
        self._socket = netns.open_socket(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.bind((device, _ALL))
        self._mac: bytes = self._socket.getsockname()[4]

    def close(self) -> None:
        self._socket.close()

    def answers(self, address: Address, patience: float = 0.3) -> set[bytes]:
        """The link addresses that claim the address when they are asked."""
        for _ in self._frames(0):
            pass
        self._socket.send(_question(address, self._mac))
        found = {claim(frame, address) for frame in self._frames(patience) if frame[:6] == self._mac}
        return {mac for mac in found if mac}

    def announced(self, address: Address, mac: bytes, patience: float = 20.0) -> bool:
        """Whether an announcement to everybody is heard, that this is where the address is."""
        return any(
            frame[0] & 1 and frame[6:12] == mac and claim(frame, address) == mac
            for frame in self._frames(patience)
        )

    def _frames(self, seconds: float) -> Iterator[bytes]:
        deadline = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(deadline - time.monotonic(), 0))
            try:
                yield self._socket.recv(65536)
            except (TimeoutError, BlockingIOError):
                return


def _question(address: Address, mac: bytes) -> bytes:
    if isinstance(address, IPv4Address):
        head = b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
        return b"\xff" * 6 + mac + head + mac + _FROM[4].packed + bytes(6) + address.packed
    group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)
    message = struct.pack(">BBHI", 135, 0, 0, 0) + address.packed + b"\x01\x01" + mac
    frame = b"\x33\x33" + group.packed[12:] + mac
    return with_checksum(frame + ip_header(_FROM[6], group, ICMPV6, len(message), ttl=255) + message)


def claim(frame: bytes, address: Address) -> bytes | None:
    """The link address that a frame says the address has, in ARP or an advertisement."""
    if frame[12:14] == b"\x08\x06" and len(frame) >= 42 and frame[28:32] == address.packed:
        return frame[22:28]
    if frame[12:14] == b"\x86\xdd" and len(frame) >= 86 and frame[20] == ICMPV6 and frame[54] == 136:
        return frame[80:86] if frame[62:78] == address.packed else None
    return None
