"""Findings, and how they are put in order: a cause hides what follows from it.

A check looks at one subject and says what is wrong with it. It names the checks whose findings would
explain its own (``causes``): on the same node, and for what concerns another node (``peer``) on that one too.
When such a finding is there, ours becomes its consequence. So a severed cable is one finding, not forty.

Pure: facts in, findings out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

F = TypeVar("F")


class Severity(enum.Enum):
    """``WARNING``: works, but not as it should. ``SUSPECT``: nothing by itself, but it may be what breaks
    something else; not told where it explains nothing."""

    ERROR = "error"
    WARNING = "warning"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``hop`` is the place that is broken, ``peer`` the node on the other side where there is one. A warning
    that is ``suspect`` may be what breaks something else; others explain nothing."""

    severity: Severity
    hop: str
    what: str
    remedy: str
    evidence: tuple[str, ...] = ()
    peer: str = ""
    suspect: bool = False

    @property
    def may_explain(self) -> bool:
        return self.suspect or self.severity is not Severity.WARNING


@dataclass(frozen=True, slots=True)
class Check(Generic[F]):
    """``causes`` are names of checks that come before this one."""

    name: str
    look: Callable[[F], Iterable[Finding]]
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding of a check at a node (or the same one at several), with what follows from it."""

    node: str
    check: str
    finding: Finding
    consequences: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        return f"{self.node}: {self.finding.hop}: {self.finding.what}"

    def also(self, other: Placed) -> Placed:
        """The same finding at another node."""
        return replace(
            self, node=f"{self.node}, {other.node}", consequences=self.consequences + other.consequences
        )

    def causing(self, effect: Placed) -> Placed:
        """What explains an error is one."""
        severity = Severity.ERROR if effect.finding.severity is Severity.ERROR else self.finding.severity
        return replace(
            self,
            finding=replace(self.finding, severity=severity),
            consequences=(*self.consequences, effect.sentence),
        )


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``findings`` are the causes, the worst first; ``silent`` the checks that found nothing, ``nodes``
    those that were looked at."""

    nodes: tuple[str, ...]
    findings: tuple[Placed, ...]
    silent: tuple[str, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        return not self.findings


def diagnose(checks: Sequence[Check[F]], facts: Mapping[str, F]) -> Diagnosis:
    """Judges the facts of every node, by its name."""
    found = [
        Placed(node, check.name, finding)
        for check in checks
        for node, known in facts.items()
        for finding in check.look(known)
    ]
    causes = {check.name: (*check.causes, check.name) for check in checks}
    return Diagnosis(
        tuple(facts),
        tuple(sorted(_merged(filter(_worth_telling, _roots(found, causes))), key=_rank)),
        tuple(check.name for check in checks if not any(each.check == check.name for each in found)),
    )


def _worth_telling(placed: Placed) -> bool:
    return placed.finding.severity is not Severity.SUSPECT or bool(placed.consequences)


def _merged(roots: Iterable[Placed]) -> Iterable[Placed]:
    """What is found in the same words at several nodes, such as a store that all share, is told once."""
    merged: dict[tuple[str, Finding], Placed] = {}
    for each in roots:
        key = (each.check, each.finding)
        merged[key] = merged[key].also(each) if key in merged else each
    return merged.values()


def _rank(placed: Placed) -> bool:
    return placed.finding.severity is not Severity.ERROR


def _roots(found: Sequence[Placed], causes: Mapping[str, tuple[str, ...]]) -> list[Placed]:
    """Those that no earlier one explains."""
    roots: list[Placed] = []
    root_of: dict[int, int] = {}  # by place in `found`: place in `roots`
    for index, each in enumerate(found):
        cause = next((i for i in range(index) if _explains(found[i], each, causes[each.check])), None)
        if cause is None:
            root_of[index] = len(roots)
            roots.append(each)
            continue
        root_of[index] = at = root_of[cause]
        roots[at] = roots[at].causing(each)
    return roots


def _explains(cause: Placed, effect: Placed, causes: tuple[str, ...]) -> bool:
    if cause.check not in causes or not cause.finding.may_explain:
        return False
    if cause.check == effect.check:  # the same thing, seen from the other side
        return bool(effect.finding.peer) and (cause.node, cause.finding.peer) == (
            effect.finding.peer,
            effect.node,
        )
    if cause.node == effect.node:
        return cause.finding.peer in ("", effect.finding.peer)
    return cause.node == effect.finding.peer and cause.finding.peer in ("", effect.node)
