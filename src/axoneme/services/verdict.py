"""Whether a backend is up, from one result of its checks after the other. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Health(enum.Enum):
    """``UNKNOWN``: not tried yet; it gets connections, for it was put there to get them."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class Verdict:
    """The first result decides; then ``rise`` good ones in a row are needed to come up, ``fall`` bad ones to
    go down."""

    rise: int
    fall: int
    health: Health = Health.UNKNOWN
    #: Results in a row that speak against the present state.
    against: int = 0

    def heard(self, good: bool) -> bool:
        """Takes a result; whether it changed the state."""
        said = Health.UP if good else Health.DOWN
        if said is self.health:
            self.against = 0
            return False
        self.against += 1
        needed = 1 if self.health is Health.UNKNOWN else self.rise if good else self.fall
        if self.against < needed:
            return False
        self.health, self.against = said, 0
        return True
