"""SCTP without the kernel's: INIT and INIT ACK (RFC 9260, section 3.3) on raw sockets, checksums checked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import NamedTuple, Self

from axoneme.net import netns
from oracle.packets import crc32c

_SCTP, _INIT, _INIT_ACK = 132, 1, 2
_TAG = 0x5EED5EED


class _Packet(NamedTuple):
    source_port: int
    destination_port: int
    chunk: int

    def encode(self) -> bytes:
        tag = 0 if self.chunk == _INIT else _TAG
        body = struct.pack("!BBHIIHHI", self.chunk, 0, 20, _TAG, 65536, 1, 1, 1)
        header = struct.pack("!HHI", self.source_port, self.destination_port, tag)
        return header + struct.pack("<I", crc32c(header + bytes(4) + body)) + body

    @classmethod
    def decode(cls, data: bytes) -> _Packet | None:
        """None for what has a wrong checksum."""
        if len(data) < 16 or struct.pack("<I", crc32c(data[:8] + bytes(4) + data[12:])) != data[8:12]:
            return None
        source, destination = struct.unpack_from("!HH", data)
        return cls(source, destination, data[12])


def _open(namespace: Path, family: socket.AddressFamily) -> socket.socket:
    made = netns.open_socket(namespace, family, socket.SOCK_RAW, _SCTP)
    made.settimeout(0.2)
    return made


def _receive(raw: socket.socket) -> tuple[_Packet | None, str]:
    data, sender = raw.recvfrom(2048)
    if raw.family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]
    return _Packet.decode(data), sender[0]


class Server:
    """Answers INIT at a port of a namespace; ``asked`` has the addresses of who asked."""

    def __init__(self, namespace: Path, port: int) -> None:
        self._port = port
        self._end = threading.Event()
        self.asked: list[str] = []
        self._sockets = [_open(namespace, family) for family in (socket.AF_INET, socket.AF_INET6)]
        self._threads = [threading.Thread(target=self._serve, args=(each,)) for each in self._sockets]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for each in self._threads:
            each.join()
        for raw in self._sockets:
            raw.close()

    def _serve(self, raw: socket.socket) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                packet, sender = _receive(raw)
                if packet and (packet.destination_port, packet.chunk) == (self._port, _INIT):
                    self.asked.append(sender)
                    answer = _Packet(self._port, packet.source_port, _INIT_ACK)
                    raw.sendto(answer.encode(), (sender, 0))


def associate(namespace: Path, address: str, port: int, source_port: int, tries: int = 20) -> bool:
    """Whether the INIT is answered from where it went, with a right checksum."""
    with _open(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET) as raw:
        raw.sendto(_Packet(source_port, port, _INIT).encode(), (address, 0))
        for _ in range(tries):
            with contextlib.suppress(TimeoutError):
                packet, sender = _receive(raw)
                if packet == _Packet(port, source_port, _INIT_ACK) and sender == address:
                    return True
        return False
