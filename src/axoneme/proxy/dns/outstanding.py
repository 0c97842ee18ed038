"""Questions without an answer yet, oldest first, and never more than so many: of all, and of each client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Outstanding(Generic[K]):
    """Keys by client, in the order in which they came. A key is in here once."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._all: OrderedDict[K, tuple[str, float]] = OrderedDict()
        self._of: dict[str, OrderedDict[K, None]] = {}

    def add(self, key: K, client: str, now: float) -> K | None:
        """Takes it in; what had to make room for it: the client's own oldest, or that of who has most."""
        own = self._of.get(client)
        if own is None:
            own = self._of[client] = OrderedDict()
        displaced: K | None = None
        if len(own) >= self._most_each:
            displaced = next(iter(own))
        elif len(self._all) >= self._most:
            greediest = max(self._of, key=lambda each: len(self._of[each]))
            displaced = next(iter(self._of[greediest]))
        if displaced is not None:
            self.discard(displaced)
            own = self._of.setdefault(client, own)  # it went with its last key
        self._all[key] = (client, now)
        own[key] = None
        return displaced

    def discard(self, key: K) -> bool:
        """Whether it was there."""
        found = self._all.pop(key, None)
        if found is None:
            return False
        own = self._of[found[0]]
        del own[key]
        if not own:
            del self._of[found[0]]
        return True

    def before(self, then: float) -> Iterator[K]:
        """Takes out those that came before a time."""
        while self._all:
            key = next(iter(self._all))
            if self._all[key][1] >= then:
                return
            self.discard(key)
            yield key

    def __len__(self) -> int:
        return len(self._all)
