"""What clients were told: the addresses of a name, each for as long as it may be used, and whether the agent
has heard of it.

Bounded: the names that were not heard of for longest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from axoneme.proxy.names import Answer

#: Addresses in all, and of one name that one client has asked for.
MOST: Final = 131_072
MOST_EACH: Final = 1000
#: Seconds for which an address is kept at least: agents have floors for TTLs, of at most an hour.
FLOOR: Final = 3600
#: Seconds more than which an address has to last longer than was known, to be worth telling.
_SLACK: Final = 1

#: A client's address, and a name as rules have it.
Key = tuple[str, str]


class Heard(NamedTuple):
    time: int  # wall clock, s: when it was told last
    ttl: int  # s
    told: bool  # the agent has heard of it
    sure: bool  # and what it did is still in the kernel, until the TTL is over


class Memory:
    """Times are those of the wall clock, in seconds."""

    def __init__(self, most: int = MOST, most_each: int = MOST_EACH) -> None:
        self._most, self._most_each = most, most_each
        self._heard: OrderedDict[Key, dict[str, Heard]] = OrderedDict()
        self._size = 0

    def hear(self, answer: Answer) -> bool:
        """Whether it says something that is not known, or not for so long."""
        key = (answer.client, answer.name)
        heard = self._heard.setdefault(key, {})
        self._heard.move_to_end(key)
        self._size -= len(heard)
        news = False
        for address, ttl in answer.addresses.items():
            found = heard.pop(address, None)  # so that what was not heard of for longest stands first
            if found is None or found.time + found.ttl + _SLACK < answer.time + ttl:
                news = True
                # What the kernel has for certain it has until the former TTL is over, and is told of now.
                found = Heard(answer.time, ttl, False, found is not None and _valid(found, answer.time))
            heard[address] = found
        for address in list(heard)[: max(0, len(heard) - self._most_each)]:
            del heard[address]
        self._size += len(heard)
        while self._size > self._most and len(self._heard) > 1:
            self._size -= len(self._heard.popitem(last=False)[1])
        return news

    def sure(self, answer: Answer) -> bool:
        """Whether the kernel has all addresses of an answer that comes now."""
        heard = self._heard.get((answer.client, answer.name), {})
        return all(
            (found := heard.get(each)) is not None and _valid(found, answer.time) for each in answer.addresses
        )

    def untold(self, key: Key) -> Iterator[Answer]:
        """What the agent has not heard."""
        return _answers(key, {a: found for a, found in self._heard.get(key, {}).items() if not found.told})

    def told(self, answers: Iterable[Answer]) -> None:
        """The agent has heard it, and the kernel has it."""
        for answer in answers:
            heard = self._heard.get((answer.client, answer.name), {})
            for address in answer.addresses:
                if (found := heard.get(address)) is not None and found.time == answer.time:
                    heard[address] = found._replace(told=True, sure=True)

    def unsure(self) -> None:
        """Nobody knows any more what the kernel has."""
        for heard in self._heard.values():
            for address, found in heard.items():
                heard[address] = found._replace(told=False, sure=False)

    def answers(self) -> Iterator[Answer]:
        """All of it, in few answers."""
        for key, heard in self._heard.items():
            yield from _answers(key, heard)

    def forget(self, now: int) -> None:
        """What is too old."""
        for key in list(self._heard):
            heard = self._heard[key]
            for address in [
                each for each, found in heard.items() if found.time + max(found.ttl, FLOOR) < now
            ]:
                del heard[address]
                self._size -= 1
            if not heard:
                del self._heard[key]

    def load(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.hear(answer)

    def __len__(self) -> int:
        return self._size


def _valid(found: Heard, now: int) -> bool:
    return found.sure and now < found.time + found.ttl


def _answers(key: Key, heard: dict[str, Heard]) -> Iterator[Answer]:
    at: dict[int, dict[str, int]] = {}
    for address, found in heard.items():
        at.setdefault(found.time, {})[address] = found.ttl
    for time, addresses in at.items():
        yield Answer(time, *key, addresses)
