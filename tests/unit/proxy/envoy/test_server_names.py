"""Names in TLS, against what they mean said plainly."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from axoneme.proxy.envoy.servernames import expression

LABELS = st.sampled_from(["a", "b", "a-b", "x1", "_s"])
NAMES = st.lists(LABELS, min_size=1, max_size=4)


@given(NAMES, st.sampled_from(["", "*.", "**."]), NAMES)
def test_expressions(suffix: list[str], stars: str, asked: list[str]) -> None:
    more = len(asked) - len(suffix)
    wanted = asked[max(more, 0) :] == suffix and {"": more == 0, "*.": more == 1, "**.": more >= 1}[stars]
    found = re.fullmatch(expression(stars + ".".join(suffix)), ".".join(asked)) is not None
    assert found == wanted


def test_a_dot_is_a_dot() -> None:
    assert not re.fullmatch(expression("a.test"), "aXtest")
    assert re.fullmatch(expression("A.Test."), "a.test")
