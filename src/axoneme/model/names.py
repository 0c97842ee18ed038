"""DNS names, and which of them a policy means: ``matchName`` and ``matchPattern`` of toFQDNs and DNS rules.

Names stand in lower case without the trailing dot; the root is the empty one. ``*`` alone matches every name.
In a longer pattern ``*`` stands for any number of letters, digits, ``-`` and ``_`` within one label, and a
leading ``**.`` for one label or more; further stars side by side are one. So ``*.a.io`` matches ``x.a.io``
alone, ``*a.io`` matches ``a.io`` and ``xa.io`` but not ``x.a.io``, ``**.a.io`` whatever is below ``a.io``.

Bytes that are no such characters come escaped (``\\.`` for a dot within a label, RFC 4343, section 2.1), and
match no star but the single one. Time is linear in the name, whatever the pattern: the names are those that
workloads ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from axoneme.model.l7 import NameMatch
from axoneme.model.paths import Place

#: Characters of a name or pattern.
LONGEST = 255

_NAME = re.compile(r"[-a-zA-Z0-9_.]+\Z")
_PATTERN = re.compile(r"[-a-zA-Z0-9_.*]+\Z")
_STARS = re.compile(r"\*+")
_LABEL = re.compile(r"[-a-z0-9_]*\Z")
_BELOW = "**."
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

EVERY_NAME = NameMatch("*", pattern=True)


def canonical(name: str) -> str:
    """The form in which names are compared. Only ASCII letters have two cases (RFC 4343)."""
    return name.removesuffix(".").translate(_LOWER)


def parse_name_match(place: Place) -> NameMatch:
    """An item of toFQDNs or of DNS rules."""
    fields = place.fields(("matchName", "matchPattern"))
    name, pattern = (fields.stated(field) for field in ("matchName", "matchPattern"))
    if pattern is not None and name is None:
        return _pattern(_checked(pattern, _PATTERN, "letters, digits, '-', '_', '.' and '*'"))
    if name is not None and pattern is None:
        return NameMatch(canonical(_checked(name, _NAME, "letters, digits, '-', '_' and '.'")))
    return place.refuse("either matchName or matchPattern belongs here")


def _checked(place: Place, form: re.Pattern[str], characters: str) -> str:
    text = place.name()
    if len(text) > LONGEST or not form.match(text):
        place.refuse(f"a DNS name of at most {LONGEST} {characters} belongs here")
    return text


def _pattern(text: str) -> NameMatch:
    text = canonical(text)
    if text and not text.strip("*"):
        return EVERY_NAME
    below = _BELOW if text.startswith(_BELOW) else ""
    text = below + _STARS.sub("*", text.removeprefix(below))
    return NameMatch(text, pattern="*" in text)


def matches(match: NameMatch, name: str) -> bool:
    """Whether a canonical name is among those that are meant."""
    if not match.pattern:
        return match.text == name
    if match == EVERY_NAME:
        return True
    labels, pattern = name.split("."), match.text.split(".")
    if pattern[0] == "**":
        beyond = len(labels) - len(pattern) + 1
        if beyond < 1 or not all(label and _LABEL.match(label) for label in labels[:beyond]):
            return False
        labels, pattern = labels[beyond:], pattern[1:]
    return len(labels) == len(pattern) and all(map(_label_matches, pattern, labels))


def _label_matches(pattern: str, label: str) -> bool:
    """The parts between the stars have to follow each other; where each is found first leaves most room."""
    first, *parts = pattern.split("*")
    if not parts:
        return pattern == label
    last = parts.pop()
    end = len(label) - len(last)
    if end < len(first) or not (label.startswith(first) and label.endswith(last) and _LABEL.match(label)):
        return False
    at = len(first)
    for part in parts:
        at = label.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


class NameIndex:
    """Many selectors of names, asked which of them match one. Patterns are filed under the labels behind
    their last star, so that few are looked at."""

    def __init__(self, matches: Iterable[NameMatch] = ()) -> None:
        self._filed: dict[str, dict[NameMatch, None]] = {}
        self._all: dict[NameMatch, None] = {}
        for match in matches:
            self.add(match)

    def add(self, match: NameMatch) -> None:
        self._all[match] = None
        self._filed.setdefault(_plain_end(match), {})[match] = None

    def discard(self, match: NameMatch) -> None:
        if match in self._all:
            del self._all[match]
            filed = self._filed[end := _plain_end(match)]
            del filed[match]
            if not filed:
                del self._filed[end]

    def matching(self, name: str) -> list[NameMatch]:
        """The selectors that match a canonical name."""
        return [m for end in _ends(name) for m in self._filed.get(end, ()) if matches(m, name)]

    def matches(self, name: str) -> bool:
        """Whether any does."""
        return any(matches(m, name) for end in _ends(name) for m in self._filed.get(end, ()))

    def __contains__(self, match: NameMatch) -> bool:
        return match in self._all

    def __iter__(self) -> Iterator[NameMatch]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _plain_end(match: NameMatch) -> str:
    """The labels behind the last that has a star, as `_ends` gives them."""
    if not match.pattern:
        return match.text
    _, _, end = match.text.rpartition("*")
    return "." + end.partition(".")[2] if "." in end else "."


def _ends(name: str) -> Iterator[str]:
    """A name's own text, what follows each of its dots with the dot, and a dot for every name."""
    yield name
    at = name.find(".")
    while 0 <= at < len(name) - 1:
        yield name[at:]
        at = name.find(".", at + 1)
    yield "."
