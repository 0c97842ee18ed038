"""The file of what was learnt (`axoneme.proxy.names.JOURNAL`): what is new is added at its end, and when most
of it is old, it is written anew. It survives the process, not a machine that loses power: names are asked for
again after that."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

import msgspec

from axoneme.proxy.names import Answer

log = logging.getLogger(__name__)

#: Bytes below which it is not worth while.
_SMALL: Final = 1 << 20


class Journal:
    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._encode = msgspec.json.Encoder().encode
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._compact = _SMALL
        if self._size:  # perhaps the last line was cut
            self._append(b"\n")

    def add(self, answers: Iterable[Answer]) -> None:
        self._append(b"".join(self._encode(each) + b"\n" for each in answers))

    @property
    def large(self) -> bool:
        """Whether it has grown to twice what it was when it was written anew."""
        return self._size > self._compact

    def rewrite(self, answers: Iterable[Answer]) -> None:
        """All that it shall have."""
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            file = draft.open("wb", buffering=0)
            content = b"".join(self._encode(each) + b"\n" for each in answers)
            file.write(content)
            draft.rename(self._path)
        except OSError as error:
            log.error("%s: %s; it grows on", self._path.name, error)
            self._compact = self._size * 2
            return
        self._file.close()
        self._file, self._size = file, len(content)
        self._compact = max(_SMALL, 2 * self._size)

    def close(self) -> None:
        self._file.close()

    def _append(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            log.error("%s: %s; what was learnt now does not outlive this process", self._path.name, error)
        self._size += len(content)
