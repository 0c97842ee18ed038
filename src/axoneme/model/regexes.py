"""Regular expressions in policies: RE2, which is what the proxies match with, in time linear in the text.

Each has to match the whole of a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from axoneme.model.paths import Place

#: Characters of an expression, and bytes that a compiled one may take.
LONGEST = 4096
_MEMORY = 1 << 20


def regex(place: Place) -> str:
    """An expression that RE2 takes; empty ones pass, and mean nothing in particular."""
    text = place.text()
    if len(text) > LONGEST:
        place.refuse(f"an expression has at most {LONGEST} characters", f"one of {len(text)}")
    if why := wrong(text):
        place.refuse(f"a regular expression (RE2) belongs here: {why}")
    return text


def wrong(text: str) -> str:
    """What is wrong with an expression; empty: nothing."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        re2.compile(text, options)
    except re2.error as error:
        (reason,) = error.args  # bytes, with a part of the expression
        said = reason.decode(errors="replace")
        return said if said.isprintable() else repr(said)
    except UnicodeEncodeError:
        return "it is no text"
    return ""


def matches(expression: str, value: str) -> bool:
    """Whether an expression, as `regex` gave it, matches the whole of a value."""
    import re2

    return re2.fullmatch(expression, value) is not None


def finder(expressions: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of them matches some part of a value: as fast for many as for one. ValueError for those
    that are wrong, and for more than shall be held in memory."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        compiled = re2.compile("|".join(f"(?:{each})" for each in expressions), options)
    except re2.error:
        why = next(filter(None, map(wrong, expressions)), "all of them together are too large")
        raise ValueError(why) from None
    search = compiled.search
    return lambda value: search(value) is not None
