"""From the rules that apply to one (subject, direction, peer) to entries for a longest-prefix match.

Every rule covers some prefixes of (protocol, port). Take all prefixes that any rule names. At a
packet, the rules that cover it are exactly those with a prefix around the longest of these that
holds it, because prefixes nest. So each prefix gets the ruling of all rules that cover *it*: deny if
one of them denies, else allow. A narrow allow inside a wide deny becomes a deny that way, or rather
nothing: a prefix whose ruling is that of the next wider one is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from axoneme.model.policy import PolicyRef
from axoneme.policy.ports import Prefix, wider
from axoneme.policy.rulenumbers import Refs


class Contribution(NamedTuple):
    """What one rule says about one peer. Without a ``ref`` it is nobody's rule: an open direction."""

    prefixes: frozenset[Prefix]
    deny: bool
    ref: PolicyRef | None


class Ruling(NamedTuple):
    """What holds for the packets of a prefix, and every rule that says so."""

    deny: bool
    refs: Refs


def flatten(contributions: Iterable[Contribution]) -> dict[Prefix, Ruling]:
    """The entries under one peer; widest first, none of them redundant."""
    named: dict[Prefix, list[Contribution]] = {}
    for contribution in contributions:
        for prefix in contribution.prefixes:
            named.setdefault(prefix, []).append(contribution)

    covering: dict[Prefix, list[Contribution]] = {}
    rulings: dict[Prefix, Ruling] = {}
    entries: dict[Prefix, Ruling] = {}
    for prefix in sorted(named, key=lambda p: (p.length, p.protocol, p.port)):
        around = next((w for w in wider(prefix) if w in covering), None)
        covering[prefix] = [*covering[around], *named[prefix]] if around else named[prefix]
        ruling = rulings[prefix] = _ruling(covering[prefix])
        if around is None or rulings[around] != ruling:
            entries[prefix] = ruling
    return entries


def _ruling(contributions: list[Contribution]) -> Ruling:
    deny = any(c.deny for c in contributions)
    refs = {c.ref for c in contributions if c.deny == deny and c.ref is not None}
    return Ruling(deny, tuple(sorted(refs)))
