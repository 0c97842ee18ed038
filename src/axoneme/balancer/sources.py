"""Where the desired state stands, and who changes it: a file, or a store that several machines share.

Either way there is one desired state. A change through the API is written to where it stands before it is
answered; what others write there is followed. What cannot be used changes nothing and is told (``problems``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec

from axoneme.balancer import yamledit
from axoneme.balancer.config import Config, parse
from axoneme.model.balancer import Desired, Pool, Service, check
from axoneme.model.paths import ManifestError
from axoneme.model.shapes import decode
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Conflict, Delete, Put, Store

log = logging.getLogger(__name__)

#: From the state that it finds to the one that shall be; it may raise what its caller understands.
Edit = Callable[[Desired], Desired]

#: Seconds between two looks at the file.
_LOOK_EVERY: Final = 0.5
_ATTEMPTS: Final = 10


class Unwritable(Exception):
    """The change was sound, but there is no writing it where it belongs."""


class Source(Protocol):
    """``problems``: what stands there and cannot be used, by its name."""

    problems: dict[str, str]

    async def run(self, changed: Callable[[Desired], None]) -> None:
        """Calls ``changed`` with what stands there, and then whenever it is another."""

    async def change(self, edit: Edit) -> Desired:
        """What then stands there. `Unwritable`; `ManifestError` where the result could not be used."""


# ---- a file ------------------------------------------------------------------------------------


class FileSource:
    """``pools`` and ``services`` of the configuration file. Others may edit it at any time."""

    def __init__(self, path: Path, config: Config, desired: Desired) -> None:
        self._path = path
        self._config = config
        self._told = desired
        self._seen = _stamp(path)
        self._changed: Callable[[Desired], None] = lambda _: None
        self._lock = asyncio.Lock()
        self.problems: dict[str, str] = {}

    async def run(self, changed: Callable[[Desired], None]) -> None:
        self._changed = changed
        changed(self._told)
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            async with self._lock:
                if (stamp := _stamp(self._path)) != self._seen:
                    self._seen = stamp
                    await self._take()

    async def change(self, edit: Edit) -> Desired:
        async with self._lock:
            text = await self._take()
            if text is None:
                raise Unwritable(
                    f"{self.problems[str(self._path)]}; until the file is mended, nothing is written to it"
                )
            wanted = edit(self._told)
            check(wanted)
            if wanted != self._told:
                await asyncio.to_thread(_write, self._path, text, self._told, wanted)
                self._seen = _stamp(self._path)
                self._tell(wanted)
            return wanted

    async def _take(self) -> str | None:
        """Reads the file: its text, or None where it cannot be used."""
        try:
            data, config, desired = await asyncio.to_thread(_load, self._path)
        except (OSError, ManifestError) as error:
            said = f"{self._path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if self.problems.get(str(self._path)) != said:
                log.error("%s; the last good version stays in force", said)
            self.problems[str(self._path)] = said
            return None
        self.problems.pop(str(self._path), None)
        if config != self._config:
            self.problems["restart"] = "machine, api or store were changed in the file: restart for them"
        else:
            self.problems.pop("restart", None)
        if config.store is None:
            self._tell(desired)
        return data.decode()

    def _tell(self, desired: Desired) -> None:
        if desired != self._told:
            self._told = desired
            self._changed(desired)


# Of thousands of backends these take seconds: in a thread, while backends are tried on.


def _load(path: Path) -> tuple[bytes, Config, Desired]:
    data = path.read_bytes()
    return data, *parse(data, str(path))


def _write(path: Path, text: str, before: Desired, wanted: Desired) -> None:
    """Has the file, whose ``text`` says ``before``, say what is ``wanted``. `Unwritable`."""
    made = yamledit.rewrite(text, msgspec.to_builtins(before), msgspec.to_builtins(wanted)).encode()
    try:
        same = parse(made, str(path)) == (parse(text.encode(), str(path))[0], wanted)
    except ManifestError:
        same = False
    if not same:
        raise Unwritable(
            f"{path}: it is written in a way (references, merged mappings) that cannot be changed by "
            "machine; change it by hand"
        )
    try:
        if path.read_bytes() != text.encode():
            raise Unwritable(f"{path}: somebody else is writing to it just now; try again")
        _replace(path, made)
    except OSError as error:
        raise Unwritable(f"{path}: {error.strerror}") from error


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _replace(path: Path, data: bytes) -> None:
    """All of it or nothing, with the mode and owner that the file has; a link to it stays one."""
    path = path.resolve()
    found = path.stat()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, found.st_mode & 0o7777)
            os.fchown(descriptor, found.st_uid, found.st_gid)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


# ---- a store -----------------------------------------------------------------------------------


class StoreSource:
    """Keys ``services/NAME`` and ``pools/NAME`` under a prefix, each a JSON object. Any machine may write.

    Every change through the API writes ``version`` as well: of two that come at once, one looks again.
    """

    def __init__(self, store: Store, prefix: str, last: Path) -> None:
        """``last``: where the last state that was in force is kept, for a start without the store."""
        self._store = store
        self._prefix = prefix
        self._last = last
        self._values: dict[str, Service | Pool] = {}
        self.problems: dict[str, str] = {}

    async def run(self, changed: Callable[[Desired], None]) -> None:
        told: Desired | None = None
        with suppress(OSError, ManifestError):
            told = decode(self._last.read_bytes(), Desired)
            changed(told)
        heard = False
        async with aclosing(follow(self._store, self._prefix)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    heard = True
                else:
                    for change in changes:
                        self._take(change.key, change.value)
                wanted = self._sound() if heard else None
                if wanted is not None and wanted != told:
                    told = wanted
                    self._last.write_bytes(msgspec.json.encode(wanted))
                    changed(wanted)

    async def change(self, edit: Edit) -> Desired:
        for _ in range(_ATTEMPTS):
            listing = await self._store.list(self._prefix)
            values = {entry.key: _read(self._prefix, entry.key, entry.value) for entry in listing.entries}
            before = _desired(values.values())
            after = edit(before)
            check(after)
            key = f"{self._prefix}version"
            revision = next((entry.revision for entry in listing.entries if entry.key == key), 0)
            operations = _operations(self._prefix, before, after)
            if not operations:
                return after
            try:
                await self._store.transact({key: revision}, [*operations, Put(key, b"1")])
            except Conflict:
                continue
            return after
        raise Unwritable(
            f"{self._prefix}: others change it so fast that {_ATTEMPTS} attempts to write failed"
        )

    def _take(self, key: str, value: bytes | None) -> None:
        try:
            found = None if value is None else _read(self._prefix, key, value)
        except ManifestError as error:
            self.problems[key] = f"{error.of(origin=key)}; its last version stays in force"
            log.error("%s", self.problems[key])
            return
        self.problems.pop(key, None)
        if found is None:
            self._values.pop(key, None)
        else:
            self._values[key] = found

    def _sound(self) -> Desired | None:
        """What the values make together, if it can be used."""
        wanted = _desired(self._values.values())
        try:
            check(wanted)
        except ManifestError as error:
            said = f"{error}; the last good version of the whole stays in force"
            if self.problems.get(self._prefix) != said:
                log.error("%s: %s", self._prefix, said)
            self.problems[self._prefix] = said
            return None
        self.problems.pop(self._prefix, None)
        return wanted


def _read(prefix: str, key: str, value: bytes) -> Service | Pool | None:
    """None for a key that is no object."""
    kind, _, name = key.removeprefix(prefix).partition("/")
    if kind not in ("services", "pools"):
        return None
    found: Service | Pool = decode(value, Service) if kind == "services" else decode(value, Pool)
    if found.name != name:
        raise ManifestError("name", found.name, f"the key says {name}", origin=key)
    return found


def _desired(values: Iterable[Service | Pool | None]) -> Desired:
    found = sorted((each for each in values if each is not None), key=lambda each: each.name)
    return Desired(
        tuple(each for each in found if isinstance(each, Pool)),
        tuple(each for each in found if isinstance(each, Service)),
    )


def _operations(prefix: str, before: Desired, after: Desired) -> list[Put | Delete]:
    old, new = _keys(prefix, before), _keys(prefix, after)
    return [
        *(Put(key, msgspec.json.encode(value)) for key, value in new.items() if old.get(key) != value),
        *(Delete(key) for key in old if key not in new),
    ]


def _keys(prefix: str, desired: Desired) -> dict[str, Service | Pool]:
    return {
        **{f"{prefix}pools/{pool.name}": pool for pool in desired.pools},
        **{f"{prefix}services/{service.name}": service for service in desired.services},
    }
