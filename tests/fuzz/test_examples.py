"""Every target on its sound inputs, and on all that has failed before."""

from __future__ import annotations

import pytest

from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_property_holds_for_the_examples(name: str) -> None:
    target = TARGETS[name]
    examples = [*target.seeds(), *(path.read_bytes() for path in target.found())]
    assert len(examples) > len(target.found()), "there is nothing to begin with"
    for data in (b"", *examples, *(each[: len(each) // 2] for each in examples)):
        target.check(data)
