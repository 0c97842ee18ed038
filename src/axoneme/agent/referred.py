"""The objects that rules above L4 refer to, Secrets and Envoy's configurations: they are followed in the
shared state, and no others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import msgspec

from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Store

log = logging.getLogger(__name__)

V = TypeVar("V")

Object = dict[str, Any]


class Referred(Generic[V]):
    """Objects by their keys in the shared state. ``known`` holds those that are needed and there; ``missing``
    those that are not, and why."""

    def __init__(self, parse: Callable[[Object], V], known: Mapping[str, V]) -> None:
        """``known`` are those of an earlier agent, which hold until the shared state says something."""
        self._parse = parse
        self.known = dict(known)
        self.missing: dict[str, str] = {}
        self._needed: frozenset[str] = frozenset()
        self._heard = asyncio.Event()

    def need(self, keys: Iterable[str]) -> None:
        """From now on these, and no others."""
        needed = frozenset(keys)
        if needed != self._needed:
            self._needed = needed
            self.known = {key: value for key, value in self.known.items() if key in needed}
            self.missing = {key: why for key, why in self.missing.items() if key in needed}
            self._heard.set()

    async def run(self, store: Store, changed: Callable[[], None]) -> None:
        """Keeps them up to date for ever; calls ``changed`` whenever one has changed."""
        following: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                for key in following.keys() - self._needed:
                    following.pop(key).cancel()
                for key in self._needed - following.keys():
                    following[key] = tasks.create_task(self._follow(store, key, changed))
                self._heard.clear()
                await self._heard.wait()

    async def _follow(self, store: Store, key: str, changed: Callable[[], None]) -> None:
        heard = False
        async with aclosing(follow(store, key)) as news:
            async for changes in news:
                if not isinstance(changes, Sync):
                    # Of other keys some begin alike.
                    values = [change.value for change in changes if change.key == key][-1:]
                else:
                    values = [] if heard else [None]
                for value in values:
                    heard = True
                    self._take(key, value)
                    changed()

    def _take(self, key: str, value: bytes | None) -> None:
        if key not in self._needed:
            return
        try:
            if value is None:
                raise ValueError("there is none")
            self.known[key] = self._parse(msgspec.json.decode(value, type=Object))
            self.missing.pop(key, None)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            self.known.pop(key, None)
            self.missing[key] = str(error)
