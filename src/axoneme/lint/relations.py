"""Traps between rules, of one policy or of several: what a deny, or an allow, makes of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from axoneme.lint import findings as traps
from axoneme.lint.implication import peer_implies, ports_imply, selector_implies
from axoneme.lint.shapes import Found
from axoneme.lint.statements import Statement
from axoneme.model.policy import Direction, PortRange, Protocol, Tier

_DNS = (PortRange(Protocol.UDP, 53, 53),)


def look_at(statement: Statement, every: Sequence[Statement]) -> Iterator[Found]:
    """What others make of a statement that is itself one of ``every``; nothing of one that is replaced."""
    others = [
        each
        for each in every
        if each.rule.direction is statement.rule.direction and each.tier is statement.tier
    ]
    if statement.tier is not Tier.NORMAL:
        first = next((each for each in others if precedes(each, statement)), None)
        if first is not None:
            yield traps.NEVER_REACHED, statement.path, f"{_where(first)} decides all that it covers"
        return
    if statement.rule.deny or not every:
        return
    if not statement.names and (deny := next((each for each in others if shadows(each, statement)), None)):
        yield traps.SHADOWED, statement.path, f"{_where(deny)} denies all that it allows"
    if statement.above and statement.above != "dns":
        allow = next((each for each in others if nullifies(each, statement)), None)
        if allow is not None:
            yield (
                traps.L7_NULLIFIED,
                statement.path,
                f"{statement.above} rules; {_where(allow)} allows the same without them",
            )
    if statement.names and not any(_teaches(each, statement) for each in others):
        yield (
            traps.NO_DNS_RULE,
            f"{statement.path}.toFQDNs",
            "no rule sends these pods' DNS through the proxy",
        )


def shadows(deny: Statement, allow: Statement) -> bool:
    """Whether a deny covers all that an allow says."""
    if deny.tier is not Tier.NORMAL or allow.tier is not Tier.NORMAL:
        return False
    return deny.rule.deny and bool(allow.rule.peers and allow.rule.ports) and _covers(deny, allow)


def precedes(first: Statement, later: Statement) -> bool:
    """Whether a rule of a tier with an order never comes to decide, because of an earlier one."""
    return first.rank < later.rank and bool(later.rule.peers and later.rule.ports) and _covers(first, later)


def nullifies(allow: Statement, restricted: Statement) -> bool:
    """Whether an allow without L7 rules lets everything pass that L7 rules restrict."""
    plain = not allow.rule.deny and not allow.above and not allow.names
    return plain and bool(restricted.rule.peers) and _covers(allow, restricted)


def _covers(wide: Statement, narrow: Statement) -> bool:
    return (
        wide.rule.direction is narrow.rule.direction
        and selector_implies(narrow.subject, wide.subject)
        and all(any(peer_implies(each, other) for other in wide.rule.peers) for each in narrow.rule.peers)
        and ports_imply(narrow.rule.ports, wide.rule.ports)
    )


def _teaches(dns: Statement, names: Statement) -> bool:
    return (
        dns.above == "dns"
        and dns.rule.direction is Direction.EGRESS
        and selector_implies(names.subject, dns.subject)
        and ports_imply(_DNS, dns.rule.ports)
    )


def _where(statement: Statement) -> str:
    return f"{statement.manifest} {statement.path}"
