"""Conditions: how an object's status says what holds, and since when (``metav1.Condition``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import msgspec.structs


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``status`` is True, False or Unknown, as text; ``last_transition_time`` is when it last changed."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


def settle(standing: Iterable[Condition], wanted: Sequence[Condition], now: str) -> tuple[Condition, ...]:
    """The conditions that stand, with the ``wanted`` ones in the places of those of their types, or behind.

    A condition whose status is what it was keeps its time.
    """
    new = {condition.type: condition for condition in wanted}
    settled = []
    for old in standing:
        changed = new.pop(old.type, None)
        if changed is None:
            settled.append(old)
            continue
        since = old.last_transition_time if old.status == changed.status else ""
        settled.append(msgspec.structs.replace(changed, last_transition_time=since or now))
    return (*settled, *(msgspec.structs.replace(each, last_transition_time=now) for each in new.values()))
