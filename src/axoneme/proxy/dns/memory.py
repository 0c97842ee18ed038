"""What clients were told: the addresses of a name, each for as long as it may be used, and whether the agent
has heard of it.

Bounded: of the client that was told most, the names that were not heard of for longest are forgotten first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
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
        self._heard: dict[str, OrderedDict[str, dict[str, Heard]]] = {}
        self._sizes: Counter[str] = Counter()
        self._size = 0

    def hear(self, answer: Answer) -> bool:
        """Whether it says something that is not known, or not for so long."""
        names = self._heard.setdefault(answer.client, OrderedDict())
        heard = names.setdefault(answer.name, {})
        names.move_to_end(answer.name)
        before = len(heard)
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
        self._grow(answer.client, len(heard) - before)
        while self._size > self._most:
            # Whoever has names without end does not displace others' by that.
            greediest = max(self._sizes, key=self._sizes.__getitem__)
            self._grow(greediest, -len(self._heard[greediest].popitem(last=False)[1]))
        return news

    def _grow(self, client: str, by: int) -> None:
        self._size += by
        self._sizes[client] += by
        if not self._heard[client]:
            del self._heard[client], self._sizes[client]

    def sure(self, answer: Answer) -> bool:
        """Whether the kernel has all addresses of an answer that comes now."""
        heard = self._of((answer.client, answer.name))
        return all(
            (found := heard.get(each)) is not None and _valid(found, answer.time) for each in answer.addresses
        )

    def untold(self, key: Key) -> Iterator[Answer]:
        """What the agent has not heard."""
        return _answers(key, {a: found for a, found in self._of(key).items() if not found.told})

    def told(self, answers: Iterable[Answer]) -> None:
        """The agent has heard it, and the kernel has it."""
        for answer in answers:
            heard = self._of((answer.client, answer.name))
            for address in answer.addresses:
                if (found := heard.get(address)) is not None and found.time == answer.time:
                    heard[address] = found._replace(told=True, sure=True)

    def unsure(self) -> None:
        """Nobody knows any more what the kernel has."""
        for names in self._heard.values():
            for heard in names.values():
                for address, found in heard.items():
                    heard[address] = found._replace(told=False, sure=False)

    def answers(self) -> Iterator[Answer]:
        """All of it, in few answers."""
        for client, names in self._heard.items():
            for name, heard in names.items():
                yield from _answers((client, name), heard)

    def forget(self, now: int) -> None:
        """What is too old."""
        for client, names in list(self._heard.items()):
            old = 0
            for name, heard in list(names.items()):
                for address in [
                    each for each, found in heard.items() if found.time + max(found.ttl, FLOOR) < now
                ]:
                    del heard[address]
                    old += 1
                if not heard:
                    del names[name]
            self._grow(client, -old)

    def load(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.hear(answer)

    def __len__(self) -> int:
        return self._size

    def _of(self, key: Key) -> dict[str, Heard]:
        client, name = key
        names = self._heard.get(client)
        return names.get(name, {}) if names is not None else {}


def _valid(found: Heard, now: int) -> bool:
    return found.sure and now < found.time + found.ttl


def _answers(key: Key, heard: dict[str, Heard]) -> Iterator[Answer]:
    at: dict[int, dict[str, int]] = {}
    for address, found in heard.items():
        at.setdefault(found.time, {})[address] = found.ttl
    for time, addresses in at.items():
        yield Answer(time, *key, addresses)
