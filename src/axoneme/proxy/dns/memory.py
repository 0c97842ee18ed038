"""What clients were told: the addresses of a name, each for as long as it may be used.

Bounded: the names that were not heard of for longest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from axoneme.proxy.names import Answer

#: Pairs of client and name; addresses of one.
MOST: Final = 32768
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
    sure: float  # until then (monotonic, s) the kernel has the address for certain


class Memory:
    def __init__(self, most: int = MOST, most_each: int = MOST_EACH) -> None:
        self._most, self._most_each = most, most_each
        self._heard: OrderedDict[Key, dict[str, Heard]] = OrderedDict()

    def hear(self, answer: Answer) -> bool:
        """Whether it says something that is not known, or not for much longer."""
        key = (answer.client, answer.name)
        heard = self._heard.get(key)
        if heard is None:
            heard = self._heard[key] = {}
            if len(self._heard) > self._most:
                self._heard.popitem(last=False)
        else:
            self._heard.move_to_end(key)
        news = False
        for address, ttl in answer.addresses.items():
            found = heard.pop(address, None)  # so that what was not heard of for longest stands first
            if found is None or found.time + found.ttl + _SLACK < answer.time + ttl:
                news = True
                found = Heard(answer.time, ttl, found.sure if found else 0.0)
            heard[address] = found
        for address in list(heard)[: max(0, len(heard) - self._most_each)]:
            del heard[address]
        return news

    def sure(self, answer: Answer, now: float) -> bool:
        """Whether the kernel has all addresses of an answer (`now`: monotonic)."""
        heard = self._heard.get((answer.client, answer.name), {})
        return all((found := heard.get(each)) is not None and found.sure > now for each in answer.addresses)

    def make_sure(self, answer: Answer, now: float) -> None:
        """The kernel has them now, for as long as they are valid."""
        heard = self._heard.get((answer.client, answer.name), {})
        for address, ttl in answer.addresses.items():
            if (found := heard.get(address)) is not None:
                heard[address] = found._replace(sure=now + ttl)

    def unsure(self) -> None:
        """Nobody knows any more what the kernel has."""
        for heard in self._heard.values():
            for address, found in heard.items():
                heard[address] = found._replace(sure=0.0)

    def answers(self) -> Iterator[Answer]:
        """All of it, in few answers."""
        for (client, name), heard in self._heard.items():
            at: dict[int, dict[str, int]] = {}
            for address, found in heard.items():
                at.setdefault(found.time, {})[address] = found.ttl
            for time, addresses in at.items():
                yield Answer(time, client, name, addresses)

    def forget(self, now: int) -> None:
        """What is too old (`now`: wall clock, s)."""
        for key in list(self._heard):
            heard = self._heard[key]
            for address in [
                each for each, found in heard.items() if found.time + max(found.ttl, FLOOR) < now
            ]:
                del heard[address]
            if not heard:
                del self._heard[key]

    def load(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.hear(answer)

    def __len__(self) -> int:
        return len(self._heard)
