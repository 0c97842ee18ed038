"""What pods of this node ask for by annotations, told to the policy engine by identity: all of its pods here
have what one of them asks for."""

from __future__ import annotations

from collections import defaultdict

from axoneme.agent.control import Control
from axoneme.model.labels import Labels
from axoneme.model.state import EndpointState
from axoneme.model.wishes import KIND, parse_watches, watching
from axoneme.policy.engine import PolicyKey


class Asked:
    """By the keys of endpoints in the shared state."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._states: dict[str, EndpointState] = {}
        self._of_identity: dict[int, set[str]] = defaultdict(set)

    def put(self, key: str, state: EndpointState) -> None:
        """The endpoint is here, and asks for this. To be said before its identity's policy is settled."""
        before = self._states.get(key)
        if not (state.audit or state.visibility) and before is None:
            return  # as most of them
        self._states[key] = state
        self._of_identity[state.identity].add(key)
        if before is not None and before.identity != state.identity:
            self._of_identity[before.identity].discard(key)
            self._tell(before.identity, before.labels)
        self._tell(state.identity, state.labels)

    def remove(self, key: str) -> None:
        state = self._states.pop(key, None)
        if state is not None:
            self._of_identity[state.identity].discard(key)
            self._tell(state.identity, state.labels)

    def _tell(self, identity: int, labels: list[str]) -> None:
        states = [self._states[key] for key in self._of_identity[identity]]
        if not states:
            del self._of_identity[identity]
        self._control.engine.set_audited(identity, any(state.audit for state in states))
        watches = {watch for state in states for watch in parse_watches(",".join(state.visibility))}
        policies = (watching(identity, Labels.parse(labels), watches),) if watches else ()
        self._control.watched(PolicyKey(KIND, "", str(identity)), policies)
