"""Label selectors in the words of ``kubectl -l``: ``app=web,tier!=db,env in (a, b),!canary``.

Keys may name a source (``k8s:app``, ``reserved:host``); without one a label of every source counts.
"""

from __future__ import annotations

import re

from axoneme.model.labels import ANY, Operator, Requirement, Selector

_SET = re.compile(r"(?P<key>[^\s,!=()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(r"(?P<key>[^\s,!=()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s,=()]*)")
_PRESENT = re.compile(r"(?P<absent>!\s*)?(?P<key>[^\s,!=()]+)")
_SETS = {"in": Operator.IN, "notin": Operator.NOT_IN}


def parse_selector(text: str) -> Selector:
    """ValueError that quotes the place where the text stops making sense."""
    requirements, at = [], 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        requirement, at = _requirement(text, at)
        requirements.append(requirement)
        rest = text[at:].lstrip()
        if not rest:
            return Selector(tuple(requirements))
        if not rest.startswith(","):
            raise ValueError(f"expected ',' before {rest!r}")
        at = len(text) - len(rest) + 1


def _requirement(text: str, at: int) -> tuple[Requirement, int]:
    if found := _SET.match(text, at):
        values = tuple(value.strip() for value in found["values"].split(","))
        return _make(found["key"], _SETS[found["operator"]], values), found.end()
    if found := _EQUAL.match(text, at):
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return _make(found["key"], operator, (found["value"],)), found.end()
    if found := _PRESENT.match(text, at):
        operator = Operator.DOES_NOT_EXIST if found["absent"] else Operator.EXISTS
        return _make(found["key"], operator, ()), found.end()
    raise ValueError(f"no label key at {text[at:]!r}")


def _make(name: str, operator: Operator, values: tuple[str, ...]) -> Requirement:
    source, colon, key = name.partition(":")
    return Requirement(source, key, operator, values) if colon else Requirement(ANY, name, operator, values)
