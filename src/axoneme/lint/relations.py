"""Traps between rules, of one policy or of several: what a deny, or an allow, makes of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from axoneme.lint import findings as traps
from axoneme.lint.implication import peer_implies, ports_imply, selector_implies
from axoneme.lint.shapes import Found
from axoneme.lint.statements import Statement
from axoneme.model.policy import Direction, PortRange, Protocol

_DNS = (PortRange(Protocol.UDP, 53, 53),)


def look_at(statement: Statement, every: Sequence[Statement]) -> Iterator[Found]:
    """What others make of a statement that is itself one of ``every``; nothing of one that is replaced."""
    if statement.rule.deny or not every:
        return
    others = [each for each in every if each.rule.direction is statement.rule.direction]
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
    return deny.rule.deny and bool(allow.rule.peers and allow.rule.ports) and _covers(deny, allow)


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
