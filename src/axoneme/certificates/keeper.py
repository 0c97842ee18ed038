"""Keeps a node's certificate: asks for it, puts it into its files, and renews it in time.

As soon as the shared state names an authority. The key is made here and never leaves the node; it stays the
same, for it is what the node is known by. Files change as a whole, and only when they have to.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from axoneme.certificates.files import AUTHORITY as AUTHORITY_FILE
from axoneme.certificates.files import CERTIFICATE, DIRECTORY, KEY, REQUEST, write
from axoneme.certificates.state import (
    AUTHORITY,
    NODE,
    AuthorityState,
    Issued,
    Request,
    decode,
    encode,
    issued_key,
    request_key,
)
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Store, Unavailable

log = logging.getLogger(__name__)

#: Seconds after which an unanswered request is made again, and for which an answer may take.
_ASK_EVERY, _PATIENCE = 60.0, 15.0


class Keeper:
    """`run` until cancelled; ``problems`` gets what is wrong, under ``certificates``."""

    def __init__(
        self,
        node: str,
        state: Path,
        store: Store,
        problems: dict[str, str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._folder = state / DIRECTORY
        self._store = store
        self._problems = problems
        self._now = now
        self._authority: AuthorityState | None = None
        self._issued: Issued | None = None
        self._asked = 0.0
        self._heard = asyncio.Event()

    async def run(self) -> None:
        answered = issued_key(self._node, NODE)
        synced = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for key, event in zip((AUTHORITY, answered), synced, strict=True):
                tasks.create_task(self._follow(key, event))
            for event in synced:
                await event.wait()
            while True:
                self._heard.clear()
                pause = _ASK_EVERY
                try:
                    pause = await self._settle()
                except (Unavailable, OSError, ValueError) as error:
                    self._problem(f"{self._folder}: {error}")
                try:
                    async with asyncio.timeout(pause):
                        await self._heard.wait()
                except TimeoutError:
                    pass

    async def _follow(self, key: str, synced: asyncio.Event) -> None:
        async with aclosing(follow(self._store, key)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    synced.set()
                    continue
                for change in changes:
                    try:
                        self._hear(change.key, change.value)
                    except ValueError as error:
                        self._problem(str(error))
                self._heard.set()

    def _hear(self, key: str, value: bytes | None) -> None:
        if key == AUTHORITY:
            self._authority = None if value is None else decode(value, AuthorityState, key)
            self._asked = 0.0
        elif key == issued_key(self._node, NODE):
            self._issued = None if value is None else decode(value, Issued, key)

    async def _settle(self) -> float:
        """Seconds after which to look again."""
        authority = self._authority
        if authority is None:
            self._problem("")
            return _ASK_EVERY
        request = await self._request()
        issued = self._issued if self._issued and self._issued.request == request.digest else None
        if issued and issued.chain:
            self._put(CERTIFICATE, issued.chain)
        self._put(AUTHORITY_FILE, authority.bundle)
        now = self._now()
        if issued and issued.chain and issued.authority == authority.current and now < issued.due:
            self._problem("")
            return min(_ASK_EVERY, issued.due - now)
        if now >= self._asked + _ASK_EVERY:
            self._asked = now
            await self._store.put(request_key(self._node, NODE), encode(request))
            return _PATIENCE
        self._problem(self._waiting(issued, now))
        return _PATIENCE

    def _waiting(self, issued: Issued | None, now: float) -> str:
        if issued and issued.refused:
            return f"the node's certificate was refused: {issued.refused}"
        if now < self._asked + _PATIENCE:
            return self._problems.get(DIRECTORY, "")
        ended = " and has ended" if issued and issued.ends <= now else ""
        return (
            f"the node's certificate is due{ended}, and nobody answers its request: who holds the "
            "authority's key does not run (`axo operator` with `authority`, docs/certificates.md)"
        )

    async def _request(self) -> Request:
        """Made by a process of its own, once."""
        path = self._folder / REQUEST
        if not (path.exists() and (self._folder / KEY).exists()):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "axoneme.certificates.asking", str(self._folder), self._node),
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await process.communicate()
            if process.returncode:
                raise ValueError(said.decode(errors="replace").strip().rpartition("\n")[2])
        return Request(path.read_text())

    def _put(self, name: str, content: str) -> None:
        path = self._folder / name
        if not path.exists() or path.read_text() != content:
            write(path, content.encode(), 0o644)
            log.info("%s is new", path)

    def _problem(self, text: str) -> None:
        if text and text != self._problems.get(DIRECTORY):
            log.warning("%s", text)
        if text:
            self._problems[DIRECTORY] = text
        else:
            self._problems.pop(DIRECTORY, None)
