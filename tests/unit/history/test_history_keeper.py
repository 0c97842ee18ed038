"""Every flow gets to disk once, whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from axoneme.flows.capacity import RecordingConfig
from axoneme.flows.transfer import Unpacker
from axoneme.history import tables
from axoneme.history.folder import Folder
from axoneme.history.keeper import Keeper
from axoneme.history.spooled import parcels
from axoneme.history.status import RecordingStatus
from axoneme.rpc import AsyncClient
from unit.history.servers import FlowServer, until

BIG = {"file_bytes": 1 << 30}


class Place:
    def __init__(self, directory: Path) -> None:
        self.flows = directory / "flows.sock"
        self.socket = directory / "history.sock"
        self.folder = Folder(directory / "history")

    def keeper(self, **settings: Any) -> Keeper:
        return Keeper(RecordingConfig(str(self.folder.directory), **settings), self.flows, self.socket)

    def ports(self) -> list[int]:
        """Of all flows that are on disk, in order."""
        found: list[int] = []
        for table in self.folder.tables():
            found += pq.read_table(table)["source_port"].to_pylist()
        for spool in self.folder.spools():
            unpacker = Unpacker()
            found += [
                port for each in parcels(spool) for port in unpacker.unpack(each)["source_port"].tolist()
            ]
        return found

    async def status(self) -> RecordingStatus:
        return await AsyncClient(self.socket).call("status", result=RecordingStatus)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def running(keeper: Keeper) -> AsyncIterator[None]:
    """Ends without a chance to tidy anything up, as far as that can be had in one process."""
    task = asyncio.ensure_future(keeper.run())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_the_server_remembers_and_what_comes_is_kept(place: Place) -> None:
    server = FlowServer()
    server.see(1, 2)
    async with server.serving(place.flows), running(place.keeper(**BIG)):
        await until(lambda: place.ports() == [1, 2])
        server.see(3)
        await until(lambda: place.ports() == [1, 2, 3])
        status = await place.status()
        assert (status.written, status.lost, status.problems) == (3, 0, [])


async def test_full_spools_become_tables(place: Place) -> None:
    server = FlowServer()
    async with server.serving(place.flows), running(place.keeper(file_bytes=1)):
        for port in (1, 2):
            server.see(port)
            await until(lambda port=port: place.ports() == [*range(1, port + 1)])
        await until(lambda: len(place.folder.tables()) == 2)
    assert place.ports() == [1, 2]
    assert not [each for each in place.folder.directory.iterdir() if each.suffix == ".draft"]


async def test_old_spools_become_tables(place: Place) -> None:
    server = FlowServer()
    server.see(1)
    async with server.serving(place.flows), running(place.keeper(file_seconds=0.2)):
        await until(lambda: len(place.folder.tables()) == 1)
        server.see(2)
        await until(lambda: place.ports() == [1, 2])


async def test_the_next_keeper_goes_on_where_the_last_was_killed(place: Place) -> None:
    server = FlowServer()
    async with server.serving(place.flows):
        server.see(1, 2)
        async with running(place.keeper(**BIG)):
            await until(lambda: place.ports() == [1, 2])
        server.see(3)
        spool = place.folder.spools()[-1]
        with open(spool, "ab") as file:
            file.write(b'{"position":{"server":"x"')  # of a line that it could not finish
        async with running(place.keeper(**BIG)):
            await until(lambda: place.ports() == [1, 2, 3])
            await until(lambda: len(place.folder.tables()) == 1)
    assert place.ports() == [1, 2, 3]


async def test_a_keeper_whose_spools_are_tables_goes_on_too(place: Place) -> None:
    server = FlowServer()
    async with server.serving(place.flows):
        server.see(1)
        async with running(place.keeper(**BIG)):
            await until(lambda: place.ports() == [1])
        tables.convert(place.folder.spools()[0])
        server.see(2)
        async with running(place.keeper(**BIG)):
            await until(lambda: place.ports() == [1, 2])


async def test_another_flow_server_is_read_from_its_beginning(place: Place) -> None:
    first, second = FlowServer(), FlowServer()
    first.see(1, 2)
    second.see(3)
    async with running(place.keeper(**BIG)):
        async with first.serving(place.flows):
            await until(lambda: place.ports() == [1, 2])
        async with second.serving(place.flows):
            await until(lambda: place.ports() == [1, 2, 3])


async def test_a_full_disk_loses_only_what_was_overwritten(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, write = FlowServer(), os.write
    full = False

    def writing(file: int, data: Any) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr("axoneme.history.spool.os.write", writing)
    async with server.serving(place.flows), running(place.keeper(**BIG)):
        server.see(1)
        await until(lambda: place.ports() == [1])
        full = True
        server.see(2)
        while not (problems := (await place.status()).problems):
            await asyncio.sleep(0.01)
        assert "No space left on device" in problems[0]
        server.see(3)
        full = False
        await until(lambda: place.ports() == [1, 2, 3])
        assert (await place.status()).problems == []


async def test_there_is_no_more_than_is_to_be_kept(place: Place) -> None:
    server = FlowServer()
    async with server.serving(place.flows), running(place.keeper(file_bytes=1, bytes=1)):
        server.see(1)
        await until(place.folder.directory.exists)
        server.see(2)
        await until(lambda: place.folder.tables() == [] and len(place.folder.spools()) <= 1)


async def test_without_a_flow_server_it_waits(place: Place) -> None:
    async with running(place.keeper(**BIG)):
        await until(place.socket.exists)
        while not (problems := (await place.status()).problems):
            await asyncio.sleep(0.01)
    assert str(place.flows) in problems[0]
