"""The filters of `axo observe` as options: from what stands on the command line to `FlowFilter` values.

Options of one name are alternatives, different ones must all hold. ``--not`` in front of an option takes
away what it matches; each such option stands for itself, so `--not --port 53 --not --pod probe` hides what
matches either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import click
import msgspec

from axoneme.cli.completing import complete_nodes, complete_pod_of_any_namespace
from axoneme.flows.flowfilter import FlowFilter

F = TypeVar("F", bound=Callable[..., Any])

NEGATION = "--not"


class Filter(NamedTuple):
    """One field of `FlowFilter`; ``sided`` ones are also there for the source and the destination."""

    field: str
    help: str
    sided: bool = False
    short: str = ""
    type: click.IntRange | None = None


FILTERS = (
    Filter("verdict", "FORWARDED, DROPPED and others.", short="-v"),
    Filter("pod", "POD, NAMESPACE/POD (the start of the name is enough) or NAMESPACE/.", True),
    Filter("namespace", "The pod's namespace.", True, "-n"),
    Filter("workload", "The pod's workload: NAME or KIND/NAME.", True),
    Filter("service", "A service that was called: NAME (its start), NAMESPACE/NAME or NAMESPACE/.", True),
    Filter("label", "A selector of labels: app=web,tier!=db.", True, "-l"),
    Filter("identity", "A number, or a reserved name as world or host.", True),
    Filter("ip", "An address or a range.", True),
    Filter("port", "A port.", True, type=click.IntRange(0, 65535)),
    Filter("protocol", "tcp, udp, sctp, icmp, icmpv4, icmpv6, a number; http, dns, kafka."),
    Filter("node", "The node that saw it."),
    Filter("reason", "The reason of a drop, such as POLICY_DENIED."),
    Filter("direction", "ingress or egress, as the node's pod sees it."),
    Filter("event", "new, end, drop, request or response."),
    Filter("type", "l7, drop, policy-verdict or trace.", short="-t"),
    Filter("http_status", "The status of an answer: 404, or 5+ for all that begin with 5."),
    Filter("http_method", "GET, POST and others."),
    Filter("http_path", "A regular expression for the path."),
    Filter("http_url", "A regular expression for the URL."),
    Filter("http_header", "NAME: VALUE, of the headers that are kept."),
    Filter("dns_query", "A regular expression for the name that was asked for."),
    Filter("kafka_topic", "A regular expression for the topic."),
)

_COMPLETIONS = {"pod": complete_pod_of_any_namespace, "node": complete_nodes}


def fields() -> Iterator[tuple[str, Filter]]:
    """Names of fields with the filter each belongs to."""
    for each in FILTERS:
        yield each.field, each
        if each.sided:
            yield f"from_{each.field}", each
            yield f"to_{each.field}", each


def with_filters(command: F) -> F:
    """Adds an option for each field, and a hidden one for its negation."""
    for field, each in reversed(list(fields())):
        option = f"--{field.replace('_', '-')}"
        end = {"from": "source", "to": "destination"}.get(field.partition("_")[0])
        common: dict[str, Any] = {
            "multiple": True,
            "metavar": each.field.upper(),
            "type": each.type or click.STRING,
            "shell_complete": _COMPLETIONS.get(each.field),
        }
        names = [option, *([each.short] if each.short and field == each.field else [])]
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
    options |= {each.short: each.field for each in FILTERS if each.short}
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
