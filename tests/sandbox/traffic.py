"""Traffic that goes on while something is done to the datapath, and counts what is lost."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from two_nodes import connect, inside

#: Seconds until an answer counts as lost: longer than a busy machine takes for it.
PATIENCE = 5.0
#: Where ``struct tcp_info`` says how often something was sent again.
_RETRANSMITTED = 100
_identifiers = itertools.count(1000)
_ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}


class Echo:
    """Sends back what comes to these addresses, over TCP and UDP on one port, until it is closed."""

    def __init__(self, namespace: Path, port: int, addresses: Iterable[str]) -> None:
        with inside(namespace):
            self._tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            self._udp = [self._datagrams(address, port) for address in addresses]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        for each in self._udp:
            threading.Thread(target=self._answer, args=(each,), daemon=True).start()

    def _datagrams(self, address: str, port: int) -> socket.socket:
        """Bound to the address, from which the answers must come."""
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                talk, _ = self._tcp.accept()
                self._open.append(talk)
                threading.Thread(target=self._serve, args=(talk,), daemon=True).start()

    def _serve(self, talk: socket.socket) -> None:
        with contextlib.suppress(OSError), talk:
            while data := talk.recv(4096):
                talk.sendall(data)

    def _answer(self, udp: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, sender = udp.recvfrom(4096)
                if sender is None:  # it is shut down
                    return
                udp.sendto(data, sender)

    def close(self) -> None:
        for each in (self._tcp, *self._udp, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Stream(threading.Thread):
    """Says something again and again; every answer that does not come is counted in ``lost``."""

    def __init__(self, name: str, source: Path, address: str, port: int) -> None:
        super().__init__(name=name, daemon=True)
        self.source, self.address, self.port = source, address, port
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sent = self.lost = 0
        self.faults: list[str] = []
        self._end = threading.Event()

    def run(self) -> None:
        self.begin()
        while not self._end.wait(0.004):
            self.sent += 1
            began = time.monotonic()
            try:
                self.say(b"%d" % self.sent)
            except OSError as error:
                self.lost += 1
                self.faults.append(f"{self.name}, {self.sent}th, at {began:.3f}: {error!r}")

    def begin(self) -> None:
        pass

    def say(self, word: bytes) -> None:
        raise NotImplementedError

    def socket(self, kind: int, protocol: int = 0) -> socket.socket:
        with inside(self.source):
            made = socket.socket(self.family, kind, protocol)
        made.settimeout(PATIENCE)
        return made

    def end(self) -> None:
        self._end.set()
        self.join(10)


class OneConnection(Stream):
    """One TCP connection that stays."""

    def begin(self) -> None:
        self._talk = connect(self.source, self.address, self.port, PATIENCE)

    def say(self, word: bytes) -> None:
        self._talk.sendall(word)
        if self._talk.recv(4096) != word:
            raise ConnectionError("another answer, or the end")

    def end(self) -> None:
        super().end()
        self._talk.close()


class ManyConnections(Stream):
    """A new TCP connection for each word; one whose first packet had to be sent again counts as lost."""

    def say(self, word: bytes) -> None:
        with connect(self.source, self.address, self.port, PATIENCE) as talk:
            info = talk.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RETRANSMITTED + 4)
            if int.from_bytes(info[_RETRANSMITTED:], sys.byteorder):
                raise ConnectionError("SYN or its answer had to be sent again")
            talk.sendall(word)
            if talk.recv(4096) != word:
                raise ConnectionError("another answer, or the end")


class Datagrams(Stream):
    """From one UDP socket, or (``many``) a new one for each word."""

    many = False

    def begin(self) -> None:
        self._talk = self.socket(socket.SOCK_DGRAM)

    def say(self, word: bytes) -> None:
        if self.many:
            self._talk.close()
            self.begin()
        self._talk.sendto(word, (self.address, self.port))
        while self._talk.recv(4096) != word:  # an answer that came late
            pass


class ManyDatagrams(Datagrams):
    many = True


class Pings(Stream):
    """ICMP echo requests with one identifier."""

    def begin(self) -> None:
        protocol = (
            socket.IPPROTO_ICMP if self.family == socket.AF_INET else socket.getprotobyname("ipv6-icmp")
        )
        self._raw = self.socket(socket.SOCK_RAW, protocol)
        self._raw.connect((self.address, 0))  # and hears nobody else
        self._identifier = next(_identifiers)

    def say(self, word: bytes) -> None:
        head = struct.pack(">BBHHH", _ECHO_REQUEST[self.family], 0, 0, self._identifier, self.sent & 0xFFFF)
        if self.family == socket.AF_INET:
            head = head[:2] + struct.pack(">H", _checksum(head + word)) + head[4:]
        self._raw.send(head + word)
        wanted = head[4:] + word
        while not (got := self._raw.recv(4096)).endswith(wanted) or got[-len(wanted) - 4] in (8, 128):
            pass


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Traffic:
    """Streams of every kind from a namespace to servers, for as long as the context lasts."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self._echoes: list[Echo] = []

    def serve(self, namespace: Path, port: int, addresses: Iterable[str]) -> None:
        self._echoes.append(Echo(namespace, port, addresses))

    def add(self, source: Path, address: str, port: int) -> None:
        for kind in (OneConnection, ManyConnections, Datagrams, ManyDatagrams, Pings):
            stream = kind(f"{kind.__name__} to {address}", source, address, port)
            self.streams.append(stream)
            stream.start()

    @property
    def faults(self) -> list[str]:
        return [fault for stream in self.streams for fault in stream.faults]

    def moved(self, before: dict[str, int]) -> bool:
        """Whether every stream has got an answer since then."""
        now = self.heard()
        return all(now[name] > count for name, count in before.items())

    def heard(self) -> dict[str, int]:
        return {stream.name: stream.sent - stream.lost for stream in self.streams}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self.streams:
            stream.end()
        for echo in self._echoes:
            echo.close()


def wait_until_moved(traffic: Traffic, seconds: float = 20) -> None:
    """Until every stream has been answered twice more; TimeoutError names those that have not."""
    for _ in range(2):
        before = traffic.heard()
        for _ in range(int(seconds / 0.05)):
            if traffic.moved(before):
                break
            threading.Event().wait(0.05)
        else:
            now = traffic.heard()
            still = [name for name, count in before.items() if now[name] <= count]
            raise TimeoutError(f"no answer any more: {still}; {traffic.faults[-5:]}")
