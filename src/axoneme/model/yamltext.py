"""YAML and JSON text to plain values, as Kubernetes reads them.

Values are built straight from the parser's events, without a tree of nodes between. That is fast, gives
every complaint its line, and is the place to refuse what must not pass unseen: a key that stands twice in
one mapping (one of the two would silently win), references that blow up, tags that mean other types.

Plain scalars are resolved as kubectl's YAML library does it: ``yes`` and ``on`` are booleans, ``0644`` is
octal; dates, and numbers with colons, are strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from axoneme.model.paths import ManifestError, show

if TYPE_CHECKING:
    import yaml

#: Values in one document, references counted as often as they are used.
MOST_VALUES = 1_000_000
#: Mappings and lists inside each other.
DEEPEST = 200
#: Characters of a path in a message.
LONGEST_PATH = 200

_WORDS: dict[str, bool | None] = {"": None, "~": None}
for _names, _value in (
    (("null",), None),
    (("y", "yes", "true", "on"), True),
    (("n", "no", "false", "off"), False),
):
    for _name in _names:
        _WORDS |= {_name: _value, _name.upper(): _value, _name.capitalize(): _value}
_FIRST_OF_WORDS = frozenset(word[:1] for word in _WORDS)
_FIRST_OF_NUMBERS = frozenset("+-.0123456789")
_INTEGER = re.compile(r"([-+]?)(?:0x([0-9A-Fa-f]+)|0o?([0-7]+)|0b([01]+)|(0|[1-9][0-9]*))\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
#: From here on an integral float is no longer written as an integer in JSON.
_LARGEST_INTEGRAL = 1e21

_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a text, and the line on which it begins."""

    line: int
    value: object


def documents(text: str, origin: str) -> Iterator[Document]:
    """The documents of a text that are not empty; `ManifestError` where it is neither YAML nor JSON."""
    text = text.removeprefix("\ufeff")
    _check_text(text, origin)
    if text.lstrip()[:1] == "{":
        try:
            found = list(_json_documents(text, origin))
        except (json.JSONDecodeError, RecursionError):
            pass  # a mapping in YAML's flow style, or broken: the YAML parser knows where
        else:
            yield from found
            return
    yield from _yaml_documents(text, origin)


def single(data: bytes, origin: str) -> object:
    """The only document of a file. `ManifestError` when there are more, or none, or it is no text."""
    found = list(documents(data.decode("utf-8", "surrogateescape"), origin))
    if len(found) != 1:
        raise ManifestError("", f"{len(found)} documents", "one belongs here", origin=origin)
    return found[0].value


def _check_text(text: str, origin: str) -> None:
    """Refuses halves of characters, which could not be written down again."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ManifestError("", "characters that are no text", "UTF-8 belongs here", origin=origin) from None


# ---- JSON --------------------------------------------------------------------------------------


def _json_documents(text: str, origin: str) -> Iterator[Document]:
    """Objects one behind the other."""
    line, position = 1, 0
    decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_integer)
    while (start := _content(text, position)) < len(text):
        line += text.count("\n", position, start)
        try:
            value, end = decode.raw_decode(text, start)
        except ManifestError as error:
            raise error.of(origin=f"{origin}:{line}") from None
        if "\\u" in text:
            _check_text(json.dumps(value, ensure_ascii=False), f"{origin}:{line}")
        yield Document(line, value)
        line += text.count("\n", start, end)
        position = end


def _content(text: str, position: int) -> int:
    match = re.compile(r"[ \t\r\n]*").match(text, position)
    return match.end() if match else position


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ManifestError("", f"the key {show(twice)} twice in one object", "each key may stand once")
    return made


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ManifestError("", "a number that is too large", "a number that fits 64 bits belongs here")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ManifestError("", text, "this is no number in JSON")


# ---- YAML --------------------------------------------------------------------------------------


def _yaml_documents(text: str, origin: str) -> Iterator[Document]:
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        yield from _build(yaml.parse(text, Loader=loader), origin)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "a syntax error"
        found = str(problem).removeprefix("found ")
        raise ManifestError("", found, "YAML or JSON belongs here", origin=where) from None


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is being filled; ``key`` is the one whose value comes next."""

    value: dict[str, object] | list[object]
    anchor: str | None
    before: int
    key: str | None = None
    merges: bool = False
    merged: list[object] = field(default_factory=list)


