"""What rules say of a request. The fields of one rule are and-ed, rules are or-ed; pure."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from axoneme.model.kafkaapis import ALWAYS
from axoneme.model.l7 import KafkaRule
from axoneme.proxy.kafka.requests import Header


class Scope(enum.Enum):
    """How far the header of a request decides."""

    ALL = enum.auto()  # it may be about any topic
    SOME = enum.auto()  # about some topics
    NOTHING = enum.auto()


@dataclass(frozen=True, slots=True)
class Permission:
    scope: Scope
    topics: frozenset[str] = frozenset()

    def missing(self, names: Collection[str]) -> frozenset[str]:
        """Those of the topics that it does not cover."""
        if self.scope is Scope.ALL:
            return frozenset()
        return frozenset(names) - self.topics


def permission(rules: Collection[KafkaRule], header: Header) -> Permission:
    """What a request with this header may be about.

    As in the reference a request without topics is not asked for any, also where rules name some.
    """
    if header.api_key in ALWAYS:
        return Permission(Scope.ALL)
    matching = [rule for rule in rules if _matches(rule, header)]
    if not matching:
        return Permission(Scope.NOTHING)
    if any(not rule.topic for rule in matching):
        return Permission(Scope.ALL)
    return Permission(Scope.SOME, frozenset(rule.topic for rule in matching))


def _matches(rule: KafkaRule, header: Header) -> bool:
    return (
        (not rule.api_keys or header.api_key in rule.api_keys)
        and rule.api_version in (None, header.version)
        and rule.client_id in ("", header.client_id)
    )
