"""What a proxy's listener has to hold to: rules of several policies made one, and numbers for the outcome.

A number is a hash of the content, so that it is the same after a restart, and policies that come to the same
rules come to the same listener. Two contents that hash alike are told apart by salt, in the order in which
they came; with 63 bits that is a matter of malice, not of chance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from axoneme.model.l7 import L7, HTTPRule, KafkaRule
from axoneme.model.policy import Direction

#: The number of no listener: nothing above L4 is looked at.
NO_LISTENER = 0

_BITS = 63


@dataclass(frozen=True, slots=True)
class RuleSet:
    """``audit``: what the rules refuse passes, and is said to be refused."""

    direction: Direction
    rules: L7
    audit: bool = False


def united(parts: Collection[L7]) -> L7 | None:
    """Rules that let pass what one of the parts does; None where no proxy could hold to such.

    That is so for different kinds, for different listeners of one priority, and where TLS is opened in
    different ways. The outcome does not depend on the order of the parts, nor on that of their rules.
    """
    if not parts:
        return None
    if all(part.listener for part in parts):
        return _first_listener(parts)
    first, *others = parts
    for other in others:
        if other.kind is not first.kind or _around(other) != _around(first):
            return None
    opened = bool(first.http or first.kafka or first.dns)
    names = {part.server_names for part in parts}
    if opened and len(names) > 1:
        return None  # which names may ask for what could not be told apart any more
    return L7(
        first.kind,
        tuple(sorted({rule for part in parts for rule in part.http}, key=_http_key)),
        tuple(sorted({rule for part in parts for rule in part.kafka}, key=_kafka_key)),
        tuple(sorted({name for part in parts for name in part.dns})),
        tuple(sorted({name for part in parts for name in part.server_names})),
        first.terminating,
        first.originating,
        first.listener,
    )


def _first_listener(parts: Collection[L7]) -> L7 | None:
    first = min(part.listener.priority for part in parts if part.listener)
    found = {part for part in parts if part.listener and part.listener.priority == first}
    return found.pop() if len(found) == 1 else None


def _around(rules: L7) -> tuple[object, ...]:
    return rules.terminating, rules.originating, rules.listener


def _http_key(rule: HTTPRule) -> tuple[object, ...]:
    return rule.method, rule.path, rule.host, tuple(header.sort_key() for header in rule.headers)


def _kafka_key(rule: KafkaRule) -> tuple[object, ...]:
    version = -1 if rule.api_version is None else rule.api_version
    return rule.api_keys, version, rule.client_id, rule.topic


class RuleSetNumbers:
    """The numbers of the rule sets in use; each `acquire` needs its `release`."""

    def __init__(self) -> None:
        self._uses: Counter[int] = Counter()
        self._held: dict[int, RuleSet] = {}
        self._numbers: dict[RuleSet, int] = {}
        self._published: frozenset[int] = frozenset()

    @property
    def held(self) -> Mapping[int, RuleSet]:
        """Those in use, by number: a view."""
        return MappingProxyType(self._held)

    def acquire(self, rules: RuleSet) -> int:
        number = self._numbers.get(rules)
        if number is None:
            number = self._numbers[rules] = self._free(rules)
            self._held[number] = rules
        self._uses[number] += 1
        return number

    def release(self, number: int) -> None:
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._uses[number]
            del self._numbers[self._held.pop(number)]

    def publish(self) -> frozenset[int]:
        """The numbers that have gone out of use since the last call."""
        before, self._published = self._published, frozenset(self._held)
        return before - self._published

    def _free(self, rules: RuleSet) -> int:
        content, salt = msgspec.json.encode(rules), 0
        while (number := _hash(content, salt)) == NO_LISTENER or number in self._held:
            salt += 1
        return number


def _hash(content: bytes, salt: int) -> int:
    digest = hashlib.blake2b(content, digest_size=8, salt=salt.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") & ((1 << _BITS) - 1)
