"""What was put into a spool, read again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from axoneme.flows.transfer import Parcel


def parcels(path: Path) -> Iterator[Parcel]:
    """Those that are whole. What no flow server of ours has written is passed over."""
    decode = msgspec.json.Decoder(Parcel).decode
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                yield decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
