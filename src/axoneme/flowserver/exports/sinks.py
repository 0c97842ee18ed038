"""Where flows go: each sink takes some at a time, and blocks while it does; it runs in a thread."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from axoneme.flows.flow import Flow, LostEvents
from axoneme.flowserver.exports.config import ExportConfig
from axoneme.flowserver.exports.files import RotatingFile
from axoneme.flowserver.exports.masks import FieldMask

_MEBIBYTE: Final = 1 << 20
#: What Hubble's exporter has, where nothing is said.
_SIZE, _BACKUPS = 10, 5

_encode: Final = msgspec.json.Encoder().encode


class Sink(Protocol):
    def put(self, flows: Sequence[Flow], lost: Sequence[LostEvents], node: str, time: str) -> None:
        """``lost``: what is missing before the flows; ``time``: RFC 3339, now. OSError: none has arrived."""

    def close(self) -> None: ...


class Lines:
    """Lines of JSON in the form of Hubble's ``observer.ExportEvent``."""

    def __init__(self, config: ExportConfig) -> None:
        """OSError."""
        self._mask = FieldMask(config.field_mask)
        self._file: RotatingFile | None = None
        if config.file_path != "stdout":
            self._file = RotatingFile(
                Path(config.file_path),
                (config.file_max_size_mb or _SIZE) * _MEBIBYTE,
                config.file_max_backups or _BACKUPS,
                config.file_compress,
            )

    def put(self, flows: Sequence[Flow], lost: Sequence[LostEvents], node: str, time: str) -> None:
        of = self._mask.of
        lines = [_line({"lost_events": _lost(each), "node_name": node, "time": time}) for each in lost]
        lines += [_line({"flow": of(flow), "node_name": flow.node_name, "time": flow.time}) for flow in flows]
        data = b"".join(lines)
        if self._file is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            self._file.write(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _line(event: dict[str, Any]) -> bytes:
    return _encode(event) + b"\n"


def _lost(events: LostEvents) -> dict[str, Any]:
    """As Hubble has it, which does not tell rings apart."""
    return {"source": events.source, "num_events_lost": events.num_events_lost}


def make(config: ExportConfig, node: str) -> Sink:
    """OSError; ImportError where a library is missing."""
    if config.otlp is None:
        return Lines(config)
    from axoneme.flowserver.exports.otlp import Collector

    return Collector(config.otlp, FieldMask(config.field_mask), node)
