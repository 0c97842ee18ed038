"""When a backend goes, those who still hold a connection to it are told: their sockets are closed.

A program at the socket (``bpf/socket.bpf.c``) has translated the call once, so nothing else would: a UDP
client would go on sending to where nobody is. It gets ECONNABORTED, and the backend of its next connect() is
another. Only sockets that have called that very backend, through a service, are closed
(`axoneme.datapath.callers` tells), in the namespaces of the node and of its pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from axoneme.datapath.bpf import BpfError
from axoneme.datapath.callers import Callers
from axoneme.datapath.maps import Table
from axoneme.net.sockdiag import Address, SocketDiagnosis
from axoneme.services.rows import ADDRESS, unpacked
from axoneme.services.writes import Departed

log = logging.getLogger(__name__)

#: Seconds for which more backends may go before anybody looks: sockets are looked through once for all.
_GATHER: Final = 0.05


class CallCloser:
    """Told of backends that are gone by `departed`, does its work in `run`, in a thread: there may be many
    namespaces to look at."""

    def __init__(
        self, calls: Callable[[], Table], namespaces: Callable[[], Iterable[Path]], tcp: bool
    ) -> None:
        """`calls` is the table of that name, as it is by then; `namespaces`, the node's own and those of its
        pods. ``tcp``: also TCP connections are closed, which else end as their backends or timers say."""
        self._calls = calls
        self._namespaces = namespaces
        self._protocols: tuple[int, ...] = (socket.IPPROTO_UDP, *((socket.IPPROTO_TCP,) if tcp else ()))
        self._gone: list[Departed] = []
        self._news = asyncio.Event()

    def departed(self, backends: Sequence[Departed]) -> None:
        """These have left the tables."""
        if ours := [each for each in backends if _where(each)[0] in self._protocols]:
            self._gone += ours
            self._news.set()

    async def run(self) -> None:
        """Until cancelled, or until it turns out that this kernel cannot do it, which is logged."""
        await self._news.wait()
        try:
            callers = await asyncio.to_thread(Callers.load)
        except BpfError as error:
            log.error("sockets whose backends are gone stay open: %s", error)
            self._protocols = ()
            self._gone.clear()
            return
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(_GATHER)
                self._news.clear()
                await self._close(callers)
        finally:
            callers.close()

    async def _close(self, callers: Callers) -> None:
        backends, self._gone = self._gone, []
        namespaces = list(self._namespaces())
        calls = os.dup(self._calls().fd)  # the table may be closed while the thread works
        began = time.monotonic()
        try:
            closed = await asyncio.to_thread(close_calls, callers, calls, backends, namespaces)
        except OSError as error:
            log.error("sockets whose backends are gone stay open: %s", error)
            return
        finally:
            os.close(calls)
        if closed:
            took = 1000 * (time.monotonic() - began)
            log.info("%d sockets closed whose backends are gone, in %.0f ms", closed, took)


def close_calls(
    callers: Callers, calls: int, backends: Sequence[Departed], namespaces: Iterable[Path]
) -> int:
    """Closes the sockets in `namespaces` that have called these backends; how many.

    `calls` is a file descriptor of that table. Where nobody has called, nothing more is looked at.
    """
    there = callers.of(calls)
    there = there[np.isin(there["backend"], [each.number for each in backends])]
    if not len(there):
        return 0
    paths = _by_number(namespaces)
    closed = 0
    for number in np.unique(there["network"]).tolist():
        if number in paths:
            here = there[there["network"] == number]
            called = set(here["backend"].tolist())
            some = [each for each in backends if each.number in called]
            try:
                closed += _close_in(paths[number], some, set(here["socket"].tolist()))
            except OSError as error:
                log.warning("%s: sockets whose backends are gone stay open: %s", paths[number], error)
    return closed


def _close_in(namespace: Path, backends: Sequence[Departed], cookies: set[int]) -> int:
    by_protocol: dict[int, list[tuple[Address, int]]] = defaultdict(list)
    for each in backends:
        protocol, address, port = _where(each)
        by_protocol[protocol].append((address, port))
    with SocketDiagnosis(namespace) as sockets:
        return sum(
            sockets.destroy(found)
            for protocol, destinations in by_protocol.items()
            for found in list(sockets.connected(protocol, destinations))
            if found.cookie in cookies
        )


def _where(backend: Departed) -> tuple[int, Address, int]:
    """Protocol, address, port."""
    place = backend.place
    return place[-1], unpacked(place[:ADDRESS]), int.from_bytes(place[ADDRESS:-1], "big")


def _by_number(namespaces: Iterable[Path]) -> dict[int, Path]:
    """By the number that the kernel has for each; those that are gone have no sockets."""
    found = {}
    for path in namespaces:
        with contextlib.suppress(FileNotFoundError):
            found[path.stat().st_ino] = path
    return found
