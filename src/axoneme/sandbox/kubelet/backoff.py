"""How long a container that has ended waits before it starts again: as a kubelet lets it wait."""

from __future__ import annotations

from typing import Final

_FIRST: Final = 10.0
_LONGEST: Final = 300.0
#: A container that has run so long (seconds) starts with a clean slate.
_FORGIVEN: Final = 600.0


class Backoff:
    """Nothing before the first restart, then 10 s, doubling up to five minutes."""

    def __init__(self) -> None:
        self._next = 0.0

    def pause(self, ran: float) -> float:
        """Seconds to wait now, after a run of `ran` seconds."""
        if ran >= _FORGIVEN:
            self._next = 0.0
        now = self._next
        self._next = min(max(2 * now, _FIRST), _LONGEST)
        return now
