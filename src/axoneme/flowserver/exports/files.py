"""A file of lines that is put aside when it is full, and the files that were.

``flows.log`` becomes ``flows-2026-11-27T20-15-00.123.log``, and ``….log.gz`` if they are to be compressed; of
those, the newest are kept. The names are those of Hubble's exporter, so what collects its files finds these.
"""

from __future__ import annotations

import glob
import gzip
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_COPY = 1 << 20


class RotatingFile:
    """``size``: bytes that it may have; ``backups``: how many others are kept. All of it may block."""

    def __init__(self, path: Path, size: int, backups: int, compress: bool) -> None:
        """Goes on with a file that is there. OSError."""
        self._path = path
        self._most = size
        self._backups = backups
        self._compress = compress
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def write(self, data: bytes) -> None:
        """Whole lines: all of them or, with an OSError, none."""
        if self._size and self._size + len(data) > self._most:
            self._rotate()
        elif self._moved():
            self._reopen()
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        status = os.fstat(file)
        self._file, self._size, self._inode = file, status.st_size, status.st_ino

    def _reopen(self) -> None:
        """OSError, and then the old one stays open: else its number, given to others, were closed again."""
        old = self._file
        self._open()
        os.close(old)

    def _moved(self) -> bool:
        """Whether somebody else has put it aside, or taken it away."""
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _rotate(self) -> None:
        moment = datetime.now(UTC)
        while True:
            stamp = f"{moment:%Y-%m-%dT%H-%M-%S}.{moment.microsecond // 1000:03}"
            aside = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
            if not aside.exists() and not aside.with_name(f"{aside.name}.gz").exists():
                break
            moment = datetime.now(UTC)
        with suppress(FileNotFoundError):
            self._path.rename(aside)
        self._reopen()
        if self._compress:
            _compress(aside)
        for each in sorted(self._aside())[: -self._backups or None]:
            each.unlink(missing_ok=True)

    def _aside(self) -> list[Path]:
        stem, suffix = glob.escape(self._path.stem), glob.escape(self._path.suffix)
        pattern = f"{stem}-????-??-??T??-??-??.???{suffix}"
        folder = self._path.parent
        return [*folder.glob(pattern), *folder.glob(f"{pattern}.gz")]


def _compress(path: Path) -> None:
    """What the disk has no room for stays as it is."""
    whole, draft = path.with_name(f"{path.name}.gz"), path.with_name(f".{path.name}.gz.draft")
    try:
        with open(path, "rb") as source, gzip.open(draft, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, _COPY)
        draft.chmod(0o600)
        draft.rename(whole)
    except OSError:
        draft.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)
