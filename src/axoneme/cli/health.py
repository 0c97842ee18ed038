"""What `axo status` says of the ways between nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from axoneme.cli.ages import short
from axoneme.cli.tables import Table
from axoneme.health.ways import HealthReport, HealthSummary, Measurement, Path

_PATHS = {Path.UNDERLAY: "underlay", Path.PODS: "pod-network"}
_HEADERS = ("FROM", "TO", "PATH", "PROTOCOL", "ADDRESS", "LATENCY", "MEASURED", "LAST-SUCCESS", "REASON")


def line(summaries: Mapping[str, HealthSummary]) -> str:
    """One for all nodes: what the one says that reaches the fewest."""
    if not summaries:
        return "Health: not measured"
    worst = min(summaries.values(), key=lambda each: each.reachable - each.nodes)
    found = worst.reachable + len(worst.unreachable) >= worst.nodes
    return f"Health: {worst.reachable}/{worst.nodes} nodes reachable{'' if found else ' so far'}"


def table(reports: Sequence[HealthReport], now: float | None = None) -> Table:
    """Every way from every node to every node."""
    now = time.time() if now is None else now
    return Table(_HEADERS, list(_rows(reports, now)))


def _rows(reports: Sequence[HealthReport], now: float) -> Iterator[Sequence[str]]:
    for report in reports:
        for node in report.nodes:
            for each in node.measurements:
                yield (
                    report.node,
                    node.node,
                    _PATHS[each.way.path],
                    each.way.protocol.value,
                    each.way.address,
                    _latency(each),
                    _age(each.measured, now),
                    _age(each.last_success, now),
                    each.reason or "-",
                )


def _latency(each: Measurement) -> str:
    if each.answer:
        return f"{each.answer.latency * 1000:.2f}ms"
    return "no" if each.known else "-"


def _age(then: float, now: float) -> str:
    return short(timedelta(seconds=max(0.0, now - then))) if then else "never"
