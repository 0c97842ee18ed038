"""Logs stay short and are followed across a cut."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from axoneme.sandbox import logs


async def whole(log: Path, tail: int | None = None) -> str:
    return "".join([piece async for piece in logs.read(log, tail, follow=False)])


async def test_a_log_is_read_whole_or_from_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert await whole(log) == ""
    log.write_text("one\ntwo\nthree\n")
    assert await whole(log) == "one\ntwo\nthree\n"
    assert await whole(log, 2) == "two\nthree\n"
    assert await whole(log, 0) == ""


async def test_a_long_log_is_cut_while_its_writer_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LIMIT", 100)
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(100):
            writer.write(f"line {number}\n".encode())
            logs.bound(log)
        assert log.stat().st_size < 110
        assert (await whole(log)).endswith("line 98\nline 99\n")
        assert len(await whole(log)) <= 210


async def test_a_log_is_followed_across_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LOOK", 0.001)
    monkeypatch.setattr(logs, "LIMIT", 10)
    log = tmp_path / "a.log"
    log.write_text("before, long\n")
    async with asyncio.timeout(5), aclosing(logs.read(log, 0, follow=True)) as pieces:
        coming = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        logs.bound(log)
        with log.open("a") as writer:
            writer.write("after\n")
        assert await coming == "after\n"
