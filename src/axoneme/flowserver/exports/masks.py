"""Which fields of a flow are written: Hubble's field masks, on the values that leave here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import msgspec

from axoneme.flows.flow import Flow
from axoneme.hubble.fieldmask import Mask, MaskError

#: A field with those of its own that are wanted; none of them: all.
_Tree = dict[str, Any]


class FieldMask:
    """``paths`` as ``source.pod_name``; none of them: everything."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises ValueError for a path that no flow has."""
        self._tree: _Tree = {}
        for path in paths:
            _check(path)
            _plant(self._tree, path.split("."))

    def __bool__(self) -> bool:
        return bool(self._tree)

    def of(self, flow: Flow) -> Any:
        """The flow, or what is wanted of it."""
        return _pick(flow, self._tree) if self._tree else flow


def _check(path: str) -> None:
    kinds: list[Any] = [Flow]
    for part in path.split("."):
        there = [get_type_hints(kind)[part] for kind in kinds if part in get_type_hints(kind)]
        if not there:
            if _hubble_has(path):
                return  # what we never know: it is left out
            raise ValueError(f"fieldMask: {path!r} is no field of a flow")
        kinds = [kind for hint in there for kind in _structs(hint)]


def _structs(hint: Any) -> list[Any]:
    """The structs in ``X``, ``X | None`` and ``tuple[X, ...]``."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [kind for argument in get_args(hint) for kind in _structs(argument)]


def _hubble_has(path: str) -> bool:
    try:
        Mask((path,))
    except MaskError:
        return False
    return True


def _plant(tree: _Tree, parts: list[str]) -> None:
    first, *rest = parts
    if not rest:
        tree[first] = {}
    elif tree.get(first) != {}:  # else all of it is wanted already
        _plant(tree.setdefault(first, {}), rest)


def _pick(value: Any, tree: _Tree) -> Any:
    if not tree:
        return value
    if isinstance(value, tuple):
        return [_pick(each, tree) for each in value]
    picked = {}
    for name, inside in tree.items():
        found = getattr(value, name, None)
        if found is not None and found not in ("", (), 0):
            found = _pick(found, inside)
            if found != {}:
                picked[name] = found
    return picked
