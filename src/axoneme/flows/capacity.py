"""How much a flow server remembers, as its file says."""

from __future__ import annotations

import msgspec


class HistoryConfig(msgspec.Struct, frozen=True):
    """How many flows are kept in memory (about 140 bytes each); drops have a share of their own. Of so many
    ``requests`` the texts are kept, ``request_bytes`` altogether; of refused ones a quarter more."""

    flows: int = 4096 * 32
    drops: int = 4096 * 8
    requests: int = 16384
    request_bytes: int = 8 << 20
