"""Bells between processes: whoever touches a file wakes those that listen to it.

inotify(7) through ctypes, because the standard library has no binding.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

#: Seconds between two looks where there is no bell to hear.
_PERIOD_DEAF = 0.2

_IN_MODIFY = 0x2
_IN_CLOSE_WRITE = 0x8
_IN_MOVED_FROM = 0x40
_IN_MOVED_TO = 0x80
_IN_DELETE = 0x200


class Bell:
    """A file whose modification is the sound."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = path
        self._inotify = -1

    def ring(self) -> None:
        os.pwrite(self._file, b"\0", 0)

    def listen(self) -> int:
        """A descriptor that becomes readable when the bell rings; `silence` it then.

        OSError when the user's inotify instances are used up.
        """
        self._inotify = _watch([self._path], _IN_MODIFY)
        return self._inotify

    def silence(self) -> None:
        """Forgets the rings so far."""
        _silence(self._inotify)

    def deafen(self) -> None:
        """Ends what `listen` began."""
        if self._inotify >= 0:
            os.close(self._inotify)
            self._inotify = -1

    def close(self) -> None:
        self.deafen()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Folders:
    """Directories whose files come, change as a whole, and go; what happens from now on is heard.

    Where the user's inotify instances are used up, one has to look every now and then instead.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        kinds = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE
        try:
            self._inotify = _watch(paths, kinds)
        except OSError as error:
            log.warning("%s; looking every %.1f s", error, _PERIOD_DEAF)
            self._inotify = -1

    async def changed(self) -> None:
        """Returns when something may have happened since the last time."""
        if self._inotify < 0:
            await asyncio.sleep(_PERIOD_DEAF)
            return
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify, heard.set)
        try:
            await heard.wait()
        finally:
            loop.remove_reader(self._inotify)
        _silence(self._inotify)

    def close(self) -> None:
        if self._inotify >= 0:
            os.close(self._inotify)


def _watch(paths: Sequence[Path], kinds: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"inotify: {os.strerror(error)}")
    for path in paths:
        if libc.inotify_add_watch(descriptor, os.fsencode(path), kinds) < 0:
            error = ctypes.get_errno()
            os.close(descriptor)
            raise OSError(error, f"inotify: {os.strerror(error)}", str(path))
    return descriptor


def _silence(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass
