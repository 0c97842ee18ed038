"""Something is said between two network namespaces, both ways, and whole."""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import closing
from pathlib import Path

from two_nodes import connect, inside, listening

#: More than fits in one segment, and in one large send.
AMOUNT = 300_000


def stream(sender: socket.socket, receiver: socket.socket) -> None:
    """So much arrives whole."""
    data = bytes(range(256)) * (AMOUNT // 256)
    sending = threading.Thread(target=sender.sendall, args=(data,))
    sending.start()
    got = bytearray()
    while len(got) < len(data):
        more = receiver.recv(65536)
        assert more, "it was closed"
        got += more
    sending.join()
    assert got == data


def over_tcp(server: Path, client: Path, to: str, port: int) -> str:
    """Both ways, much more than fits into one packet; as whom the server sees the client."""
    with listening(server, 8080) as waiting, closing(connect(client, to, port)) as caller:
        accepted, peer = waiting.accept()
        with accepted:
            accepted.settimeout(10)
            stream(caller, accepted)
            stream(accepted, caller)
    return str(peer[0]).removeprefix("::ffff:")


def over_udp(server: Path, address: str, client: Path, to: str, port: int, size: int) -> str:
    """A question and its answer, which a connected socket takes only from where it has asked."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with inside(server):
        waiting = socket.socket(family, socket.SOCK_DGRAM)
    with inside(client):
        caller = socket.socket(family, socket.SOCK_DGRAM)
    with waiting, caller:
        waiting.bind((address, 8080))
        for each in (waiting, caller):
            each.settimeout(5)
        caller.connect((to, port))
        question = bytes(range(256)) * (size // 256)
        got, peer = ask(caller, question, waiting)
        assert got == question
        waiting.sendto(question[::-1], peer)
        assert caller.recv(65536) == question[::-1]
    return str(peer[0])


def ask(caller: socket.socket, question: bytes, waiting: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """What arrives. The first may be lost: it tells how large packets may be on this way."""
    waiting.settimeout(1)
    for _ in range(5):
        with contextlib.suppress(OSError):  # "message too long", or nothing
            caller.send(question)
            return waiting.recvfrom(65536)
    raise TimeoutError("nothing has arrived")
