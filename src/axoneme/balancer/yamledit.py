"""Changing a YAML file as little as makes it say something else: comments and layout are the user's.

The parser tells where each value stands. What changed between two values is found key by key and item by
item (`_Editor`), and only those characters are replaced. What cannot be told apart (a list in another order)
is written anew as a whole. The caller reads the result again, and compares.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from axoneme.model.paths import ManifestError
from axoneme.model.yamltext import documents

_WIDTH: Final = 110
#: What may change of an item of a list without making it another.
_MOVING: Final = ("weight", "drain")


def rewrite(text: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """``text``, which says ``before`` (among what both leave out), so changed that it says ``after``."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    root = yaml.compose(text, Loader=loader)
    if root is None:
        return _dump(dict(after))
    if not text.endswith("\n"):
        text += "\n"
    editor = _Editor(text)
    editor.change(root, before, after, -2)
    return editor.result()


class _Editor:
    def __init__(self, text: str) -> None:
        self._text = text
        self._edits: list[tuple[int, int, str]] = []

    def result(self) -> str:
        """From the end on. Of what is inserted at one place, what belongs further inside was noted first."""
        text = self._text
        numbered = [(start, end, number) for number, (start, end, _) in enumerate(self._edits)]
        for start, end, number in sorted(numbered, reverse=True):
            text = text[:start] + self._edits[number][2] + text[end:]
        return text

    def change(self, node: yaml.Node, before: Any, after: Any, column: int | None) -> None:
        """``column``: where the key or dash stands whose value this is; None within braces or brackets."""
        if before == after:
            return
        if isinstance(node, yaml.MappingNode) and isinstance(before, dict) and isinstance(after, dict):
            if self._mapping(node, before, after):
                return
        elif (
            isinstance(node, yaml.SequenceNode)
            and isinstance(before, list | tuple)
            and isinstance(after, list | tuple)
            and self._sequence(node, before, after)
        ):
            return
        self._replace(node, after, column)

    # ---- mappings --------------------------------------------------------------------------------

    def _mapping(self, node: yaml.MappingNode, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """False where the whole must be written anew."""
        written = {key.value: (key, value) for key, value in node.value}
        other = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        added = {key: after[key] for key in other if key not in written}
        gone = [key for key in other if key not in after and key in written]
        if len(gone) == len(written) or (node.flow_style and len(gone) > 1):
            return False
        for key in other:
            if key in written and key in after:
                name, value = written[key]
                column = None if node.flow_style else name.start_mark.column
                self.change(value, before.get(key), after[key], column)
        for key in gone:
            self._remove_key(node, [name.value for name, _ in node.value].index(key))
        if added and node.flow_style:
            self._insert(self._end(node.value[-1][1]), f", {_dump(added, flow=True).strip()[1:-1]}")
        elif added:
            column = node.value[0][0].start_mark.column
            self._insert(self._after(node.value[-1][1]), _indented(_dump(added), column))
        return True

    def _remove_key(self, node: yaml.MappingNode, index: int) -> None:
        key, value = node.value[index]
        start = key.start_mark.index
        if node.flow_style and index:
            self._edits.append((self._end(node.value[index - 1][1]), self._end(value), ""))
        elif node.flow_style or self._text[self._line(start) : start].strip():  # behind a dash, which stays
            self._edits.append((start, node.value[index + 1][0].start_mark.index, ""))
        else:
            self._edits.append((self._line(start), self._after(value), ""))

    # ---- lists -----------------------------------------------------------------------------------

    def _sequence(self, node: yaml.SequenceNode, before: Sequence[Any], after: Sequence[Any]) -> bool:
        """False where the whole must be written anew."""
        old, new = [_identity(item) for item in before], [_identity(item) for item in after]
        kept = [each for each in old if each in new]
        if len(set(old)) < len(old) or len(set(new)) < len(new) or len(node.value) != len(old):
            return False
        if new[: len(kept)] != kept or not kept or (node.flow_style and old != new):
            return False
        column = node.start_mark.column
        items = dict(zip(new, after, strict=True))
        for item, value, identity in zip(node.value, before, old, strict=True):
            if identity in items:
                self.change(item, value, items[identity], None if node.flow_style else column)
            else:
                self._edits.append((self._line(item.start_mark.index), self._after(item), ""))
        if added := list(after[len(kept) :]):
            self._insert(self._after(node.value[-1]), _indented(_dump(added), column))
        return True

    # ---- text ------------------------------------------------------------------------------------

    def _replace(self, node: yaml.Node, value: Any, column: int | None) -> None:
        start, end = node.start_mark.index, self._end(node)
        if not value or not isinstance(value, dict | list | tuple):
            room = " " if isinstance(node, yaml.CollectionNode) and not node.flow_style else ""
            self._edits.append((start, end, room + _dump(value, flow=True).strip()))
        elif isinstance(node, yaml.CollectionNode) and not node.flow_style:
            text = _indented(_dump(value), node.start_mark.column)
            self._edits.append((start, end, text.strip()))
        elif column is None or (isinstance(node, yaml.CollectionNode) and node.value):
            self._edits.append((start, end, _dump(value, flow=True).strip()))
        else:
            self._edits.append((start, end, f"\n{_indented(_dump(value), column + 2).rstrip()}"))

    def _insert(self, at: int, text: str) -> None:
        self._edits.append((at, at, text))

    def _end(self, node: yaml.Node) -> int:
        """Behind its last character; the parser's own mark stands behind what follows, comments included."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._end(last[1] if isinstance(last, tuple) else last)
        return int(node.end_mark.index)

    def _after(self, node: yaml.Node) -> int:
        """Where the line behind it begins."""
        end = self._end(node)
        if end and self._text[end - 1] == "\n":
            return end
        return self._text.index("\n", end) + 1

    def _line(self, index: int) -> int:
        return self._text.rfind("\n", 0, index) + 1


def _identity(item: Any) -> str:
    """What makes an item of a list the same one after a change."""
    if not isinstance(item, dict):
        return json.dumps(item)
    return item.get("name") or json.dumps({key: item[key] for key in sorted(item) if key not in _MOVING})


def _indented(text: str, column: int) -> str:
    return "".join(" " * column + line for line in text.splitlines(keepends=True))


class _Dumper(yaml.SafeDumper):
    """Quotes what our own reader would take for another type; writes nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    style = None if list(_read_plain(text)) == [text] else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _read_plain(text: str) -> Iterator[object]:
    try:
        yield from (document.value for document in documents(text, ""))
    except ManifestError:
        return


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, _Dumper.represent_list)


def _dump(value: Any, flow: bool = False) -> str:
    """In lines, with the innermost mappings and lists in braces and brackets; or all so (``flow``)."""
    stream = io.StringIO()
    style: Any = True if flow else None
    dumper = _Dumper(stream, default_flow_style=style, sort_keys=False, allow_unicode=True, width=_WIDTH)
    dumper.open()
    node = dumper.represent_data(value)
    if isinstance(node, yaml.CollectionNode) and not flow:
        node.flow_style = False
    dumper.serialize(node)
    dumper.close()
    return stream.getvalue().removesuffix("...\n")
