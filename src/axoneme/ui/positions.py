"""Where in a text a field stands that a message names by its path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

import yaml

_STEP: Final = re.compile(
    r"\.?(?P<key>[A-Za-z_][\w-]*)|\[(?P<index>\d+)\]|\[(?P<quoted>\"(?:[^\"\\]|\\.)*\")\]"
)
#: How a message says where its document begins, and which item of a list it is about.
_ORIGIN: Final = re.compile(r".*?:(?P<line>\d+)(?P<items>( items\[\d+\])*)$")

Position = tuple[int, int]
UNKNOWN: Final[Position] = (0, 0)


class Positions:
    """Of one text, which has been read before: it is YAML, and its aliases are bearable."""

    def __init__(self, text: str) -> None:
        self._lines = max(1, len(text.splitlines()))
        try:
            self._documents = [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
        except (yaml.YAMLError, RecursionError, ValueError):
            self._documents = []

    def of(self, origin: str, path: str) -> Position:
        """Line and column, from 1; of the nearest that is there, where the field itself is missing."""
        found = _ORIGIN.match(origin)
        if found is None:
            return UNKNOWN
        line = min(int(found["line"]), self._lines)  # what is missing at the end is missing behind it
        document = next((each for each in self._documents if each.start_mark.line + 1 >= line), None)
        if document is None:
            return line, 1
        at, node = document, document
        for step in [*_steps(found["items"].replace(" ", ".")), *_steps(path)]:
            below = _below(node, step)
            if below is None:
                break
            at, node = below
        return at.start_mark.line + 1, at.start_mark.column + 1


def _steps(path: str) -> Iterator[str | int]:
    for found in _STEP.finditer(path):
        if found["index"]:
            yield int(found["index"])
        elif found["quoted"]:
            yield json.loads(found["quoted"])
        else:
            yield found["key"]


def _below(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """What to point at (the key, of a mapping), and what is there."""
    if isinstance(node, yaml.MappingNode) and isinstance(step, str):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None
