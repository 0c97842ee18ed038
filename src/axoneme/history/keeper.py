"""The process that keeps a node's history: ``axo history``.

It puts down what the flow server sends as it comes, without looking into it, and has others make tables of
that (`axoneme.history.convert`), so it stays small, and what it does for a flow costs next to nothing. A
spool is what came over one connection, so that each begins with all that is needed to read it; for the next
one, the flow server goes on exactly where the one before ended. A disk that takes nothing delays this process
alone; when it takes something again, the flow server says what was overwritten meanwhile, and that is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from axoneme.flows.capacity import RecordingConfig
from axoneme.flows.recordsrequest import Position, RecordsRequest
from axoneme.history.folder import Folder
from axoneme.history.spool import Spool, position
from axoneme.history.status import RecordingStatus
from axoneme.rpc import UNAVAILABLE, AsyncClient, NoParams, RpcError, Server

log = logging.getLogger(__name__)

_encode: Final = msgspec.json.Encoder().encode

#: Seconds until a flow server that has gone, a full disk, and a table that could not be made are tried again.
_ABSENT: Final = 0.5
_FULL: Final = 1.0
_FAILED: Final = 30.0
_ROUND: Final = 10.0
#: Spools that one process makes tables of.
_AT_ONCE: Final = 16


class Keeper:
    def __init__(self, config: RecordingConfig, flows: Path, socket: Path) -> None:
        """``flows``: the flow server's socket; ``socket``: where this process says how it is."""
        self._config = config
        self._flows = AsyncClient(flows, timeout=None)
        self._socket = socket
        self._folder = Folder(Path(config.directory))
        self._spool: Spool | None = None
        self._position: Position | None = None
        self._closed = asyncio.Event()
        self._in_spool = 0
        self._written = 0
        self._lost = 0
        #: By what cannot be done: why.
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        await self._patiently("make", self._begin)
        server = Server(self._socket)
        server.method("status", NoParams, self._status)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve())
            tasks.create_task(self._make_tables())
            tasks.create_task(self._record())

    def _begin(self) -> None:
        self._folder.make()
        self._folder.clear()
        self._position = position(self._folder)

    # ---- what comes ----------------------------------------------------------------------------

    async def _record(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._config.file_seconds):
                    await self._fill_spool()
                self._solved("connect")
            except TimeoutError:
                pass
            except RpcError as error:
                self._tell("connect", error.message)
                if error.code != UNAVAILABLE:
                    raise
                await asyncio.sleep(_ABSENT)
            finally:
                self._close()

    async def _fill_spool(self) -> None:
        """What comes over one connection, up to the size of a spool."""
        # Without a position this is the first time: all that the flow server remembers.
        request = RecordsRequest(follow=True, after=self._position, since=None if self._position else 0)
        itemsize, spool = 1, None
        self._in_spool = 0
        async with aclosing(cast(Any, self._flows.stream("flows.records", request))) as parcels:
            async for parcel in parcels:
                self._solved("connect")
                line = _encode(parcel) + b"\n"
                if spool is None:
                    spool = self._spool = await self._patiently("write", self._open)
                await self._patiently("write", lambda spool=spool, line=line: spool.write(line))
                if layout := parcel.get("layout"):
                    itemsize = layout["itemsize"]
                came = len(parcel.get("records", "")) * 3 // 4 // itemsize
                self._in_spool += came
                self._written += came
                self._lost += sum(each["num_events_lost"] for each in parcel.get("lost", ()))
                self._position = msgspec.convert(parcel["position"], Position)
                if self._in_spool and spool.size >= self._config.file_bytes:
                    return

    def _open(self) -> Spool:
        return Spool(self._folder.new_spool(time.time_ns()))

    def _close(self) -> None:
        """What has been read so far is remembered also when all of it has become tables, or gone."""
        if self._spool is not None:
            spool, self._spool = self._spool, None
            spool.close()
            if not self._in_spool:
                spool.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # then the spools still tell
                self._folder.remember(_encode(self._position))
            self._closed.set()

    # ---- what becomes of it --------------------------------------------------------------------

    async def _make_tables(self) -> None:
        while True:
            pause = _ROUND
            self._closed.clear()
            writing = self._spool.path if self._spool else None
            closed = [spool for spool in self._folder.spools() if spool != writing]
            if closed and await self._convert(closed[:_AT_ONCE]):
                self._solved("convert")
                pause = _ROUND if len(closed) <= _AT_ONCE else 0
            elif closed:
                pause = _FAILED
            self._prune()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await (self._closed.wait() if pause == _ROUND else asyncio.sleep(pause))

    async def _convert(self, spools: list[Path]) -> bool:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "axoneme.history.convert", *map(str, spools)),
            env={**os.environ, "PYTHONPATH": _search_path()},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:  # we are told to end
                process.kill()
                await process.wait()
        if process.returncode:
            reason = said.decode(errors="replace").strip().rpartition("\n")[2]
            self._tell("convert", reason or f"{spools[0]}: the converter ended with {process.returncode}")
        return process.returncode == 0

    def _prune(self) -> None:
        try:
            spared = self._spool.path if self._spool else None
            oldest = time.time() - self._config.days * 86400
            for each in self._folder.prune(self._config.bytes, oldest, spared):
                log.info("%s: removed, as it is older or more than what is to be kept", each)
            self._solved("prune")
        except OSError as error:
            self._tell("prune", f"{error.filename}: {error.strerror}")

    # ---- what is wrong -------------------------------------------------------------------------

    async def _patiently(self, what: str, work: Any) -> Any:
        """Its result, when the disk lets it be done."""
        while True:
            try:
                done = work()
                self._solved(what)
                return done
            except OSError as error:
                self._tell(what, f"{error.filename or self._folder.directory}: {error.strerror}")
            await asyncio.sleep(_FULL)

    def _tell(self, what: str, problem: str) -> None:
        if self._problems.get(what) != problem:
            log.warning("%s; trying again", problem)
        self._problems[what] = problem

    def _solved(self, what: str) -> None:
        if self._problems.pop(what, ""):
            log.info("it can %s again", what)

    async def _status(self, _: NoParams) -> RecordingStatus:
        tables, spools = self._folder.tables(), self._folder.spools()
        return RecordingStatus(
            directory=str(self._folder.directory),
            tables=len(tables),
            spools=len(spools),
            bytes=self._folder.size(),
            most_bytes=self._config.bytes,
            written=self._written,
            lost=self._lost,
            problems=list(self._problems.values()),
        )


def _search_path() -> str:
    """Where a new interpreter finds this very package, installed or not."""
    ours = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
