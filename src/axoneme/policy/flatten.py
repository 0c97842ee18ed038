"""From the rules that apply to one (subject, direction, peer) to entries for a longest-prefix match.

Every rule covers some prefixes of (protocol, port). Take all prefixes that any rule names. At a
packet, the rules that cover it are exactly those with a prefix around the longest of these that
holds it, because prefixes nest. So each prefix gets the ruling of all rules that cover *it*, tier by tier:

- ADMIN: the first in order. An allow or deny is the ruling; a pass leaves it to the others.
- NORMAL: deny if one of them denies, else allow if one allows.
- BASELINE (which is not here where it is not asked): the first in order.
- The rule of nobody, by which an open direction lets everything pass.

A narrow allow inside a wide deny becomes a deny in NORMAL that way, or rather nothing: a prefix whose
ruling is that of the next wider one is left out. What only a pass covers gets a ruling all the same,
`Verdict.NONE`: a wider prefix may be allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from axoneme.model.policy import Tier
from axoneme.policy.grants import Grant
from axoneme.policy.ports import Prefix, wider
from axoneme.policy.rulenumbers import Refs
from axoneme.policy.table import Verdict

#: What one rule says about one peer: its ports there.
Contribution = tuple[frozenset[Prefix], Grant]


class Ruling(NamedTuple):
    """What holds for the packets of a prefix, and every rule that says so."""

    verdict: Verdict
    refs: Refs


def flatten(contributions: Iterable[Contribution]) -> dict[Prefix, Ruling]:
    """The entries under one peer; widest first, none of them redundant."""
    named: dict[Prefix, list[Grant]] = {}
    for prefixes, grant in contributions:
        for prefix in prefixes:
            named.setdefault(prefix, []).append(grant)

    covering: dict[Prefix, list[Grant]] = {}
    rulings: dict[Prefix, Ruling] = {}
    entries: dict[Prefix, Ruling] = {}
    for prefix in sorted(named, key=lambda p: (p.length, p.protocol, p.port)):
        around = next((w for w in wider(prefix) if w in covering), None)
        covering[prefix] = [*covering[around], *named[prefix]] if around else named[prefix]
        ruling = rulings[prefix] = _ruling(covering[prefix])
        if around is None or rulings[around] != ruling:
            entries[prefix] = ruling
    return entries


def _ruling(grants: list[Grant]) -> Ruling:
    return (
        _first(grants, Tier.ADMIN)
        or _normal(grants)
        or _first(grants, Tier.BASELINE)
        or Ruling(Verdict.ALLOW if any(grant.ref is None for grant in grants) else Verdict.NONE, ())
    )


def _first(grants: list[Grant], tier: Tier) -> Ruling | None:
    """What the first rule of a tier with an order says; nothing, if it passes."""
    first = min((grant for grant in grants if grant.tier is tier), key=lambda grant: grant.rank, default=None)
    if first is None or first.ref is None or first.passes:
        return None
    return Ruling(Verdict.DENY if first.deny else Verdict.ALLOW, (first.ref,))


def _normal(grants: list[Grant]) -> Ruling | None:
    named = [(grant.deny, grant.ref) for grant in grants if grant.tier is Tier.NORMAL and grant.ref]
    if not named:
        return None
    deny = any(denies for denies, _ in named)
    refs = {ref for denies, ref in named if denies == deny}
    return Ruling(Verdict.DENY if deny else Verdict.ALLOW, tuple(sorted(refs)))
