"""From the rules that apply to one (subject, direction, peer) to entries for a longest-prefix match.

Every rule covers some prefixes of (protocol, port). Take all prefixes that any rule names. At a
packet, the rules that cover it are exactly those with a prefix around the longest of these that
holds it, because prefixes nest. So each prefix gets the ruling of all rules that cover *it*, tier by tier:

- ADMIN: the first in order. An allow or deny is the ruling; a pass leaves it to the others.
- NORMAL: deny if one of them denies; else allow if one allows, by way of a proxy if all that do have rules
  above L4. The proxy gets the rules of all of them, as long as one proxy can hold to them all. Whether both
  ends have to be authenticated says the narrowest allow that says it.
- BASELINE (which is not here where it is not asked): the first in order.
- The rule of nobody, by which an open direction lets everything pass.

A narrow allow inside a wide deny becomes a deny in NORMAL that way, or rather nothing: a prefix whose
ruling is that of the next wider one is left out. What only a pass covers gets a ruling all the same,
`Verdict.NONE`: a wider prefix may be allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from axoneme.model.l7 import L7
from axoneme.model.policy import Authentication, Tier
from axoneme.policy.grants import HOST, Grant
from axoneme.policy.ports import Prefix, wider
from axoneme.policy.rulenumbers import Refs
from axoneme.policy.rulesets import united
from axoneme.policy.table import Verdict

#: What one rule says about one peer: its ports there.
Contribution = tuple[frozenset[Prefix], Grant]


class Ruling(NamedTuple):
    """What holds for the packets of a prefix, and every rule that says so.

    ``l7``: what a proxy has to look at; ``watched``: it only has to say what it would refuse. ``audit``: it
    passes although policies that are only tried would deny it, and ``refs`` are theirs. ``conflict``: no
    proxy could hold to all of the rules, so they are denied. ``authentication``: what both ends must have
    done.
    """

    verdict: Verdict
    refs: Refs
    l7: L7 | None = None
    watched: bool = False
    audit: bool = False
    conflict: bool = False
    authentication: Authentication = Authentication.DISABLED


def flatten(contributions: Iterable[Contribution], audited: bool = False) -> dict[Prefix, Ruling]:
    """The entries under one peer; widest first, none of them redundant. ``audited``: all rules but
    an admin's are only tried."""
    named: dict[Prefix, list[Grant]] = {}
    for prefixes, grant in contributions:
        for prefix in prefixes:
            named.setdefault(prefix, []).append(grant)
    for grants in named.values():
        grants.sort(key=_strictness)

    covering: dict[Prefix, list[Grant]] = {}
    rulings: dict[Prefix, Ruling] = {}
    entries: dict[Prefix, Ruling] = {}
    for prefix in sorted(named, key=lambda p: (p.length, p.protocol, p.port)):
        around = next((w for w in wider(prefix) if w in covering), None)
        # The narrower, the later.
        covering[prefix] = [*covering[around], *named[prefix]] if around else named[prefix]
        ruling = rulings[prefix] = _ruling(covering[prefix], audited)
        if around is None or rulings[around] != ruling:
            entries[prefix] = ruling
    return entries


def _ruling(grants: list[Grant], audited: bool) -> Ruling:
    """What holds, as policies say that are in force; beside it what would, if all were; and who looks on."""
    rules = [grant for grant in grants if not grant.watch]
    ruling = _tried(rules, audited)
    if len(rules) == len(grants) or ruling.verdict is not Verdict.ALLOW or ruling.l7:
        return ruling
    seen = united([grant.l7 for grant in grants if grant.watch and grant.l7])
    return ruling._replace(l7=seen, watched=seen is not None)


def _tried(grants: list[Grant], audited: bool) -> Ruling:
    real = [
        replace(grant, l7=None) if grant.loose else grant
        for grant in grants
        if grant.ref is None or not is_tried(grant.tier, grant.audit, audited)
    ]
    closing = next((grant.closing for grant in grants if grant.closing is not None), None)
    ruling = _judged(real)
    if ruling.verdict is not Verdict.ALLOW or (closing is None and real == grants):
        return ruling
    if closing is not None:  # where a policy would close the direction, the baseline would not be asked
        grants = [g for g in grants if g.closing is None and not (closing and g.tier is Tier.BASELINE)]
    shadow = _judged(grants)
    if shadow.verdict is not Verdict.ALLOW:
        return ruling._replace(refs=shadow.refs or closing or (), audit=True)
    if shadow.l7 and not ruling.l7:
        return shadow._replace(watched=True, authentication=ruling.authentication)
    return ruling


def is_tried(tier: Tier, audit: bool, audited: bool) -> bool:
    """Whether a policy is only tried: for itself, or because all are on its subject. What pods ask for does
    not free them from an admin's policies."""
    return audit or (audited and tier is not Tier.ADMIN)


def _judged(grants: list[Grant]) -> Ruling:
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
    """A deny before an allow, and an allow without rules above L4 before one with such."""
    named = [grant for grant in grants if grant.tier is Tier.NORMAL and grant.ref]
    if denies := [grant for grant in named if grant.deny]:
        return Ruling(Verdict.DENY, _refs(denies))
    # The node itself has no identity that it could prove.
    mode = Authentication.DISABLED if HOST in grants else _authentication(named)
    if plain := [grant for grant in named if grant.l7 is None]:
        return Ruling(Verdict.ALLOW, _refs(plain), authentication=mode)
    if not named or HOST in grants:
        return None
    rules = united([grant.l7 for grant in named if grant.l7])
    if rules is None:
        return Ruling(Verdict.DENY, _refs(named), conflict=True)
    return Ruling(Verdict.ALLOW, _refs(named), rules, authentication=mode)


def _authentication(grants: list[Grant]) -> Authentication:
    """The narrowest rule that says something about it; of several alike the strictest."""
    said = (grant.authentication for grant in reversed(grants) if grant.authentication is not None)
    return next(said, Authentication.DISABLED)


def _strictness(grant: Grant) -> int:
    return -1 if grant.authentication is None else grant.authentication


def _refs(grants: Iterable[Grant]) -> Refs:
    return tuple(sorted({grant.ref for grant in grants if grant.ref}))
