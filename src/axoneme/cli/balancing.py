"""What `axo status` says of load balancing."""

from __future__ import annotations

from collections.abc import Mapping

from axoneme.services.view import BalancingSummary


def line(summaries: Mapping[str, BalancingSummary]) -> str:
    """One for all nodes. Some of what a service has only some nodes serve: what counts is who has most."""
    if not summaries:
        return "Load balancing: none"
    all_ = list(summaries.values())
    translating = sum(bool(each.sockets) for each in all_)
    most = max(all_, key=lambda each: (each.services, each.backends))
    where = (
        "at sockets" if translating == len(all_) else f"at sockets on {translating}/{len(all_)} nodes only"
    )
    ways = dict.fromkeys(f"{each.algorithm}, {each.forwarding}" for each in all_)
    words = [
        f"Load balancing: {_count(most.services, 'service port')}, {_count(most.frontends, 'frontend')}, "
        f"{_count(most.backends, 'backend')}",
        " or ".join(ways),
        where,
    ]
    if missing := _missing(summaries):
        words.append(missing)
    return "; ".join(words)


def _missing(summaries: Mapping[str, BalancingSummary]) -> str:
    """Traffic policies leave nodes without backends that others have: then the worst off is named."""
    node = max(summaries, key=lambda each: summaries[each].empty)
    empty = summaries[node].empty
    if not empty:
        return ""
    everywhere = all(each.empty == empty for each in summaries.values())
    where, option = ("", "") if everywhere else (f" at {node}", f" --node {node}")
    return f"{empty} without backends{where} (axo service list --problems{option})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
