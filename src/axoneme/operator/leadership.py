"""Work that one of several operators does: the one who holds the office."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

import msgspec

from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Conflict, Store, Unavailable
from axoneme.sources.tenure import Tenure, Timing

log = logging.getLogger(__name__)

LEADERS = "state/leaders/"

#: Gets the keys and revisions that hold while this process leads: see `AddressController`.
Work = Callable[[Mapping[str, int]], Awaitable[None]]


class Leader(msgspec.Struct, frozen=True):
    name: str


class Leadership:
    """Until cancelled, this process stands for ``office`` under its ``name``, and works while it holds it.

    A process that begins under the name of the holder takes over from him, without waiting.
    """

    def __init__(self, store: Store, office: str, name: str, work: Work, timing: Timing) -> None:
        self._store = store
        self._key = LEADERS + office
        self._name = name
        self._work = work
        self._timing = timing
        self._called = asyncio.Event()
        self._tenure = Tenure(store, timing, self._called.set)
        #: Who holds the office, and the revision at which he took it.
        self._holder: tuple[str, int] | None = None
        self._heard = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tenure.run())
            tasks.create_task(self._follow())
            working: asyncio.Task[None] | None = None
            while True:
                await self._called.wait()
                self._called.clear()
                if self._heard and not self._holds():
                    await self._try()
                if self._holds() and working is None:
                    log.info("%s leads", self._name)
                    working = tasks.create_task(self._lead())
                elif not self._holds() and working is not None:
                    log.warning("%s leads no more", self._name)
                    working.cancel()
                    working = None

    def _holds(self) -> bool:
        return self._key in self._tenure.held

    async def _try(self) -> None:
        if self._holder is not None and self._holder[0] != self._name:
            return
        revision = self._holder[1] if self._holder else 0
        try:
            await self._tenure.take(self._key, msgspec.json.encode(Leader(self._name)), revision)
        except Unavailable as error:
            log.warning("%s: %s; trying again", self._key, error)
            asyncio.get_running_loop().call_later(self._timing.retry, self._called.set)

    async def _lead(self) -> None:
        try:
            await self._work({self._key: self._tenure.held[self._key]})
        except* Conflict:
            self._tenure.gone(self._key)
            self._called.set()

    async def _follow(self) -> None:
        async with aclosing(follow(self._store, self._key)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    self._heard = True
                    self._called.set()
                    continue
                for change in changes:
                    if change.key != self._key:
                        continue
                    self._holder = None if change.value is None else (_name(change.value), change.revision)
                    held = self._tenure.held.get(self._key)
                    if held is not None and held < change.revision:
                        self._tenure.gone(self._key)
                self._called.set()


def _name(value: bytes) -> str:
    try:
        return msgspec.json.decode(value, type=Leader).name
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
