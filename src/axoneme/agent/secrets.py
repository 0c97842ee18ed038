"""The Secrets that rules above L4 refer to: they are followed in the shared state, and no others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from axoneme.model.l7 import SecretRef
from axoneme.model.secrets import KIND, parse_secret
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Store

log = logging.getLogger(__name__)

Data = Mapping[str, bytes]


class Secrets:
    """``known`` holds those that are needed and there; ``missing`` those that are not, and why."""

    def __init__(self, known: Mapping[SecretRef, Data]) -> None:
        """``known`` are those of an earlier agent, which hold until the shared state says something."""
        self.known = dict(known)
        self.missing: dict[SecretRef, str] = {}
        self._needed: frozenset[SecretRef] = frozenset()
        self._heard = asyncio.Event()

    def need(self, refs: Iterable[SecretRef]) -> None:
        """From now on these, and no others."""
        needed = frozenset(refs)
        if needed != self._needed:
            self._needed = needed
            self.known = {ref: data for ref, data in self.known.items() if ref in needed}
            self.missing = {ref: why for ref, why in self.missing.items() if ref in needed}
            self._heard.set()

    async def run(self, store: Store, changed: Callable[[], None]) -> None:
        """Keeps them up to date for ever; calls ``changed`` whenever one has changed."""
        following: dict[SecretRef, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                for ref in following.keys() - self._needed:
                    following.pop(ref).cancel()
                for ref in self._needed - following.keys():
                    following[ref] = tasks.create_task(self._follow(store, ref, changed))
                self._heard.clear()
                await self._heard.wait()

    async def _follow(self, store: Store, ref: SecretRef, changed: Callable[[], None]) -> None:
        key = f"objects/{KIND}/{ref.namespace}/{ref.name}"
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
                    self._take(ref, value)
                    changed()

    def _take(self, ref: SecretRef, value: bytes | None) -> None:
        if ref not in self._needed:
            return
        try:
            if value is None:
                raise ValueError("there is none")
            self.known[ref] = parse_secret(msgspec.json.decode(value, type=dict[str, Any]))
            self.missing.pop(ref, None)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            self.known.pop(ref, None)
            self.missing[ref] = str(error)
