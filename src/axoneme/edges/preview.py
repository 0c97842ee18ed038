"""What a change of policies would do to the edges that were recorded."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from axoneme.edges.edge import Edge, Seen
from axoneme.edges.judge import Judge, Judgement, Verdict, World
from axoneme.edges.recorded import Recorded
from axoneme.model.policy import CIDRGroup, Policy
from axoneme.policy.engine import PolicyKey


class Effect(enum.Enum):
    BREAKS = "breaks"
    OPENS = "opens"
    #: A proxy would have to decide, by what the record does not tell.
    DEPENDS = "depends"


@dataclass(frozen=True, slots=True)
class Changed:
    """``before`` and ``after``: what today's and the proposed policies say."""

    edge: Edge
    seen: Seen
    effect: Effect
    before: Judgement
    after: Judgement


@dataclass(slots=True)
class Preview:
    """``stale``: edges that were decided otherwise, when they were recorded, than today's policies would."""

    changed: list[Changed] = field(default_factory=list)
    unchanged: int = 0
    stale: list[Edge] = field(default_factory=list)

    def of(self, effect: Effect) -> list[Changed]:
        return [each for each in self.changed if each.effect is effect]


def preview(
    recorded: Recorded,
    world: World,
    proposed: Mapping[PolicyKey, Sequence[Policy]],
    groups: Iterable[CIDRGroup] = (),
) -> Preview:
    """``proposed``: the policies that objects would have; none: it would be deleted. ValueError where a
    policy names what does not exist."""
    edges = dict(_telling(recorded.edges))
    judge = Judge(world, edges, recorded.names)
    before = {edge: judge.judge(edge) for edge in edges}
    judge.change(proposed, groups)
    found = Preview()
    for edge, seen in sorted(edges.items(), key=lambda item: str(item[0])):
        was, now = before[edge], judge.judge(edge)
        if _otherwise(seen, was.verdict):
            found.stale.append(edge)
        effect = _effect(was.verdict, now.verdict)
        if effect is None:
            found.unchanged += 1
        else:
            found.changed.append(Changed(edge, seen, effect, was, now))
    return found


def _telling(edges: Mapping[Edge, Seen]) -> Iterable[tuple[Edge, Seen]]:
    """Without the connections of which it is known what was asked over them: the requests stand for them."""
    asked = {_connection(edge) for edge in edges if edge.request}
    return ((edge, seen) for edge, seen in edges.items() if edge.request or edge not in asked)


def _connection(edge: Edge) -> Edge:
    return Edge(edge.source, edge.destination, edge.protocol, edge.port)


def _effect(before: Verdict, after: Verdict) -> Effect | None:
    if before is after:
        return None
    if after is Verdict.REFUSED:
        return Effect.BREAKS
    if after is Verdict.PASSES and before is Verdict.REFUSED:
        return Effect.OPENS
    return Effect.DEPENDS if after is Verdict.DEPENDS else None


def _otherwise(seen: Seen, verdict: Verdict) -> bool:
    """Both may have been seen, when policies changed meanwhile."""
    if verdict is Verdict.PASSES:
        return bool(seen.refused and not seen.passed)
    return verdict is Verdict.REFUSED and not seen.refused
