"""The files of one node's history, and what killing somebody at any moment leaves of them.

``T.spool``: flows as they came, since T; one of them, the last, is being written. ``T.parquet``: what has
become of it. It is written under another name and takes its own when it is whole, and only then the spool
goes: where both are there, the spool is what is left over. Names sort by time, and no two are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_SPOOL: Final = ".spool"
_TABLE: Final = ".parquet"
_DRAFT: Final = ".draft"
_POSITION: Final = "position.json"


class Folder:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self) -> None:
        """Nobody but its owner and group need know who talks to whom."""
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    def tables(self) -> list[Path]:
        return sorted(self._files(_TABLE))

    def spools(self) -> list[Path]:
        """Those of which no table has been made."""
        return sorted(each for each in self._files(_SPOOL) if not table_of(each).exists())

    def new_spool(self, now: int) -> Path:
        """``now``: ns of the wall clock, which may have been set back."""
        taken = max((each.stem for each in self._files(_SPOOL, _TABLE)), default="")
        while (stem := _stem(now)) <= taken:
            now = max(now + 1000, _instant(taken) + 1000)
        return self.directory / f"{stem}{_SPOOL}"

    def remember(self, position: bytes) -> None:
        """Where the writer stands."""
        draft = self.directory / f".position{_DRAFT}"
        draft.write_bytes(position)
        draft.replace(self.directory / _POSITION)

    def remembered(self) -> bytes:
        """Empty when nothing is."""
        try:
            return (self.directory / _POSITION).read_bytes()
        except FileNotFoundError:
            return b""

    def clear(self) -> None:
        """Takes away what is left over of those that were killed. For the only one who writes here."""
        for each in self._files(_DRAFT):
            each.unlink(missing_ok=True)
        for each in self._files(_SPOOL):
            if table_of(each).exists():
                each.unlink(missing_ok=True)

    def size(self) -> int:
        return sum(size for _, size, _ in self._sizes())

    def prune(self, most: int, since: float, spared: Path | None) -> list[Path]:
        """Takes the oldest away until there are ``most`` bytes, and those last written before ``since`` (s of
        the wall clock); never ``spared``, which is being written."""
        files = [each for each in self._sizes() if each[0] != spared]
        size = sum(each[1] for each in self._sizes())
        gone = []
        for path, own, written in files:
            if size <= most and written >= since:
                break
            path.unlink(missing_ok=True)
            size -= own
            gone.append(path)
        return gone

    def _sizes(self) -> list[tuple[Path, int, float]]:
        """Of all files, the oldest first: bytes, and when they were last written."""
        found = []
        for path in sorted(self._files(_SPOOL, _TABLE, _DRAFT), key=_age):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((path, status.st_blocks * 512, status.st_mtime))
        return found

    def _files(self, *suffixes: str) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from (each for each in self.directory.iterdir() if each.suffix in suffixes)


def _age(path: Path) -> str:
    return path.name.removeprefix(".")


def table_of(spool: Path) -> Path:
    return spool.with_suffix(_TABLE)


def draft_of(spool: Path) -> Path:
    return spool.with_name(f".{spool.stem}{_DRAFT}")


def _stem(instant: int) -> str:
    seconds, rest = divmod(instant, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{rest // 1000:06}Z"


def _instant(stem: str) -> int:
    try:
        moment = datetime.strptime(stem, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000
