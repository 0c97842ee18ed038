"""What an answer has is known where it matters before the client gets it.

Names that no selector of a policy matches are of no interest: their answers pass at once. The others wait
for the agent, all that wait together in one call, at most `hold` s: a client that connects too early then is
held up by policy, and not let through. While there is no agent, or it does not answer, this process gives
addresses those identities that exist already, and tells the next agent of all of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from axoneme.model.names import NameIndex
from axoneme.proxy.dns import message
from axoneme.proxy.dns.journal import Journal
from axoneme.proxy.dns.memory import Key, Memory
from axoneme.proxy.names import Answer, Learn, Names
from axoneme.rpc.errors import UNAVAILABLE, RpcError

log = logging.getLogger(__name__)

#: Answers that are told in one call, and their addresses.
_BATCH: Final = 512
_BATCH_ADDRESSES: Final = 20_000
#: Seconds until an agent that was not there is tried again.
_PAUSE: Final = 0.5
#: Answers that wait to be told; what is more is in the journal alone.
_UNTOLD: Final = 32768
#: Seconds between two looks for what is too old.
_TIDY: Final = 60.0
_REMEMBERED: Final = 8192


class Agent(Protocol):
    async def learn(self, batch: Learn) -> None:
        """Raises RpcError, OSError."""


class Kernel(Protocol):
    def use(self, names: Names) -> None: ...

    def assign(self, addresses: Iterable[str], selectors: frozenset[int]) -> int: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    answer: Answer
    release: Callable[[], None]
    timer: asyncio.TimerHandle | None = field(default=None)
    over: bool = False

    def end(self) -> bool:
        """Releases it, unless it was already."""
        if self.over:
            return False
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        self.release()
        return True


class Learner:
    def __init__(
        self,
        agent: Agent,
        kernel: Kernel,
        journal: Journal,
        memory: Memory,
        hold: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._agent, self._kernel, self._journal, self._memory = agent, kernel, journal, memory
        self._hold, self._clock, self._wall = hold, clock, wall
        self._names = Names()
        self._first = True
        self._index = NameIndex()
        self._places: dict[object, int] = {}
        self._of_interest: dict[str, frozenset[int]] = {}
        self._untold: dict[Key, None] = {}
        self._waiting: dict[Key, list[_Waiting]] = {}
        self._wake = asyncio.Event()
        self._away = False

    def use(self, names: Names) -> None:
        """What the plan says. What was heard of names that are of interest only now is told."""
        first, self._first = self._first, False
        if names == self._names:
            return
        before, self._names = self._index, names
        self._kernel.use(names)
        self._of_interest = {}
        if tuple(before) != names.selectors:
            self._index = NameIndex(names.selectors)
            self._places = {selector: place for place, selector in enumerate(names.selectors)}
            new = [
                a
                for a in self._memory.answers()
                if self._index.matches(a.name) and not before.matches(a.name)
            ]
            if not first:  # else it comes from there
                self._journal.add(new)
            for answer in new:
                self._tell((answer.client, answer.name))

    def learn(self, client: str, name: bytes, addresses: dict[str, int], release: Callable[[], None]) -> None:
        """Calls ``release`` when the addresses are in the kernel, or when it has waited long enough."""
        answer = Answer(int(self._wall()), client, message.text(name), addresses)
        news = self._memory.hear(answer)
        if not self._selectors(answer.name):
            release()
            return
        if news:
            self._journal.add((answer,))
        key = (client, answer.name)
        if self._memory.sure(answer):
            release()
            if news:
                self._tell(key)
            return
        waiting = _Waiting(answer, release)
        waiting.timer = asyncio.get_running_loop().call_later(self._hold, self._without_agent, waiting)
        self._waiting.setdefault(key, []).append(waiting)
        self._tell(key)

    async def run(self) -> None:
        """Tells the agent; until cancelled."""
        tidied = self._clock()
        while True:
            try:
                async with asyncio.timeout(_PAUSE if self._untold else _TIDY):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            while self._untold and await self._tell_agent():
                pass
            if self._journal.large or self._clock() - tidied > _TIDY:
                tidied = self._clock()
                self._tidy()

    async def _tell_agent(self) -> bool:
        """Whether there is an agent."""
        keys, batch, waiting = self._batch()
        try:
            if batch:
                await self._agent.learn(Learn(tuple(batch)))
        except RpcError as error:
            if error.code == UNAVAILABLE:
                return self._is_away(keys, waiting, error)
            log.error("the agent does not take what was learnt: %s", error)
        except OSError as error:
            return self._is_away(keys, waiting, error)
        else:
            self._memory.told(batch)
        if self._away:
            self._away = False
            log.info("there is an agent again")
        for each in waiting:
            each.end()
        return True

    def _batch(self) -> tuple[list[Key], list[Answer], list[_Waiting]]:
        """What is told next, first that for which somebody waits."""
        keys: list[Key] = []
        batch: list[Answer] = []
        waiting: list[_Waiting] = []
        addresses = 0
        while self._untold and len(batch) < _BATCH and addresses < _BATCH_ADDRESSES:
            keys.append(key := next(iter(self._waiting or self._untold)))
            del self._untold[key]
            waiting += self._waiting.pop(key, ())
            batch += (answers := list(self._memory.untold(key)))
            addresses += sum(len(each.addresses) for each in answers)
        return keys, batch, waiting

    def _is_away(self, keys: list[Key], waiting: list[_Waiting], error: Exception) -> bool:
        if not self._away:
            self._away = True
            log.warning("no agent: names are learnt without it (%s)", error)
            self._memory.unsure()
        others = [each for group in self._waiting.values() for each in group]
        self._waiting.clear()
        for each in waiting + others:
            self._without_agent(each)
        self._untold.update(dict.fromkeys(keys))
        return False

    def _without_agent(self, waiting: _Waiting) -> None:
        if not waiting.over:
            answer = waiting.answer
            self._kernel.assign(answer.addresses, self._selectors(answer.name))
            waiting.end()

    def _tell(self, key: Key) -> None:
        self._untold[key] = None
        if len(self._untold) > _UNTOLD and (oldest := next(iter(self._untold))) not in self._waiting:
            del self._untold[oldest]
        self._wake.set()

    def _selectors(self, name: str) -> frozenset[int]:
        found = self._of_interest.get(name)
        if found is None:
            if len(self._of_interest) >= _REMEMBERED:
                self._of_interest.clear()
            matching = self._index.matching(name)
            found = self._of_interest[name] = frozenset(self._places[each] for each in matching)
        return found

    def _tidy(self) -> None:
        self._memory.forget(int(self._wall()))
        self._journal.rewrite(each for each in self._memory.answers() if self._selectors(each.name))
