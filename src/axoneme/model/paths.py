"""Reading an object that somebody else wrote: values that know where they stand.

Parsers walk an object with `Place`, a value together with its path (`spec.ingress[0].ports[1].port`).
Asking a place for what it should be either gives it, typed, or raises a `ManifestError` that says what
was found there and what would be right. So a parser reads as a description of the good case, and no
half-checked dictionary travels on.

A null counts as absent, as in the Kubernetes API. Where absence would *widen* a policy, a null is refused
instead (`Fields.stated`): nobody who writes ``fromEndpoints:`` with nothing behind it means everybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*\Z")


class ManifestError(ValueError):
    """A manifest that cannot be taken, or not as it is.

    ``object`` is kind and name, ``origin`` where the text came from (file and line), ``path`` the field,
    ``found`` what stands there, ``right`` what would be right. What is not known is empty.
    """

    def __init__(self, path: str, found: str, right: str, *, object: str = "", origin: str = "") -> None:
        super().__init__(path, found, right)
        self.path = path
        self.found = found
        self.right = right
        self.object = object
        self.origin = origin

    def of(self, object: str = "", origin: str = "") -> ManifestError:
        """The same with the object and origin where they are not known yet."""
        return ManifestError(
            self.path,
            self.found,
            self.right,
            object=self.object or object,
            origin=self.origin or origin,
        )

    def __str__(self) -> str:
        where = (
            f"{self.object} ({self.origin})" if self.object and self.origin else self.object or self.origin
        )
        parts = [part for part in (where, self.path) if part]
        return f"{': '.join([*parts, f'found {self.found}'])}; {self.right}"


@dataclass(frozen=True, slots=True)
class Place:
    """A value and the path to it."""

    value: object
    path: str

    def refuse(self, right: str, found: str | None = None) -> NoReturn:
        raise ManifestError(self.path, show(self.value) if found is None else found, right)

    def fields(self, known: Collection[str] | None = None) -> Fields:
        """The fields of a mapping; one that is not among ``known`` is refused."""
        if not isinstance(self.value, Mapping):
            self.refuse("a mapping belongs here")
        fields = Fields(self.value, self.path)
        if known is not None:
            fields.only(known)
        return fields

    def items(self) -> list[Place]:
        """The items of a list, none of them null."""
        if not isinstance(self.value, list | tuple):
            self.refuse("a list belongs here")
        places = [Place(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]
        for place in places:
            if place.value is None:
                place.refuse("an item of a list cannot be empty")
        return places

    def text(self) -> str:
        """A string; empty ones pass."""
        if not isinstance(self.value, str):
            quotable = isinstance(self.value, bool | int | float)
            hint = f': write it in quotes, "{show(self.value)}"' if quotable else ""
            self.refuse(f"a string belongs here{hint}")
        return self.value

    def name(self) -> str:
        """A string that is not empty."""
        if self.value == "":
            self.refuse("a name belongs here")
        return self.text()

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            self.refuse("true or false belongs here")
        return self.value

    def number(self, first: int, last: int) -> int:
        """An integer from ``first`` to ``last``."""
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool) or not first <= value <= last:
            self.refuse(f"a number from {first} to {last} belongs here")
        return value

    def one_of(self, options: Collection[str]) -> str:
        """One of the strings in ``options``."""
        if not isinstance(self.value, str) or self.value not in options:
            self.refuse(f"it must be one of {', '.join(options)}{_nearest(self.value, options)}")
        return self.value


class Fields:
    """The fields of one mapping."""

    __slots__ = ("_values", "path")

    def __init__(self, values: Mapping[str, object], path: str) -> None:
        self._values = values
        self.path = path

    def only(self, known: Collection[str]) -> None:
        for key, value in self._values.items():
            if key not in known:
                Place(value, _below(self.path, key)).refuse(
                    f"there is no such field{_nearest(key, known)}; known are {', '.join(known)}"
                    if known
                    else "there are no fields here"
                )

    def __contains__(self, name: str) -> bool:
        """Whether the field is there, and not null."""
        return self._values.get(name) is not None

    def get(self, name: str) -> Place | None:
        """The field, or None where it is absent or null."""
        value = self._values.get(name)
        return None if value is None else Place(value, _below(self.path, name))

    def stated(self, name: str) -> Place | None:
        """The field, or None where it is absent; for fields whose absence says more than nothing."""
        if name in self._values and self._values[name] is None:
            Place(None, _below(self.path, name)).refuse(
                "it is not clear whether nothing or everything is meant: leave the field away, or fill it"
            )
        return self.get(name)

    def need(self, name: str, right: str = "this field is required") -> Place:
        place = self.get(name)
        return self.place(name).refuse(right, "nothing") if place is None else place

    def place(self, name: str) -> Place:
        """The field's place, whether there is something or not."""
        return Place(self._values.get(name), _below(self.path, name))

    def items(self, name: str) -> list[Place]:
        """The items of a list field; none where it is absent."""
        place = self.get(name)
        return [] if place is None else place.items()

    def stated_items(self, name: str) -> list[Place]:
        """The same, but a null is refused: see `stated`."""
        place = self.stated(name)
        return [] if place is None else place.items()

    def text(self, name: str, default: str = "") -> str:
        place = self.get(name)
        return default if place is None else place.text()

    def flag(self, name: str, default: bool = False) -> bool:
        place = self.get(name)
        return default if place is None else place.flag()

    def number(self, name: str, default: int, first: int, last: int) -> int:
        place = self.get(name)
        return default if place is None else place.number(first, last)

    def one_of(self, name: str, options: Collection[str], default: str) -> str:
        place = self.get(name)
        return default if place is None else place.one_of(options)

    def entries(self) -> Iterator[tuple[Place, Place]]:
        """Keys and values of a mapping that has no fixed fields; both stand at the key's path."""
        for key, value in self._values.items():
            path = _below(self.path, key)
            yield Place(key, path), Place(value, path)


def show(value: object) -> str:
    """A value, short enough for a message."""
    if isinstance(value, Mapping):
        keys = ", ".join(key if isinstance(key, str) else show(key) for key in list(value)[:4])
        return f"a mapping with {_short(keys)}" if keys else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        return _short(json.dumps(value, ensure_ascii=False))
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int) and not -(2**64) < value < 2**64:
        return "a very large number"
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _below(path: str, key: object) -> str:
    if isinstance(key, str) and _PLAIN_KEY.match(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{show(key)}]"


def _nearest(name: object, known: Collection[str]) -> str:
    """A hint at the known name that was probably meant."""
    from difflib import get_close_matches

    if not isinstance(name, str) or not name:
        return ""
    names = {each.lower(): each for each in known}
    begun = [each for each in names if len(name) > 2 and each.startswith(name.lower())]
    found = begun[:1] if len(begun) == 1 else get_close_matches(name.lower(), names, 1)
    return f" (is it {names[found[0]]}?)" if found else ""
