"""The other way round: from an identity to the terms that may select it.

A new identity must not be held against every selector on the node. Each term is filed under one thing
that whoever fulfils it must have (a label with a value, a label key, a prefix around its own, a named
port), so that only terms filed under what the identity has need a closer look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from axoneme.model.labels import CLUSTER, NAMESPACE, Operator, Requirement, Selector
from axoneme.model.policy import CIDRPeer
from axoneme.policy.identities import Identity, Span, positive
from axoneme.policy.peers import Term

T = TypeVar("T")

_Place = tuple[object, ...]
_ANYWHERE: _Place = ()
#: Keys that nearly every pod has, with few values: a poor place to file a selector under.
_COMMON = (NAMESPACE, CLUSTER)


class ReachIndex(Generic[T]):
    """Owners of terms, filed by where their terms can reach."""

    def __init__(self) -> None:
        self._filed: dict[_Place, dict[T, None]] = {}
        #: (IP version, bits of host part) -> how many CIDR terms of that size are filed.
        self._sizes: dict[tuple[int, int], int] = {}

    def add(self, term: Term, owner: T) -> None:
        if isinstance(term, CIDRPeer):
            size = _size(Span.of(term.cidr))
            self._sizes[size] = self._sizes.get(size, 0) + 1
        for place in _places(term):
            self._filed.setdefault(place, {})[owner] = None

    def remove(self, term: Term, owner: T) -> None:
        if isinstance(term, CIDRPeer):
            size = _size(Span.of(term.cidr))
            self._sizes[size] -= 1
            if not self._sizes[size]:
                del self._sizes[size]
        for place in _places(term):
            owners = self._filed.get(place, {})
            owners.pop(owner, None)
            if not owners:
                self._filed.pop(place, None)

    def candidates(self, identity: Identity) -> set[T]:
        """Every owner of a term that ``identity`` fulfils, and some others."""
        found: set[T] = set()
        for place in self._within_reach(identity):
            found.update(self._filed.get(place, ()))
        return found

    def _within_reach(self, identity: Identity) -> Iterator[_Place]:
        yield _ANYWHERE
        for label in identity.labels:
            yield (label.key,)
            yield (label.key, label.value)
        for span in identity.spans:
            for version, bits in self._sizes:
                if version == span.version:
                    yield (version, bits, span.first >> bits)
        for name, _ in identity.named_ports or ():
            yield ("port", "name", name)


def _places(term: Term) -> list[_Place]:
    if isinstance(term, CIDRPeer):
        span = Span.of(term.cidr)
        version, bits = _size(span)
        return [(version, bits, span.first >> bits)]
    if isinstance(term, Selector):
        wanted = [r for r in term.requirements if positive(r)]
        if not wanted:
            return [_ANYWHERE]
        best = min(wanted, key=_commonness)
        if best.operator is Operator.EXISTS:
            return [(best.key,)]
        return [(best.key, value) for value in best.values]
    return [("port", "name", term.name)]


def _commonness(requirement: Requirement) -> tuple[bool, bool, int]:
    return (
        requirement.operator is Operator.EXISTS,
        requirement.key in _COMMON,
        len(requirement.values),
    )


def _size(span: Span) -> tuple[int, int]:
    return span.version, (span.last - span.first).bit_length()
