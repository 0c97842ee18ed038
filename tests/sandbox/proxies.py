"""A proxy that passes on what it gets, and remembers it: what steering is tested with."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path
from typing import Self

from two_nodes import inside

from axoneme.proxy.sockets import Answers, End, ends, listener, onwards, own_ports, received

FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Proxy:
    """Takes connections and datagrams at ``port`` of a node, in both families, until it is closed."""

    def __init__(self, node: Path, port: int, direction: str) -> None:
        self.node, self.port, self.direction = node, port, direction
        #: The addresses of who has called, and of whom; of each connection, and each client of datagrams.
        self.seen: list[tuple[str, str, int]] = []
        self._open: list[socket.socket] = []
        with inside(node):
            self._tcp = [listener(family, port, socket.SOCK_STREAM) for family in FAMILIES]
            self._udp = [listener(family, port, socket.SOCK_DGRAM) for family in FAMILIES]
            self._answers = {family: Answers(family) for family in FAMILIES}
        for each in self._tcp:
            each.setblocking(True)
        self._over, self._end = socket.socketpair()
        self._threads = [
            threading.Thread(target=self._accept, args=(each,), daemon=True) for each in self._tcp
        ]
        self._threads += [threading.Thread(target=self._ask, args=(each,), daemon=True) for each in self._udp]
        for thread in self._threads:
            thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError), inside(self.node):
            while True:
                taken, _ = listening.accept()
                self._open.append(taken)
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with inside(self.node), contextlib.suppress(OSError), taken:
            found = ends(taken)
            assert found is not None
            client, server = found
            self.seen.append((client.address, server.address, server.port))
            with self._onwards(client, socket.SOCK_STREAM) as onward:
                self._open.append(onward)
                onward.settimeout(5)
                onward.connect(server)
                onward.settimeout(None)
                back = threading.Thread(target=_pump, args=(onward, taken), daemon=True)
                back.start()
                _pump(taken, onward)
                back.join()

    def _onwards(self, client: End, kind: socket.SocketKind) -> socket.socket:
        for port in own_ports(client):
            with contextlib.suppress(OSError):
                made = onwards(client, self.direction, kind, port)
                made.setblocking(True)
                return made
        raise OSError(f"no port for {client.address}")

    def _ask(self, listening: socket.socket) -> None:
        with inside(self.node):
            while not _is_over(listening, self._over):
                found = received(listening, 4096)
                if found is None:
                    continue
                data, client, server = found
                self.seen.append((client.address, server.address, server.port))
                with contextlib.suppress(OSError), self._onwards(client, socket.SOCK_DGRAM) as onward:
                    onward.settimeout(2)
                    onward.connect(server)
                    onward.send(data)
                    self._answers[client.family].send(onward.recv(4096), client, server)

    def close(self) -> None:
        self._end.close()
        for each in (*self._tcp, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (*self._tcp, *self._udp, *self._open, self._over):
            each.close()
        for answers in self._answers.values():
            answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_over(listening: socket.socket, over: socket.socket) -> bool:
    """Waits until there is something to read, or (it is so) nobody wants it any more."""
    readable, _, _ = select.select([listening, over], [], [])
    return over in readable


def _pump(source: socket.socket, target: socket.socket) -> None:
    """All that comes, and then the end, or that it was broken off."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
