"""What passes the devices of a node's network namespace (packet(7)).

A packet is seen on its way in before any program of the datapath, and on its way out after all of them; what
a program hands into a pod directly (bpf_redirect_peer), it hands past the device. So each packet that comes
to a node from outside, or out of a pod, is seen where it comes in, and one that the node itself sends where
it goes out.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from axoneme.net import netns

_SOL_PACKET: Final = 263
_EVERYTHING: Final = 3  # ETH_P_ALL
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_PACKET_STATISTICS: Final = 6
_AUXDATA: Final = 8
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_OUTGOING: Final = 4
#: Kinds of devices (ARPHRD_…): their frames.
_ETHERNET, _LOOPBACK = 1, 772
_RAW: Final = (0xFFFE, 768, 776, 778)  # tun, tunnels of IP in IP
#: Bytes that wait for us.
_ROOM: Final = 32 << 20


class Seen(NamedTuple):
    """One packet as it passed; ``data`` as much of it as is wanted, ``length`` all of it."""

    time: int  # ns since 1970
    interface: str
    ethernet: bool  # else data begins with the header of IP
    outgoing: bool
    data: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Losses:
    """Packets that came by since this was asked for last, and those of them that there was no room for."""

    passed: int
    lost: int


class Tap:
    """All devices of a namespace but its loopback. To be closed."""

    def __init__(self, namespace: Path, most: int) -> None:
        """``most``: bytes of each packet. PermissionError without CAP_NET_RAW; ``namespace`` is a file of
        it."""
        self._most = most
        self._socket = netns.open_socket(
            namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING)
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, most: int) -> Iterator[Seen]:
        """So many of those that wait, at most."""
        for _ in range(most):
            try:
                data, control, _, sender = self._socket.recvmsg(self._most, 256)
            except BlockingIOError:
                return
            interface, _, kind, device, _ = sender
            time, length, tag = _told(control)
            # What came before the socket was made up has no time.
            if time and (device == _ETHERNET or device in _RAW):
                frame = data[: self._most]
                if tag:
                    frame = (frame[:12] + tag + frame[12:])[: self._most]
                yield Seen(
                    time,
                    interface,
                    device == _ETHERNET,
                    kind == _OUTGOING,
                    frame,
                    max(length + len(tag), len(frame)),
                )

    def losses(self) -> Losses:
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        passed, lost = struct.unpack("=II", raw)
        return Losses(passed, lost)

    def close(self) -> None:
        self._socket.close()


def _told(control: list[tuple[int, int, bytes]]) -> tuple[int, int, bytes]:
    """Time, length, and the tag of a VLAN that the device has taken off."""
    time, length, tag = 0, 0, b""
    for level, kind, raw in control:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, ns = struct.unpack("=qq", raw[:16])
            time = seconds * 1_000_000_000 + ns
        elif (level, kind) == (_SOL_PACKET, _AUXDATA):
            status, length, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", raw[:20])
            if status & _VLAN_VALID:
                tag = struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else 0x8100, tci)
    return time, length, tag
