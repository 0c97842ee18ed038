"""Server and clients against each other, over real unix sockets."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from axoneme.rpc import (
    CONFLICT,
    INTERNAL,
    INVALID,
    INVALID_REQUEST,
    NOT_FOUND,
    PARSE,
    UNAVAILABLE,
    UNKNOWN_METHOD,
    AsyncClient,
    Batch,
    Client,
    NoParams,
    RpcError,
    Server,
)


class Sum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    left: int
    right: int = 0


class Total(msgspec.Struct, frozen=True):
    total: int


async def add(params: Sum) -> Total:
    return Total(params.left + params.right)


@asynccontextmanager
async def serving(path: Path, *register: Callable[[Server], None]) -> AsyncIterator[Path]:
    server = Server(path)
    server.method("sum", Sum, add)
    for each in register:
        each(server)
    ready = asyncio.Event()
    task = asyncio.create_task(server.serve(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield path
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def method(name: str, handler: Callable[[NoParams], Awaitable[object]]) -> Callable[[Server], None]:
    return lambda server: server.method(name, NoParams, handler)


def stream(name: str, handler: Callable[[NoParams], AsyncIterator[object]]) -> Callable[[Server], None]:
    return lambda server: server.stream(name, NoParams, handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


async def lines(path: Path, *requests: str) -> list[dict[str, object]]:
    """What a user of socat sees."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write("".join(request + "\n" for request in requests).encode())
    writer.write_eof()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    return answers


# ---- calls -------------------------------------------------------------------------------------


async def test_a_call_from_either_client_gives_the_typed_result(path: Path) -> None:
    async with serving(path):
        assert await AsyncClient(path).call("sum", Sum(1, 2), result=Total) == Total(3)
        assert await asyncio.to_thread(Client(path).call, "sum", Sum(1, 2), Total) == Total(3)
        assert await asyncio.to_thread(Client(path).call, "sum", {"left": 4}) == {"total": 4}


async def test_wrong_parameters_are_refused_by_the_name_of_the_field(path: Path) -> None:
    async with serving(path):
        for params, words in (({"left": "x"}, "$.left"), ({}, "`left`"), ({"left": 1, "up": 2}, "`up`")):
            with pytest.raises(RpcError, match="sum: params: ") as caught:
                await AsyncClient(path).call("sum", params)
            assert caught.value.code == INVALID
            assert words in caught.value.message


async def test_an_unknown_method_is_answered_with_those_that_exist(path: Path) -> None:
    async with serving(path):
        with pytest.raises(RpcError, match=r"no method 'product'; there are: sum") as caught:
            await AsyncClient(path).call("product")
        assert caught.value.code == UNKNOWN_METHOD


async def test_an_error_of_a_handler_crosses_with_code_message_and_data(path: Path) -> None:
    async def fail(_: NoParams) -> None:
        raise RpcError(NOT_FOUND, "no endpoint 7", {"endpoint": 7})

    async with serving(path, method("fail", fail)):
        for call in (AsyncClient(path).call("fail"), asyncio.to_thread(Client(path).call, "fail")):
            with pytest.raises(RpcError) as caught:
                await call
            error = caught.value
            assert (error.code, error.message, error.data) == (NOT_FOUND, "no endpoint 7", {"endpoint": 7})


async def test_a_bug_in_a_handler_is_an_internal_error_and_the_server_lives(path: Path) -> None:
    async def bug(_: NoParams) -> None:
        raise ConnectionResetError("of something else")

    async def unspeakable(_: NoParams) -> object:
        return object()

    async def unspeakable_data(_: NoParams) -> None:
        raise RpcError(NOT_FOUND, "see data", object())

    registered = [method("bug", bug), method("mute", unspeakable), method("data", unspeakable_data)]
    async with serving(path, *registered):
        for name, code in (("bug", INTERNAL), ("mute", INTERNAL), ("data", NOT_FOUND)):
            with pytest.raises(RpcError) as caught:
                await AsyncClient(path).call(name)
            assert caught.value.code == code
        assert await AsyncClient(path).call("sum", {"left": 1}) == {"total": 1}


async def test_requests_on_one_connection_run_side_by_side(path: Path) -> None:
    release = asyncio.Event()

    async def wait(_: NoParams) -> str:
        await release.wait()
        return "waited"

    async def go(_: NoParams) -> str:
        release.set()
        return "gone"

    async with serving(path, method("wait", wait), method("go", go)):
        answers = await lines(path, '{"id":"a","method":"wait"}', '{"id":"b","method":"go","params":null}')
        assert {answer["id"]: answer["result"] for answer in answers} == {"a": "waited", "b": "gone"}


async def test_lines_that_are_no_requests_are_told_so(path: Path) -> None:
    async with serving(path):
        answers = await lines(path, "{", '{"id":1}', '{"id":0,"method":"sum","params":{"left":1}}')
        codes = [answer.get("error", {}).get("code") for answer in answers]  # type: ignore[attr-defined]
        assert codes == [PARSE, INVALID_REQUEST, None]
        assert (answers[2]["id"], answers[2]["result"]) == (0, {"total": 1})


async def test_a_notification_is_not_answered(path: Path) -> None:
    async with serving(path):
        answers = await lines(path, '{"method":"sum","params":{"left":1}}', '{"method":"nonsense"}')
        assert answers == []


