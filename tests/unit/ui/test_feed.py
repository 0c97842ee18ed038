"""How many flows there were when, counted in records."""

from __future__ import annotations

import numpy as np

from axoneme.flows.events import Verdict
from axoneme.ui.feed import _count


def test_records_are_counted_by_verdict_and_time() -> None:
    records = np.zeros(5, [("wall", np.int64)])
    records["wall"] = [99, 100, 109, 110, 200]  # before, first, first, second, behind
    verdicts = np.array([1, 1, 2, 1, 1])
    found: dict[str, list[int]] = {Verdict.FORWARDED.name: [1, 0]}
    _count(found, verdicts, records, 100, 10, 2)
    assert found == {"FORWARDED": [2, 1], "DROPPED": [1, 0]}
