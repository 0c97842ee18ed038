"""From our filters to Hubble's, for those who ask a relay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, Final

from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowfilter import FilterError, FlowFilter, fields
from axoneme.hubble.schema import enum, message
from axoneme.identity.numbers import Reserved

_TYPES: Final = {"drop": 1, "trace": 4, "policy-verdict": 5, "l7": 129}


def _identity(value: int | str) -> int:
    if str(value).isdecimal():
        return int(value)
    for each in Reserved:
        if each.label.key == value:
            return int(each)
    raise FilterError("identity", value, "a number, or the name of a reserved identity")


def _workload(value: str) -> dict[str, str]:
    kind, _, name = value.rpartition("/")
    return {"kind": kind, "name": name}


def _header(value: str) -> dict[str, str]:
    key, _, text = value.partition(":")
    return {"key": key.strip(), "value": text.strip()}


def _number(field: str, kind: str, value: int | str) -> int:
    if str(value).isdecimal():
        return int(value)
    known, plain = enum(kind), str(value).upper().replace("-", "_")
    if plain not in known:
        raise FilterError(field, value, f"one of {', '.join(sorted(known))}")
    return known[plain]


def _type(value: str) -> int:
    if value.lower() not in _TYPES:
        raise FilterError("type", value, f"one of {', '.join(sorted(_TYPES))}")
    return _TYPES[value.lower()]


#: Hubble's name behind source_ or destination_, and a value as Hubble has it.
_SIDED: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "pod": ("pod", str),
    "namespace": ("pod", lambda value: f"{value}/"),
    "label": ("label", str),
    "service": ("service", str),
    "ip": ("ip", str),
    "port": ("port", str),
    "identity": ("identity", _identity),
    "workload": ("workload", _workload),
}
#: What is alike; verdicts, reasons and directions by number.
_ALIKE: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "verdict": ("verdict", lambda value: _number("verdict", "flow.Verdict", value)),
    "reason": ("drop_reason_desc", lambda value: _number("reason", "flow.DropReason", value)),
    "direction": ("traffic_direction", lambda value: _number("direction", "flow.TrafficDirection", value)),
    "protocol": ("protocol", str),
    "node": ("node_name", str),
    "http_status": ("http_status_code", str),
    "http_method": ("http_method", str),
    "http_path": ("http_path", str),
    "http_url": ("http_url", str),
    "http_header": ("http_header", _header),
    "dns_query": ("dns_query", str),
    "type": ("event_type", lambda value: {"type": _type(value)}),
}


def request(wanted: ObserveRequest) -> Any:
    """An ``observer.GetFlowsRequest``. `FilterError` where Hubble's filters have no word for a value."""
    made = message("observer.GetFlowsRequest")(
        number=wanted.last or 0,
        follow=wanted.follow,
        whitelist=[each for one in wanted.filters for each in filters(one)],
        blacklist=[each for one in wanted.not_filters for each in filters(one)],
    )
    if wanted.since is not None:
        made.since.FromNanoseconds(wanted.since)
    if wanted.until is not None:
        made.until.FromNanoseconds(wanted.until)
    return made


def filters(wanted: FlowFilter) -> list[Any]:
    """``flow.FlowFilter`` messages, of which one has to match: what is about either end is about the source
    in one of them, and about the destination in another."""
    common: dict[str, list[Any]] = {}
    either: list[tuple[str, Sequence[Any]]] = []
    for name, field in fields():
        values: Sequence[Any] = getattr(wanted, name)
        if not values:
            continue
        if not field.sided:
            if name not in _ALIKE:
                raise FilterError(name, values[0], "known to a relay: only nodes themselves filter by it")
            theirs, convert = _ALIKE[name]
            common.setdefault(theirs, []).extend(map(convert, values))
        elif name == field.name:
            either.append((name, values))
        else:
            _put(common, name, "source" if name.startswith("from_") else "destination", field.name, values)
    return [
        _message(common, either, sides) for sides in product(("source", "destination"), repeat=len(either))
    ]


def _message(
    common: dict[str, list[Any]], either: Iterable[tuple[str, Sequence[Any]]], sides: Sequence[str]
) -> Any:
    made = {name: list(values) for name, values in common.items()}
    for (name, values), side in zip(either, sides, strict=True):
        _put(made, name, side, name, values)
    return message("flow.FlowFilter")(**made)


def _put(made: dict[str, list[Any]], name: str, side: str, ours: str, values: Sequence[Any]) -> None:
    theirs, convert = _SIDED[ours]
    place = f"{side}_{theirs}"
    if place in made:
        # Values of one of Hubble's fields are alternatives, and these would have to hold together.
        raise FilterError(name, values[0], "alone: with another filter of this end a relay cannot hold it")
    made[place] = list(map(convert, values))
