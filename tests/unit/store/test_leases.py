from __future__ import annotations

import pytest

from axoneme.sources.leases import keep_alive
from axoneme.sources.store import Lease, LeaseExpired, Unavailable


class Scripted:
    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)

    async def keep_alive(self, lease: Lease) -> None:
        if answer := self.answers.pop(0):
            raise answer


async def test_a_lease_is_renewed_three_times_in_its_life_and_oftener_in_trouble() -> None:
    lease = Lease(1, 60)
    gone = Unavailable("gone")
    store = Scripted(None, gone, gone, None, LeaseExpired(lease))
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(LeaseExpired):
        await keep_alive(store, lease, sleep)  # type: ignore[arg-type]
    assert pauses == [20, 20, 3, 3, 20]
