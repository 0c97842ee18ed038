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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from axoneme.datapath.bpf import BpfError
from axoneme.datapath.callers import Callers
from axoneme.datapath.maps import Table
from axoneme.net.sockdiag import Address, SocketDiagnosis

log = logging.getLogger(__name__)

#: Seconds for which more backends may go before anybody looks: sockets are looked through once for all.
_GATHER: Final = 0.05


@dataclass(frozen=True, slots=True)
class Gone:
    """Where a backend was; ``protocol`` is IP's number of it."""

    address: Address
    port: int
    protocol: int


class CallCloser:
    """Told of backends that are gone by `gone`, does its work in `run`, in a thread: there may be many
    namespaces to look at."""

    def __init__(
        self, calls: Callable[[], Table], namespaces: Callable[[], Iterable[Path]], tcp: bool
    ) -> None:
        """`calls` is the table of that name, as it is by then; `namespaces`, the node's own and those of its
        pods. ``tcp``: also TCP connections are closed, which else end as their backends or timers say."""
        self._calls = calls
        self._namespaces = namespaces
        self._protocols = (socket.IPPROTO_UDP, *((socket.IPPROTO_TCP,) if tcp else ()))
        self._gone: dict[int, Gone] = {}
        self._news = asyncio.Event()

    def gone(self, backends: Mapping[int, Gone]) -> None:
        """These backends have left the tables, by their numbers."""
        ours = {number: each for number, each in backends.items() if each.protocol in self._protocols}
        if ours:
            self._gone.update(ours)
            self._news.set()

    async def run(self) -> None:
        """Until cancelled, or until it turns out that this kernel cannot do it, which is logged."""
        await self._news.wait()
        try:
            callers = await asyncio.to_thread(Callers.load)
        except BpfError as error:
            log.error("sockets whose backends are gone stay open: %s", error)
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
        backends, self._gone = self._gone, {}
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
    callers: Callers, calls: int, backends: Mapping[int, Gone], namespaces: Iterable[Path]
) -> int:
    """Closes the sockets in `namespaces` that have called these backends, by their numbers; how many.

    `calls` is a file descriptor of that table. Where nobody has called, nothing more is looked at.
    """
    there = callers.of(calls)
    there = there[np.isin(there["backend"], list(backends))]
    if not len(there):
        return 0
    paths = _by_number(namespaces)
    closed = 0
    for number in np.unique(there["network"]).tolist():
        if number in paths:
            here = there[there["network"] == number]
            called = {each: backends[each] for each in here["backend"].tolist()}
            try:
                closed += _close_in(paths[number], called, set(here["socket"].tolist()))
            except OSError as error:
                log.warning("%s: sockets whose backends are gone stay open: %s", paths[number], error)
    return closed


def _close_in(namespace: Path, backends: Mapping[int, Gone], cookies: set[int]) -> int:
    by_protocol: dict[int, list[tuple[Address, int]]] = defaultdict(list)
    for each in backends.values():
        by_protocol[each.protocol].append((each.address, each.port))
    with SocketDiagnosis(namespace) as sockets:
        return sum(
            sockets.destroy(found)
            for protocol, destinations in by_protocol.items()
            for found in list(sockets.connected(protocol, destinations))
            if found.cookie in cookies
        )


def _by_number(namespaces: Iterable[Path]) -> dict[int, Path]:
    """By the number that the kernel has for each; those that are gone have no sockets."""
    found = {}
    for path in namespaces:
        with contextlib.suppress(FileNotFoundError):
            found[path.stat().st_ino] = path
    return found
