"""How much a flow server remembers, as its file says."""

from __future__ import annotations

import msgspec


class HistoryConfig(msgspec.Struct, frozen=True):
    """How many flows are kept in memory (about 156 bytes each); drops have a share of their own. Of so many
    ``requests`` the texts are kept, ``request_bytes`` altogether; of refused ones a quarter more."""

    flows: int = 4096 * 32
    drops: int = 4096 * 8
    requests: int = 16384
    request_bytes: int = 8 << 20


class RecordingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``axo history`` keeps on disk, in ``directory``: at most ``bytes`` of files, none of them older
    than ``days``. Flows are put down at once, and made into a Parquet file when there are ``file_bytes`` of
    them (about 240 a flow, of which 20 to 40 are left in the end), or after ``file_seconds``."""

    directory: str
    bytes: int = 1 << 30
    days: float = 7
    file_bytes: int = 32 << 20
    file_seconds: float = 600
