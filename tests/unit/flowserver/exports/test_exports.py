"""Exports run side by side, change while they run, and lose only what they say."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import Parse

from axoneme.flows.events import Mask, Records
from axoneme.flows.flowfilter import FilterError
from axoneme.flowserver.exports.config import ExportConfig
from axoneme.flowserver.exports.running import Exports, ExportStatus, compile_with_hubble
from axoneme.flowserver.observe import Bell, Reader
from axoneme.hubble.parts import Site
from axoneme.hubble.schema import message
from axoneme.rpc import NoParams
from unit.flows import records as made
from unit.flowserver.exports.collector import Collector, attributes, collecting
from unit.history import logs
from unit.history.servers import until


class Node:
    """Flows are told apart by their source port. Filters are ports, so that it is seen that they count."""

    def __init__(self) -> None:
        self.log = logs.some_log()
        self._bell = Bell()
        self._count = itertools.count(1)
        self.reader = Reader(self.log, self._bell, lambda: (10**12, logs.START + 10**12))

    def see(self, *ports: int, **fields: Any) -> None:
        events = [
            made.event(source_port=port, time=next(self._count) * 1_000_000, **fields) for port in ports
        ]
        self.log.store.flows.append(made.records(*events, offset=logs.START, names=self.log.names))
        self._bell.ring()

    def see_everything(self) -> None:
        self.log.store.flows.append(logs.some_records(self.log))
        self._bell.ring()

    @staticmethod
    def compiled(config: ExportConfig) -> Any:
        wanted = [each["port"] for each in config.include_filters]
        if "bad" in wanted:
            raise FilterError("port", "bad", "a port")

        def accepts(records: Records) -> Mask:
            mask: Mask = np.ones(len(records), np.bool_)
            for port in wanted:
                mask = records["source_port"] == port
            return mask

        return accepts


class Stage:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = Node()
        self.file = directory / "flowlogs.yaml"
        self.exports = Exports(self.file, self.node.reader, Node.compiled)

    def configure(self, *exports: dict[str, Any]) -> None:
        for each in exports:
            if "otlp" not in each:
                each.setdefault("filePath", str(self.directory / f"{each['name']}.log"))
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"flowLogs": exports}))
        draft.rename(self.file)

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.directory / f"{name}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ports(self, name: str) -> list[int]:
        return [each["flow"]["l4"]["TCP"]["source_port"] for each in self.lines(name) if "flow" in each]

    async def status(self, name: str) -> ExportStatus:
        return next(each for each in await self.exports.status(NoParams()) if each.name == name)

    async def begun(self, *names: str) -> None:
        """They export what is seen from now on."""
        await until(lambda: all((self.directory / f"{name}.log").exists() for name in names))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    async with running(stage):
        yield stage


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[None]:
    task = asyncio.ensure_future(stage.exports.run())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_each_export_gets_what_it_asks_for(stage: Stage) -> None:
    stage.configure({"name": "all"}, {"name": "one", "includeFilters": [{"port": 2}], "fieldMask": ["l4"]})
    await stage.begun("all", "one")
    stage.node.see(1, 2, 3)
    await until(lambda: stage.ports("all") == [1, 2, 3] and stage.ports("one") == [2])
    assert list(stage.lines("one")[0]["flow"]) == ["l4"]
    assert (await stage.status("all")).exported == 3


async def test_lines_are_what_hubbles_programs_read(stage: Stage) -> None:
    stage.configure({"name": "all"})
    await stage.begun("all")
    stage.node.see_everything()
    await until(lambda: len(stage.lines("all")) == len(logs.ASKED) + 17)
    for line in (stage.directory / "all.log").read_text().splitlines():
        event = Parse(line, message("observer.ExportEvent")(), ignore_unknown_fields=True)
        assert event.node_name == "node1"
        assert event.time == event.flow.time
        assert event.flow.verdict
        assert event.flow.IP.source


async def test_changes_take_effect_while_it_runs(stage: Stage) -> None:
    stage.configure({"name": "a"})
    await stage.begun("a")
    stage.node.see(1)
    await until(lambda: stage.ports("a") == [1])
    stage.configure({"name": "a", "fieldMask": ["l4", "verdict"]}, {"name": "b"})
    await stage.begun("b")
    stage.node.see(2)
    await until(lambda: stage.ports("a") == [1, 2] and stage.ports("b") == [2])
    assert sorted(stage.lines("a")[1]["flow"]) == ["l4", "verdict"]
    stage.configure({"name": "b"})
    while len(await stage.exports.status(NoParams())) != 1:
        await asyncio.sleep(0.01)
    stage.node.see(3)
    await until(lambda: stage.ports("b") == [2, 3])
    assert stage.ports("a") == [1, 2]


async def test_a_file_that_cannot_be_read_changes_nothing(stage: Stage) -> None:
    stage.configure({"name": "a"})
    await stage.begun("a")
    stage.file.write_text("flowLogs: [{name: a}]")
    while not (status := (await stage.exports.status(NoParams()))[-1]).problem:
        await asyncio.sleep(0.01)
    assert "needs either filePath or otlp" in status.problem
    stage.node.see(1)
    await until(lambda: stage.ports("a") == [1])


async def test_a_filter_that_means_nothing_stops_one_export_alone(stage: Stage) -> None:
    stage.configure({"name": "a", "includeFilters": [{"port": "bad"}]}, {"name": "b"})
    await stage.begun("b")
    while "'bad' is not a port" not in (await stage.status("a")).problem:
        await asyncio.sleep(0.01)
    stage.node.see(1)
    await until(lambda: stage.ports("b") == [1])


async def test_an_export_ends_when_it_is_to_end(stage: Stage) -> None:
    stage.configure({"name": "a", "end": "2020-01-01T00:00:00Z"}, {"name": "b"})
    await stage.begun("b")
    stage.node.see(1)
    await until(lambda: stage.ports("b") == [1])
    assert stage.ports("a") == []


async def test_a_full_disk_loses_flows_and_says_how_many(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.configure({"name": "a"})
    await stage.begun("a")
    write, full = os.write, threading.Event()

    def writing(to: int, data: Any) -> int:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(to, data)

    monkeypatch.setattr("axoneme.flowserver.exports.files.os.write", writing)
    full.set()
    stage.node.see(1, 2)
    while (await stage.status("a")).undelivered < 2:
        await asyncio.sleep(0.01)
    assert "No space left on device" in (await stage.status("a")).problem
    full.clear()
    stage.node.see(3)
    await until(lambda: stage.ports("a") == [3])
    lost = stage.lines("a")[0]
    assert lost["lost_events"] == {"source": "OBSERVER_EVENTS_QUEUE", "num_events_lost": 2}
    assert (lost["node_name"], bool(lost["time"])) == ("node1", True)
    status = await stage.status("a")
    assert (status.exported, status.lost, status.problem) == (1, 2, "")


async def test_what_goes_wrong_unexpectedly_loses_flows_and_says_how_many(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axoneme.flowserver.exports.running._RETRY", 0.01)
    stage.configure({"name": "a"})
    await stage.begun("a")
    with monkeypatch.context() as broken:
        broken.setattr("axoneme.flowserver.exports.sinks._line", lambda event: 1 / 0)
        stage.node.see(1, 2)
        while not (await stage.status("a")).problem:
            await asyncio.sleep(0.01)
    stage.node.see(3)
    await until(lambda: stage.ports("a") == [3])
    assert stage.lines("a")[0]["lost_events"]["num_events_lost"] == 2
    status = await stage.status("a")
    assert (status.exported, status.lost, status.undelivered) == (1, 2, 2)


async def test_a_disk_that_hangs_holds_nobody_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.configure({"name": "a"}, {"name": "b"})
    await stage.begun("a", "b")
    write, hanging = os.write, threading.Event()
    stuck = (stage.directory / "a.log").stat().st_ino

    def writing(to: int, data: Any) -> int:
        if os.fstat(to).st_ino == stuck:
            hanging.wait(30)
        return write(to, data)

    monkeypatch.setattr("axoneme.flowserver.exports.files.os.write", writing)
    try:
        stage.node.see(1)
        await until(lambda: stage.ports("b") == [1])
        for port in range(2, 102):  # more than the store has room for
            stage.node.see(port)
            await asyncio.sleep(0)
        await until(lambda: stage.ports("b")[-1] == 101)
        assert stage.ports("a") == []
    finally:
        hanging.set()
    await until(lambda: stage.ports("a")[-1:] == [101])
    lost = [each["lost_events"] for each in stage.lines("a") if "lost_events" in each]
    told = sum(each["num_events_lost"] for each in lost if each["source"] == "HUBBLE_RING_BUFFER")
    assert told + len(stage.ports("a")) == 101
    assert (await stage.status("a")).lost == told > 0


# ---- collectors --------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


async def test_a_collector_gets_records_and_sums(tmp_path: Path, collector: Collector) -> None:
    stage = Stage(tmp_path)
    otlp = {"endpoint": collector.endpoint, "headers": {"x-token": "t"}, "interval": 3600}
    stage.configure({"name": "c", "otlp": otlp}, {"name": "a"})
    async with running(stage):
        await stage.begun("a")
        async with asyncio.timeout(20):
            while not any(
                each.exported for each in await stage.exports.status(NoParams()) if each.name == "c"
            ):
                stage.node.see(7)  # until it has begun
                await asyncio.sleep(0.02)
        seen = len(collector.logs())
        stage.node.see_everything()
        await until(lambda: len(collector.logs()) >= seen + len(logs.ASKED) + 17)
    await until(lambda: "axoneme.flows" in collector.sums())
    flows = stage.node.log.encoder().flows(logs.some_records(stage.node.log))
    records = {each.time_unix_nano: each for each in collector.logs()}
    assert collector.headers[0]["x-token"] == "t"
    assert collector.resources()[0]["k8s.node.name"] == "node1"
    drop = next(each for each in records.values() if attributes(each)["verdict"] == "DROPPED")
    found = attributes(drop)
    assert (drop.severity_text, found["source.pod_name"]) == ("WARN", "client-1")
    assert found["source.labels"] == ["k8s:app=client", "k8s:tier=a,b"]
    assert found["ingress_denied_by.name"] == ["web"]
    assert collector.sums()["axoneme.flows"] == len(collector.logs())
    assert collector.sums()["axoneme.flow.bytes"] == sum(
        each.bytes + each.reply_bytes for each in flows if each.event == "end"
    )


async def test_a_collector_that_refuses_loses_flows_and_hears_of_it(
    tmp_path: Path, collector: Collector
) -> None:
    stage = Stage(tmp_path)
    collector.status = 400
    stage.configure({"name": "c", "otlp": {"endpoint": collector.endpoint, "metrics": False}})
    async with running(stage):
        async with asyncio.timeout(20):
            while not any(each.undelivered for each in await stage.exports.status(NoParams())):
                stage.node.see(1)
                await asyncio.sleep(0.02)
        assert "does not take flows" in (await stage.status("c")).problem
        collector.status = 200
        stage.node.see(9)
        await until(lambda: any(attributes(each).get("lost_events.num") for each in collector.logs()))
        status = await stage.status("c")
        told = sum(attributes(each).get("lost_events.num", 0) for each in collector.logs())
        assert told == status.undelivered


def test_filters_are_hubbles() -> None:
    node = Node()
    compiled = compile_with_hubble(node.reader, lambda: Site("node1", "default"))
    records = logs.some_records(node.log)
    config = ExportConfig(
        name="a",
        file_path="/a",
        include_filters=({"verdict": ["DROPPED"], "source_pod": ["shop/"]},),
        exclude_filters=({"event_type": [{"type": 129}]},),
    )
    flows = node.log.encoder().flows(records)
    expected = [flow.verdict == "DROPPED" and flow.Type != "L7" for flow in flows]
    assert compiled(config)(records).tolist() == expected
    assert any(expected)
    for wrong in ({"verdict": ["NEVER"]}, {"nothing": []}, {"source_ip": ["here"]}):
        with pytest.raises(FilterError):
            compiled(ExportConfig(name="a", file_path="/a", include_filters=(wrong,)))
