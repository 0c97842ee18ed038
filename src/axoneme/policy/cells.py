"""Compiled cells: the entries under one (subject, direction, peer), shared by all cells alike.

A rule that selects 500 identities makes 500 cells with one content. They are flattened once and share
the outcome, for as long as any of them is there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from axoneme.model.policy import Authentication, Direction
from axoneme.policy.flatten import Contribution, flatten
from axoneme.policy.ports import Prefix
from axoneme.policy.rulenumbers import Refs, RuleNumbers
from axoneme.policy.rulesets import NO_LISTENER, RuleSet, RuleSetNumbers
from axoneme.policy.table import PolicyFlag, Value, Verdict


@dataclass(slots=True, eq=False)
class Compiled:
    """Entries, and the sets of rules, listeners and conflicts in them; ``uses`` counts the cells with this
    content."""

    content: Hashable
    entries: dict[Prefix, Value]
    rules: frozenset[Refs]
    listeners: frozenset[int] = frozenset()
    conflicts: frozenset[Refs] = frozenset()
    uses: int = 0

    @property
    def authenticates(self) -> bool:
        """Whether some packet passes once both ends have proved who they are."""
        wanted = PolicyFlag.AUTHENTICATE
        return any(
            value.flags & (wanted | PolicyFlag.ALWAYS_FAIL) == wanted for value in self.entries.values()
        )

    @property
    def restricts(self) -> bool:
        """Whether any packet does not simply pass here."""
        return any(
            value.verdict != Verdict.ALLOW or value.listener or value.flags & ~PolicyFlag.COMPLETE
            for value in self.entries.values()
        )


_MODES = {
    Authentication.DISABLED: 0,
    Authentication.REQUIRED: PolicyFlag.AUTHENTICATE,
    Authentication.ALWAYS_FAIL: PolicyFlag.AUTHENTICATE | PolicyFlag.ALWAYS_FAIL,
}

#: The content of a cell that is not there.
EMPTY = Compiled(frozenset(), {}, frozenset())


class CellCompiler:
    """Flattens contents; knows which are in use, and has rule numbers for those."""

    def __init__(self, numbers: RuleNumbers) -> None:
        self.numbers = numbers
        self.rule_sets = RuleSetNumbers()
        self._compiled: dict[Hashable, Compiled] = {}
        self._idle: set[Compiled] = set()

    def __len__(self) -> int:
        return len(self._compiled)

    def find(self, content: Hashable) -> Compiled | None:
        return self._compiled.get(content)

    def compile(
        self,
        content: Hashable,
        contributions: Iterable[Contribution],
        direction: Direction,
        complete: bool = False,
        audited: bool = False,
    ) -> Compiled:
        """``content`` stands for everything else: what is equal there is equal here."""
        rulings = flatten(contributions, audited)
        if not rulings:
            return EMPTY
        rules = frozenset(ruling.refs for ruling in rulings.values())
        number = {refs: self.numbers.acquire(refs) for refs in rules}
        sets = {RuleSet(direction, r.l7, r.watched) for r in rulings.values() if r.l7}
        listener = {each: self.rule_sets.acquire(each) for each in sets}
        flags = PolicyFlag.COMPLETE if complete else 0
        entries = {
            prefix: Value(
                ruling.verdict,
                number[ruling.refs],
                flags | (PolicyFlag.AUDIT if ruling.audit else 0) | _MODES[ruling.authentication],
                listener[RuleSet(direction, ruling.l7, ruling.watched)] if ruling.l7 else NO_LISTENER,
            )
            for prefix, ruling in rulings.items()
        }
        conflicts = frozenset(ruling.refs for ruling in rulings.values() if ruling.conflict)
        listeners = frozenset(listener.values())
        compiled = self._compiled[content] = Compiled(content, entries, rules, listeners, conflicts)
        return compiled

    def exchange(self, former: Compiled, latter: Compiled) -> None:
        """A cell's content is now ``latter``."""
        if latter is not EMPTY:
            latter.uses += 1
        if former is not EMPTY:
            former.uses -= 1
            if not former.uses:
                self._idle.add(former)

    def sweep(self) -> None:
        """Forgets contents that no cell has any more."""
        idle, self._idle = self._idle, set()
        for compiled in idle:
            if compiled.uses:
                continue
            if self._compiled.get(compiled.content) is compiled:
                del self._compiled[compiled.content]
            for refs in compiled.rules:
                self.numbers.release(refs)
            for listener in compiled.listeners:
                self.rule_sets.release(listener)

    def conflicts(self) -> set[Refs]:
        """Rules that no proxy could hold to together, where they meet."""
        return {refs for compiled in self._compiled.values() for refs in compiled.conflicts}

    def stale(self) -> set[Compiled]:
        """Contents with a rule set that has got another number; their cells must be made anew."""
        moved = self.numbers.moved()
        if not moved:
            return set()
        stale = {c for c in self._compiled.values() if not moved.isdisjoint(c.rules)}
        for compiled in stale:
            del self._compiled[compiled.content]
        return stale