class _Builder:
    """One document's value out of the parser's events."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        self._count = 0
        self.value: object = None

    def refuse(self, event: yaml.Event, found: str, right: str) -> NoReturn:
        path = ""
        for frame in self._stack:
            if isinstance(frame.value, list):
                path += f"[{len(frame.value)}]"
            elif frame.key is not None:
                path += f".{frame.key}" if path else frame.key
        path = path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}..."
        raise ManifestError(path, found, right, origin=f"{self._origin}:{_line(event)}")

    def begin(self, event: yaml.CollectionStartEvent, value: dict[str, object] | list[object]) -> None:
        if self._stack and self._wants_key():
            self.refuse(event, "a mapping or list as a key", "a key must be a string")
        if len(self._stack) >= DEEPEST:
            self.refuse(event, f"more than {DEEPEST} mappings and lists inside each other", "flatten them")
        kind = f"{_TAG}map" if isinstance(value, dict) else f"{_TAG}seq"
        if event.tag not in (None, "!", kind):
            self.refuse(event, f"the tag {event.tag}", "only the types of JSON can be used")
        self._add(event, 1)
        self._stack.append(_Frame(value, event.anchor, self._count))

    def end(self, event: yaml.Event) -> None:
        frame = self._stack.pop()
        value: object = frame.value
        if isinstance(frame.value, dict) and frame.merged:
            value = frame.value = self._merge(event, frame)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (value, 1 + self._count - frame.before)
        self._put(event, value)

    def scalar(self, event: yaml.ScalarEvent) -> None:
        self._add(event, 1)
        plain = not event.style
        if self._stack and self._wants_key():
            if event.anchor is not None:
                self._anchors[event.anchor] = (event.value, 1)
            self._key(event, event.value, merge=plain and event.value == _MERGE and event.tag is None)
            return
        value = self._tagged(event) if event.tag not in (None, "!") else event.value
        if plain and event.tag is None:
            value = self._resolved(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._put(event, value)

    def alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            self.refuse(
                event, f"the reference *{event.anchor}", "it must follow the end of what it refers to"
            )
        value, size = self._anchors[event.anchor]
        self._add(event, size)
        if self._stack and self._wants_key():
            if not isinstance(value, str):
                self.refuse(event, show(value), "a key must be a string")
            self._key(event, value, merge=False)
        else:
            self._put(event, value)

    # ---- inside ----------------------------------------------------------------------------------

    def _add(self, event: yaml.Event, values: int) -> None:
        self._count += values
        if self._count > MOST_VALUES:
            self.refuse(event, f"more than {MOST_VALUES} values", "split the document")

    def _wants_key(self) -> bool:
        frame = self._stack[-1]
        return isinstance(frame.value, dict) and frame.key is None

    def _key(self, event: yaml.Event, key: str, *, merge: bool) -> None:
        frame = self._stack[-1]
        assert isinstance(frame.value, dict)
        frame.key, frame.merges = key, merge
        if key in frame.value and not merge:
            self.refuse(event, f"the key {show(key)} twice in one mapping", "each key may stand once")

    def _put(self, event: yaml.Event, value: object) -> None:
        if not self._stack:
            self.value = value
            return
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.merges:
            frame.merged += value if isinstance(value, list) else [value]
            frame.key, frame.merges = None, False
        elif frame.key is not None:
            frame.value[frame.key] = value
            frame.key = None

    def _merge(self, event: yaml.Event, frame: _Frame) -> dict[str, object]:
        """What is written in the mapping itself wins, then the earlier of the merged ones."""
        assert isinstance(frame.value, dict)
        made = dict(frame.value)
        for source in frame.merged:
            if not isinstance(source, dict):
                self.refuse(event, f"{show(source)} under '<<'", "only mappings can be merged")
            self._add(event, len(source))
            made = {**source, **made}
        return made

    def _resolved(self, event: yaml.ScalarEvent) -> object:
        text = event.value
        first = text[:1]
        if first in _FIRST_OF_NUMBERS:
            return self._number(event, text)
        if first in _FIRST_OF_WORDS:
            return _WORDS.get(text, text)
        return text

    def _number(self, event: yaml.ScalarEvent, text: str) -> object:
        digits = text.replace("_", "")
        if (match := _INTEGER.match(digits)) and len(digits) <= 66:
            sign, *by_base = match.groups()
            base, part = next((b, p) for b, p in zip((16, 8, 2, 10), by_base, strict=True) if p is not None)
            number = int(sign + part, base)
            if -(2**63) <= number < 2**64:
                return number
        if _NO_NUMBER.match(text):
            self.refuse(event, text, "this is no number in JSON")
        if not _FLOAT.match(digits):
            return text
        real = float(digits)
        if real in (float("inf"), float("-inf")):
            self.refuse(event, "a number that is too large", "a number that fits 64 bits belongs here")
        return int(real) if real.is_integer() and abs(real) < _LARGEST_INTEGRAL else real

    def _tagged(self, event: yaml.ScalarEvent) -> object:
        """A scalar with a tag of its own: ``!!str 80``."""
        if event.tag == f"{_TAG}str":
            return event.value
        value = self._resolved(event)
        kinds: dict[str, type | tuple[type, ...]] = {
            f"{_TAG}int": int,
            f"{_TAG}float": (int, float),
            f"{_TAG}bool": bool,
            f"{_TAG}null": type(None),
        }
        if event.tag not in kinds or not isinstance(value, kinds[event.tag]):
            self.refuse(
                event, f"the tag {event.tag} on {show(event.value)}", "it does not fit a type of JSON"
            )
        return value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _build(events: Iterator[yaml.Event], origin: str) -> Iterator[Document]:
    import yaml

    builder, line, begun = _Builder(origin), 1, False
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            builder, begun = _Builder(origin), False
            continue
        if isinstance(event, yaml.DocumentEndEvent):
            if builder.value is not None:
                yield Document(line, builder.value)
            continue
        if isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent):
            continue
        if not begun:
            line, begun = _line(event), True
        if isinstance(event, yaml.ScalarEvent):
            builder.scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            builder.begin(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            builder.begin(event, [])
        elif isinstance(event, yaml.AliasEvent):
            builder.alias(event)
        else:
            builder.end(event)
