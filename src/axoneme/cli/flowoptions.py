"""The filters of `axo observe` as options: from what stands on the command line to `FlowFilter` values.

Options of one name are alternatives, different ones must all hold. ``--not`` in front of an option takes
away what it matches; each such option stands for itself, so `--not --port 53 --not --pod probe` hides what
matches either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
import msgspec

from axoneme.cli.completing import complete_nodes, complete_pod_of_any_namespace
from axoneme.flows.flowfilter import FlowFilter, fields

F = TypeVar("F", bound=Callable[..., Any])

NEGATION = "--not"


class _Duration(click.ParamType[int]):
    """In ns, from what `axoneme.cli.ages` reads."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from axoneme.cli.ages import nanoseconds

        found = nanoseconds(value)
        if found is None:
            self.fail(f"{value}: give a duration as 200ms, 1.5s or 80us", param, ctx)
        return found


#: What a command line has besides.
_SHORT = {"verdict": "-v", "namespace": "-n", "label": "-l", "type": "-t"}
_TYPES: Mapping[str, click.ParamType[int]] = {
    "port": click.IntRange(0, 65535),
    "handshake": _Duration(),
    "rtt": _Duration(),
    "retransmissions": click.IntRange(0),
}
_COMPLETIONS = {"pod": complete_pod_of_any_namespace, "node": complete_nodes}


def with_filters(command: F) -> F:
    """Adds an option for each field, and a hidden one for its negation."""
    for field, each in reversed(list(fields())):
        option = f"--{field.replace('_', '-')}"
        end = {"from": "source", "to": "destination"}.get(field.partition("_")[0])
        short = _SHORT.get(field)
        common: dict[str, Any] = {
            "multiple": True,
            "metavar": each.name.upper(),
            "type": _TYPES.get(each.name, click.STRING),
            "shell_complete": _COMPLETIONS.get(each.name),
        }
        names = [option, *([short] if short else [])]
        meaning = f"The same of the {end} only." if end else each.help
        command = click.option(*names, field, help=meaning, **common)(command)
        command = click.option(f"--not-{option[2:]}", f"not_{field}", hidden=True, **common)(command)
    return click.option(NEGATION, "negation", is_flag=True, help="Before a filter: hide what it matches.")(
        command
    )


class ObserveCommand(click.Command):
    """Reads ``--not --pod x`` as ``--not-pod x``: which option a flag stands before is lost otherwise."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_negations(args) if not ctx.resilient_parsing else args)


def join_negations(arguments: Sequence[str]) -> list[str]:
    """UsageError when ``--not`` stands before something that is no filter."""
    options = {f"--{field.replace('_', '-')}": field for field, _ in fields()}
    options |= {short: field for field, short in _SHORT.items()}
    joined: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word != NEGATION:
            joined.append(word)
            continue
        following = next(rest, "")
        name, equals, value = following.partition("=")
        if name not in options:
            raise click.UsageError(
                f"{NEGATION} belongs before a filter, as in {NEGATION} --pod web"
                + (f"; found {following}" if following else "; nothing follows it")
            )
        joined.append(f"--not-{options[name].replace('_', '-')}{equals}{value}")
    return joined


def filters(values: Mapping[str, Sequence[Any]]) -> tuple[list[FlowFilter], list[FlowFilter]]:
    """What to show and what to hide, from the options' values by name."""
    shown = {field: tuple(values[field]) for field, _ in fields() if values.get(field)}
    hidden = [
        msgspec.convert({field: [value]}, FlowFilter)
        for field, _ in fields()
        for value in values.get(f"not_{field}") or ()
    ]
    return [msgspec.convert(shown, FlowFilter)] if shown else [], hidden


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d")


def moment(text: str, option: str, now: int) -> int:
    """A time in ns since 1970: how long ago (``5m``), RFC 3339, or a local time without offset."""
    from datetime import datetime

    from axoneme.cli.ages import nanoseconds

    if (ago := nanoseconds(text)) is not None:
        return now - ago
    if _MOMENT.match(text):
        try:
            return int(datetime.fromisoformat(text).astimezone().timestamp() * 1_000_000) * 1000
        except ValueError:
            pass
    raise click.UsageError(
        f"{option} {text}: give how long ago (90s, 5m, 1h30m) or a time (2026-01-31T12:00:00Z)"
    )
