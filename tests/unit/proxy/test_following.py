"""A proxy's directory: plans go in, reports come out, each as a whole."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import msgspec

from axoneme.proxy.following import Following, read_report, write_plan
from axoneme.proxy.names import JOURNAL, Answer, read_journal
from axoneme.proxy.plan import PLAN, REPORT, Plan, Report


def plan(revision: int) -> Plan:
    return Plan(node="node1", revision=revision, families=(4, 6), events="/nowhere")


async def test_each_plan_arrives_until_there_is_none(tmp_path: Path) -> None:
    write_plan(tmp_path, plan(1))
    seen = []
    async with asyncio.timeout(10), aclosing(Following(tmp_path).plans()) as plans:
        async for each in plans:
            seen.append(each.revision)
            if each.revision < 3:
                write_plan(tmp_path, plan(each.revision + 1))
            else:
                (tmp_path / PLAN).unlink()
    assert seen == [1, 2, 3]
    assert not list(tmp_path.iterdir()), "drafts are left behind"


async def test_a_plan_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text('{"node": "node1", "revi')
    async with asyncio.timeout(10), aclosing(Following(tmp_path).plans()) as plans:
        first = asyncio.ensure_future(anext(plans))
        await asyncio.sleep(0)
        write_plan(tmp_path, plan(7))
        assert (await first).revision == 7


def test_reports_say_who_wrote_them_and_are_written_when_they_differ(tmp_path: Path) -> None:
    following = Following(tmp_path)
    assert read_report(tmp_path) is None
    following.report(Report(revision=1, ready=(10000,), errors={10001: "no"}))
    assert read_report(tmp_path) == Report(revision=1, ready=(10000,), errors={10001: "no"}, pid=os.getpid())
    before = (tmp_path / REPORT).stat().st_ino
    following.report(Report(revision=1, ready=(10000,), errors={10001: "no"}))
    assert (tmp_path / REPORT).stat().st_ino == before
    following.report(Report(revision=2))
    assert read_report(tmp_path) == Report(revision=2, pid=os.getpid())


def test_what_is_no_report_is_none(tmp_path: Path) -> None:
    """The folder is the proxy's, which might have been taken over."""
    secret = tmp_path / "secret"
    secret.write_text('{"revision": 1}')
    report = tmp_path / REPORT
    report.symlink_to(secret)
    assert read_report(tmp_path) is None
    report.unlink()
    os.mkfifo(report)
    assert read_report(tmp_path) is None
    report.unlink()
    for content in (b"[]", b'{"revision": 1, "errors": {"1": "\xff"}}', b'{"more": ' + b"[" * 100_000):
        report.write_bytes(content)
        assert read_report(tmp_path) is None


def test_nothing_in_the_folder_of_a_proxy_stops_who_reads_it(tmp_path: Path) -> None:
    for name, read in ((REPORT, read_report), (JOURNAL, lambda folder: list(read_journal(folder / JOURNAL)))):
        place = tmp_path / name
        place.mkdir()
        assert not read(tmp_path)
        place.rmdir()
        os.mkfifo(place)
        writer = os.open(place, os.O_RDWR | os.O_NONBLOCK)
        assert not read(tmp_path)
        os.close(writer)
        place.unlink()
    good = Answer(1, "10.0.0.1", "a.test", {"192.0.2.1": 60})
    odd = [b"[" * 100_000, b'{"time": 1%s}' % (b"0" * 400), b"\xff"]
    place.write_bytes(b"\n".join([*odd, msgspec.json.encode(good)]))
    huge = msgspec.json.encode(good).replace(b":60}", b":1" + b"0" * 400 + b"}")
    place.write_bytes(place.read_bytes() + b"\n" + huge)
    assert list(read_journal(place)) == [good]
