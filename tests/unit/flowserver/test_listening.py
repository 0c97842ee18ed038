"""The socket where proxies tell what they have seen: what arrives, and what becomes of who misuses it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from axoneme.flowserver import listening
from axoneme.flowserver.listening import Listening
from axoneme.model.l7event import L7Event
from axoneme.model.redaction import Redaction
from axoneme.proxy.events import EventSender

EVENT = L7Event(1, "egress", "TCP", "10.0.0.1", 1, "10.0.0.2", 2, "REQUEST", "FORWARDED")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(str(path))
    return made


def test_what_proxies_send_is_taken_in_order(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "l7.sock"
        server = Listening(path, "nobody")
        mode = path.stat()
        assert stat.S_IMODE(mode.st_mode) == 0o600
        assert os.geteuid() or mode.st_uid != 0  # it is that user's alone
        sender = EventSender(path, Redaction())
        async with server.serving():
            sender.send(EVENT, EVENT)
            taken: list[L7Event] = []
            await until(lambda: taken.extend(server.take(10)) or len(taken) == 2)  # type: ignore[func-returns-value]
            sender.lost = sender._untold = 5
            sender.send(EVENT)
            await until(lambda: server.lost == 5)
            assert server.take(10) == [EVENT]
        sender.close()

    asyncio.run(scene())


def test_who_talks_nonsense_is_hung_up_on_and_others_are_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "l7.sock"
        server = Listening(path, "nobody")
        async with server.serving():
            sender = EventSender(path, Redaction())
            for nonsense in (b"{", b"[" * 100_000, b'{"events": 3}', b"\xff\xfe", b'{"events": [{}]}'):
                with connected(path) as mad:
                    mad.send(nonsense)
                    mad.setblocking(False)
                    assert await asyncio.get_running_loop().sock_recv(mad, 1) == b""
            sender.send(EVENT)
            taken: list[L7Event] = []
            await until(lambda: taken.extend(server.take(1)) or taken == [EVENT])  # type: ignore[func-returns-value]
            sender.close()

    asyncio.run(scene())


def test_a_full_queue_is_not_read_until_there_is_room(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "l7.sock"
        server = Listening(path, "nobody")
        async with server.serving():
            sender = EventSender(path, Redaction())
            sent = 0
            while not sender.lost:
                sender.send(*[EVENT] * 64)
                sent += 64
                await asyncio.sleep(0)
            held = sent - sender.lost
            assert held > listening._WAITING
            taken = 0
            while taken < held:
                taken += len(server.take(1000))
                await asyncio.sleep(0)
            assert taken == held
            sender.send(EVENT)
            await until(lambda: server.lost == sender.lost)
            sender.close()

    asyncio.run(scene())
