from __future__ import annotations

from axoneme.flowserver.clock import Clock


def test_the_difference_of_the_clocks_stays_until_one_is_set() -> None:
    wall = 0
    clock = Clock(lambda: 5_000, lambda: wall + 5_000)
    for jitter in (0, 300, -900_000, 999_999):
        wall = jitter
        assert clock() == (5_000, 5_000)
    wall = 3_600_000_000_000
    assert clock() == (5_000, wall + 5_000)
    wall += 500
    assert clock() == (5_000, wall + 4_500)
