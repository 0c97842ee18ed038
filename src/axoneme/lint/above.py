"""Traps in rules above L4, of one rule."""

from __future__ import annotations

import re
from collections.abc import Iterator

from axoneme.lint import findings as traps
from axoneme.lint.shapes import Found
from axoneme.lint.statements import Statement
from axoneme.model.regexes import matches

#: What a path is made of that says no more than itself, but for dots, which nobody means as such there.
_PLAIN = re.compile(r"\^?[-\w/.~]+\$?\Z")
#: What stands in patterns of values and hardly in values.
_PATTERN = re.compile(r"\[[^\]]*\][+*?]?|\.[*+]|\\[dws]")


def look_at(statement: Statement) -> Iterator[Found]:
    rules = statement.rule.l7
    if rules is None:
        return
    for rule in rules.http:
        path = rule.path
        if _PLAIN.match(path) and not matches(path, f"{path.strip('^$')}?a=1"):
            yield traps.NO_QUERY, f"{statement.path}.rules.http", f"the path {path}"
        for header in rule.headers:
            if _PATTERN.search(header.value):
                yield traps.LITERAL_HEADER, f"{statement.path}.rules.http", f"{header.name}: {header.value}"
