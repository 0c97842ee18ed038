"""A packet's verdict from compiled entries, exactly as the datapath finds it.

Two longest-prefix matches, one under the peer's own identity and one under every peer; a deny in
either wins, else an allow in either, else the packet is dropped by default. A complete entry under the peer
decides alone.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from axoneme.model.policy import Authentication
from axoneme.policy.ports import PEER_BITS, PORT_BITS, PROTOCOL_BITS
from axoneme.policy.rulenumbers import NO_POLICY
from axoneme.policy.rulesets import NO_LISTENER
from axoneme.policy.table import EVERY_PEER, Entry, Key, PolicyFlag, Value, Verdict

_PORT_MASKS = tuple(
    (length, 0xFFFF << PORT_BITS - length & 0xFFFF) for length in range(PORT_BITS, PROTOCOL_BITS - 1, -1)
)


class Outcome(enum.Enum):
    ALLOWED = "allowed"
    DENIED = "denied"  # by a deny rule
    DEFAULT_DENIED = "denied by default"  # no rule allows it


@dataclass(frozen=True, slots=True)
class Decision:
    """``own`` and ``every`` are the entries found under the peer and under every peer.

    ``rules`` holds the numbers of all rule sets that give the outcome: those of both entries for an
    allow, those of the denying entries for a deny. ``rule`` is the one that the datapath reports.
    """

    outcome: Outcome
    own: Entry | None
    every: Entry | None

    @property
    def allowed(self) -> bool:
        return self.outcome is Outcome.ALLOWED

    @property
    def rules(self) -> tuple[int, ...]:
        numbers = [entry[1].rule for entry in self._deciding() if entry[1].rule != NO_POLICY]
        return tuple(dict.fromkeys(numbers))

    @property
    def rule(self) -> int:
        """The one number that the datapath reports."""
        return next(iter(self.rules), NO_POLICY)

    @property
    def listener(self) -> int:
        """Whose rules a proxy holds it to; 0: nobody's."""
        return next((entry[1].listener for entry in self._deciding()), NO_LISTENER)

    @property
    def audited(self) -> bool:
        """Whether it passes only because the policies that would deny it are tried."""
        return any(entry[1].flags & PolicyFlag.AUDIT for entry in self._deciding())

    @property
    def authentication(self) -> Authentication:
        """What both ends must have done before it passes."""
        flags = next((entry[1].flags for entry in self._deciding()), 0)
        if not flags & PolicyFlag.AUTHENTICATE:
            return Authentication.DISABLED
        fails = flags & PolicyFlag.ALWAYS_FAIL
        return Authentication.ALWAYS_FAIL if fails else Authentication.REQUIRED

    def _deciding(self) -> list[Entry]:
        verdict = Verdict.DENY if self.outcome is Outcome.DENIED else Verdict.ALLOW
        if self.outcome is Outcome.DEFAULT_DENIED:
            return []
        return [entry for entry in (self.own, self.every) if entry and entry[1].verdict == verdict]


def longest_match(
    table: Mapping[Key, Value], subject: int, peer: int, direction: int, protocol: int, port: int
) -> Entry | None:
    for length, mask in _PORT_MASKS:
        key = Key(subject, peer, direction, protocol, port & mask, length)
        if (value := table.get(key)) is not None:
            return key, value
    key = Key(subject, peer, direction, 0, 0, PEER_BITS)
    value = table.get(key)
    return None if value is None else (key, value)


def evaluate(
    table: Mapping[Key, Value], subject: int, direction: int, peer: int, protocol: int, port: int
) -> Decision:
    """The decision for a packet of ``subject`` in ``direction``; ``port`` is the ICMP type for ICMP."""
    own = longest_match(table, subject, peer, direction, protocol, port) if peer != EVERY_PEER else None
    every = None
    if own is None or not own[1].complete:
        every = longest_match(table, subject, EVERY_PEER, direction, protocol, port)
    verdicts = {entry[1].verdict for entry in (own, every) if entry}
    if Verdict.DENY in verdicts:
        outcome = Outcome.DENIED
    elif Verdict.ALLOW in verdicts:
        outcome = Outcome.ALLOWED
    else:
        outcome = Outcome.DEFAULT_DENIED
    return Decision(outcome, own, every)