async def test_a_call_runs_to_its_end_when_the_client_leaves(path: Path) -> None:
    started, finish, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def attach(_: NoParams) -> None:
        started.set()
        await finish.wait()
        finished.set()

    async with serving(path, method("attach", attach)):
        call = asyncio.create_task(AsyncClient(path).call("attach"))
        await started.wait()
        call.cancel()
        await asyncio.wait({call})
        finish.set()
        await asyncio.wait_for(finished.wait(), 5)


async def test_no_answer_in_time_is_an_error_that_names_the_socket(path: Path) -> None:
    async def wait(_: NoParams) -> None:
        await asyncio.Event().wait()

    async with serving(path, method("wait", wait)):
        calls = [
            AsyncClient(path, timeout=0.05).call("wait"),
            asyncio.to_thread(Client(path, timeout=0.05).call, "wait"),
        ]
        for call in calls:
            with pytest.raises(RpcError, match=r"agent\.sock: no answer within 0\.05 s") as caught:
                await call
            assert caught.value.code == UNAVAILABLE


async def test_nobody_there_is_an_error_that_names_the_socket(path: Path) -> None:
    for call in (AsyncClient(path).call("sum"), asyncio.to_thread(Client(path).call, "sum")):
        with pytest.raises(RpcError, match=r"agent\.sock: nothing listens there") as caught:
            await call
        assert caught.value.code == UNAVAILABLE


# ---- streams -----------------------------------------------------------------------------------


async def count(_: NoParams) -> AsyncIterator[object]:
    yield 0
    yield Batch([1, 2])
    yield Batch([])
    yield 3


async def test_a_stream_yields_its_items_in_order_and_ends(path: Path) -> None:
    async with serving(path, stream("count", count)):
        assert [item async for item in AsyncClient(path).stream("count")] == [0, 1, 2, 3]
        assert await asyncio.to_thread(lambda: list(Client(path).stream("count"))) == [0, 1, 2, 3]


async def test_a_stream_may_end_with_an_error(path: Path) -> None:
    async def broken(_: NoParams) -> AsyncIterator[object]:
        yield 0
        raise RpcError(CONFLICT, "overtaken")

    async with serving(path, stream("broken", broken)):
        items = []
        with pytest.raises(RpcError, match="overtaken"):
            async for item in AsyncClient(path).stream("broken"):
                items.append(item)
        assert items == [0]


async def test_a_stream_is_closed_at_the_server_when_its_client_leaves(path: Path) -> None:
    closed: asyncio.Queue[None] = asyncio.Queue()

    async def follow(_: NoParams) -> AsyncIterator[object]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            closed.put_nowait(None)

    def first() -> object:
        with closing(Client(path).stream("follow")) as items:  # type: ignore[type-var]
            return next(items)

    async with serving(path, stream("follow", follow)):
        async with aclosing(AsyncClient(path).stream("follow")) as items:  # type: ignore[type-var]
            assert await anext(items) == "first"
        await asyncio.wait_for(closed.get(), 5)
        assert await asyncio.to_thread(first) == "first"
        await asyncio.wait_for(closed.get(), 5)


async def test_a_slow_reader_pauses_the_stream_instead_of_filling_memory(path: Path) -> None:
    sent = 0

    async def flood(_: NoParams) -> AsyncIterator[object]:
        nonlocal sent
        while True:
            yield "x" * 1000
            sent += 1
            await asyncio.sleep(0)

    async def fast(_: NoParams) -> int:
        return sent

    async with serving(path, stream("flood", flood), method("sent", fast)):
        reader, writer = await asyncio.open_unix_connection(path, limit=1000)
        writer.write(b'{"id":1,"method":"flood"}\n')
        before = -1
        while sent == 0 or before != sent:  # until it stands still over a number of turns of the loop
            before = sent
            for _ in range(100):
                await asyncio.sleep(0)
        assert sent < 2000
        await reader.read(100)
        writer.close()


# ---- the socket --------------------------------------------------------------------------------


async def test_only_the_owner_may_connect(path: Path) -> None:
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_server_is_refused_and_the_first_serves_on(path: Path) -> None:
    async with serving(path):
        with pytest.raises(RpcError, match="another process serves there") as caught:
            await Server(path).serve()
        assert caught.value.code == CONFLICT
        assert await AsyncClient(path).call("sum", {"left": 1}) == {"total": 1}
        assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_the_file_of_a_killed_server_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path):
        assert await AsyncClient(path).call("sum", {"left": 1}) == {"total": 1}
    assert not path.exists()


async def test_others_in_whose_folder_it_is_cannot_keep_a_server_from_serving(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = folder / "agent.sock"
    holder = os.open(folder, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with socket.socket(socket.AF_UNIX) as pretender:
        pretender.bind(str(path))
        pretender.listen()
        server, ready = Server(path, mode=0o666, draft_folder=tmp_path), asyncio.Event()
        task = asyncio.create_task(server.serve(ready.set))
        async with asyncio.timeout(10):
            await ready.wait()
            assert (await lines(path, "{}"))[0]["error"]
        task.cancel()
        await asyncio.wait({task})
    os.close(holder)
    assert not path.exists()


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("s" * 60)
    path.parent.mkdir()
    async with serving(path):
        assert await AsyncClient(path).call("sum", {"left": 1}) == {"total": 1}
        assert await asyncio.to_thread(Client(path).call, "sum", {"left": 1}) == {"total": 1}


def test_the_blocking_client_imports_neither_asyncio_nor_msgspec() -> None:
    check = "import sys, axoneme.rpc; print([m for m in ('asyncio', 'msgspec', 'numpy') if m in sys.modules])"
    source = Path(__file__).parents[3] / "src"
    run = subprocess.run(
        [sys.executable, "-c", check],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "[]\n"
