"""Both ends of a proxy's directory: the proxy follows ``plan.json`` there and writes ``report.json``."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TypeVar

import msgspec

from axoneme.proxy import files
from axoneme.proxy.plan import PLAN, REPORT, Plan, Report
from axoneme.sources.inotify import Folders

log = logging.getLogger(__name__)

#: More than any report, or plan: what a proxy can write is not trusted with the agent's memory.
_LARGEST_REPORT, _LARGEST_PLAN = 1 << 22, 1 << 26

_T = TypeVar("_T")


def write_plan(folder: Path, plan: Plan) -> None:
    """For the agent. Who may enter the folder, which is the proxy's own, may read it."""
    _write(folder / PLAN, msgspec.json.encode(plan), 0o644)


def read_plan(folder: Path) -> Plan | None:
    """For the agent: what an earlier one has written; None when there is none that can be read."""
    return _read(folder / PLAN, Plan, _LARGEST_PLAN)


def read_report(folder: Path) -> Report | None:
    """For the agent; None when there is none that can be read."""
    return _read(folder / REPORT, Report, _LARGEST_REPORT)


def _read(path: Path, kind: type[_T], most: int) -> _T | None:
    try:
        return msgspec.json.decode(files.content(path, most), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Following:
    """A proxy's view of its directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reported = b""

    async def plans(self) -> AsyncGenerator[Plan, None]:
        """The plan, and each that replaces it; the last one of several at once. Ends when there is none any
        more. One that cannot be read changes nothing."""
        folders = Folders([self._folder])
        try:
            last = b""
            while True:
                try:
                    content = (self._folder / PLAN).read_bytes()
                except FileNotFoundError:
                    return
                if content != last:
                    last = content
                    if (plan := _decode(content)) is not None:
                        yield plan
                await folders.changed()
        finally:
            folders.close()

    def report(self, report: Report) -> None:
        """Says it to the agent; nothing is written where it says the same as the last one."""
        content = msgspec.json.encode(msgspec.structs.replace(report, pid=os.getpid()))
        if content != self._reported:
            _write(self._folder / REPORT, content, 0o644)
            self._reported = content


def _decode(content: bytes) -> Plan | None:
    try:
        return msgspec.json.decode(content, type=Plan)
    except msgspec.DecodeError as error:
        log.error("%s cannot be read, and the one before it stays in force: %s", PLAN, error)
        return None


def _write(path: Path, content: bytes, mode: int) -> None:
    """As a whole, in the place of what is there. A draft has a name that nobody can have prepared."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(content)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
