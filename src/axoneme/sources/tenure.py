"""Keys of the store that one of many holds at a time, as a leader holds its office.

All keys of a process hang on one lease, so that they cost one renewal together, however many they are. Who
does not renew it, because it ended or cannot reach the store, loses them all, and others may take them.
What depends on holding a key must end by `Tenure.until` without being told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from axoneme.sources.store import Conflict, Delete, Lease, LeaseExpired, Put, Store, Unavailable

log = logging.getLogger(__name__)

#: Seconds for which one who ends waits for the store, so that others need not wait for the lease to lapse.
_PATIENCE = 2.0


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds: for how long a lease holds that nobody renews, how often it is renewed, and how soon after a
    failure that is tried again."""

    lease_duration: float = 15.0
    renew: float = 5.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry <= self.renew < self.lease_duration:
            raise ValueError(
                f"lease_duration {self.lease_duration:g}, renew {self.renew:g}, retry {self.retry:g}: "
                "expected retry <= renew < lease_duration, all above 0"
            )


def boot_time() -> float:
    """Seconds, those in which the machine slept included: leases run out meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Tenure:
    """What one process holds, as long as `run` runs. ``changed`` is called when that is renewed or lost."""

    def __init__(
        self,
        store: Store,
        timing: Timing,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._store = store
        self._timing = timing
        self._changed = changed
        self._clock = clock
        self._lease: Lease | None = None
        self._needed = asyncio.Event()
        #: Keys to be given back, for which the store could not be reached.
        self._owed: dict[str, int] = {}
        #: By key: the revision at which it was taken.
        self.held: dict[str, int] = {}
        #: By the clock: until then what is held is nobody else's.
        self.until = 0.0

    async def take(self, key: str, value: bytes, revision: int = 0) -> bool:
        """Whether the key is held now. ``revision`` 0 takes one that does not exist, another one that in
        which it was seen, such as that of an earlier process with the same name.

        `Unavailable` leaves open whether it is.
        """
        lease = await self._granted()
        try:
            self.held[key] = await self._store.transact({key: revision}, [Put(key, value, lease)])
        except Conflict:
            return False
        except LeaseExpired:
            if lease is self._lease:
                self._lose()
            return False
        return True

    async def release(self, key: str) -> None:
        """Gives the key back, later if the store cannot be reached."""
        self._owed[key] = self.held.pop(key)
        try:
            await self._repay()
        except Unavailable as error:
            log.warning("%s is given back later: %s", key, error)

    def gone(self, key: str) -> None:
        """Somebody has taken the key away."""
        self.held.pop(key, None)

    def keep(self) -> None:
        """What is held stays so when `run` ends, until the lease lapses or a successor takes it over."""
        self._lose()

    async def run(self) -> None:
        """Until cancelled, which gives everything back at once."""
        pause = self._timing.renew
        try:
            while True:
                await self._needed.wait()
                await asyncio.sleep(pause)
                pause = self._timing.renew if await self._renew() else self._timing.retry
                self._changed()
        finally:
            await self._leave()

    async def _granted(self) -> Lease:
        if self._lease is None:
            began = self._clock()
            self._lease = await self._store.grant(self._timing.lease_duration)
            self.until = began + self._lease.ttl
            self._needed.set()
        return self._lease

    async def _renew(self) -> bool:
        """False when it must be tried again soon."""
        began = self._clock()
        if self._lease is None:
            return True
        try:
            await self._repay()
            if not self.held:  # nobody needs it
                lease, self._lease = self._lease, None
                self._needed.clear()
                await self._store.revoke(lease)
                return True
            await self._store.keep_alive(self._lease)
        except LeaseExpired:
            log.warning("the lease of %s has lapsed", ", ".join(self.held) or "nothing")
            self._lose()
        except Unavailable as error:
            log.warning("what this process holds is not renewed: %s", error)
            if self._clock() >= self.until:
                self._lose()
            return False
        else:
            self.until = began + self._lease.ttl
        return True

    async def _repay(self) -> None:
        for key, revision in list(self._owed.items()):
            with suppress(Conflict):  # it is another's by now
                await self._store.transact({key: revision}, [Delete(key)])
            del self._owed[key]

    def _lose(self) -> None:
        self.held.clear()
        self._owed.clear()
        self._lease, self.until = None, 0.0
        self._needed.clear()

    async def _leave(self) -> None:
        lease = self._lease
        self._lose()
        if lease is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._store.revoke(lease)
        except (Unavailable, TimeoutError) as error:
            log.warning("others have to wait until the lease of this process lapses: %s", error)
