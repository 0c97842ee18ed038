"""A connection that is kept up while something happens to those who carry it."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from pathlib import Path

from axoneme.net import netns


class Conversation(threading.Thread):
    """``said`` again and again, every ``pause`` seconds, and something heard each time; ``error`` is what
    ended it before `finish`."""

    def __init__(self, namespace: Path, address: str, port: int, said: bytes, pause: float) -> None:
        super().__init__(daemon=True)
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        self._socket = netns.open_socket(namespace, family, socket.SOCK_STREAM)
        self._socket.settimeout(5)
        self._socket.connect((address, port))
        self._said, self._pause = said, pause
        self._end = threading.Event()
        self.rounds = 0
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(self._pause):
                self._socket.sendall(self._said)
                if not self._socket.recv(65536):
                    raise ConnectionResetError("closed by the other side")
                self.rounds += 1
        except OSError as error:
            self.error = error

    def finish(self) -> None:
        self._end.set()
        self.join()
        self._socket.close()
