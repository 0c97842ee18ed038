"""What requests say in their addresses: filters, times, numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from multidict import MultiMapping

from axoneme.flows.flowfilter import FlowFilter, fields
from axoneme.ui.problems import Refusal

_NAMES = frozenset(name for name, _ in fields())
_NOT = "not."


def filters(
    query: MultiMapping[str], own: Mapping[str, object] | frozenset[str]
) -> tuple[list[FlowFilter], list[FlowFilter]]:
    """What to show and what to hide; ``own``: parameters that are no filters. `Refusal`."""
    shown: dict[str, list[str]] = defaultdict(list)
    hidden: list[FlowFilter] = []
    for parameter, value in query.items():
        if parameter in own:
            continue
        name = parameter.removeprefix(_NOT)
        if name not in _NAMES:
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"there is no filter {name}",
                field=parameter,
                remedy=f"one of {', '.join(sorted(_NAMES))}",
            )
        if parameter.startswith(_NOT):
            hidden.append(_filter(parameter, {name: [value]}))
        else:
            shown[name].append(value)
            _filter(parameter, {name: [value]})
    return [_filter("", shown)] if shown else [], hidden


def _filter(parameter: str, values: Mapping[str, list[str]]) -> FlowFilter:
    try:
        return msgspec.convert(dict(values), FlowFilter, strict=False)
    except msgspec.ValidationError as error:
        found = ", ".join(value for each in values.values() for value in each)
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"{parameter}: {error}", field=parameter, found=found
        ) from None


def number(query: MultiMapping[str], name: str, default: float, least: float, most: float) -> float:
    text = query.get(name)
    if text is None:
        return default
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not least <= found <= most:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{name}: {text} is no number from {least:g} to {most:g}",
            field=name,
            found=text,
        )
    return found


def moment(query: MultiMapping[str], name: str) -> int | None:
    """ns of the wall clock."""
    text = query.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(_microseconds(text))
        if found.tzinfo is None:
            raise ValueError
        return round(found.timestamp() * 1e6) * 1000
    except (ValueError, OverflowError):
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{name}: {text} is no time",
            field=name,
            found=text,
            remedy="2026-01-31T12:00:00Z",
        ) from None


def _microseconds(text: str) -> str:
    """Times of flows are finer than what Python reads."""
    whole, point, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{whole}.{rest[: min(digits, 6)]}{rest[digits:]}" if point else text


def body(raw: bytes, kind: type[Any]) -> Any:
    """`Refusal` where it is none."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"the body: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from None
