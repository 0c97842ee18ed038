"""Memory and files together: each flow once, in SQL, as Arrow and as flows again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from axoneme import flows
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.recordsrequest import Position
from axoneme.flows.transfer import Packer
from axoneme.history import sources, sql, tables
from axoneme.history.connection import Connection, nanoseconds
from axoneme.history.folder import Folder
from axoneme.history.recorded import Recorded, Wanted
from axoneme.history.schema import COLUMNS
from axoneme.history.sources import Source
from axoneme.history.spool import Spool
from axoneme.sandbox import layout
from axoneme.sources.config import ConfigError
from unit.history import logs
from unit.history.servers import FlowServer, until
from unit.history.test_history_keeper import Place, running

T = TypeVar("T")
SECOND = 1_000_000_000


async def ask(work: Callable[[], T]) -> T:
    """As from another process: the flow server answers meanwhile."""
    return await asyncio.to_thread(work)


@asynccontextmanager
async def recording(place: Place, server: FlowServer) -> AsyncIterator[Source]:
    """Flows 1 to 3 in a table, 4 and 5 in a spool, 6 and 7 only in memory."""
    async with server.serving(place.flows):
        server.see(1, 2, 3)
        async with running(place.keeper(file_bytes=1 << 30)):
            await until(lambda: place.ports() == [1, 2, 3])
        tables.convert(place.folder.spools()[0])
        server.see(4, 5)
        async with running(place.keeper(file_bytes=1 << 30)):
            await until(lambda: place.ports() == [1, 2, 3, 4, 5])
        server.see(6, 7)
        yield Source("node1", place.flows, place.folder.directory)


async def test_each_flow_is_there_once(tmp_path: Path) -> None:
    async with recording(Place(tmp_path), FlowServer()) as source:
        found = await ask(lambda: sql.query([source], "SELECT source_port FROM flows ORDER BY time"))
        assert found["source_port"].to_pylist() == [1, 2, 3, 4, 5, 6, 7]
        table = await ask(lambda: Connection([source]).to_arrow())
        assert table["source_port"].to_pylist() == [1, 2, 3, 4, 5, 6, 7]


async def test_without_history_there_is_what_is_in_memory(tmp_path: Path) -> None:
    server, path = FlowServer(), tmp_path / "flows.sock"
    server.see(1, 2)
    async with server.serving(path):
        source = Source("node1", path)
        answer = await ask(
            lambda: sql.query([source], "SELECT count(*) AS n, any_value(node) AS node FROM flows")
        )
        assert answer.to_pylist() == [{"n": 2, "node": "node1"}]


async def test_all_nodes_are_asked(tmp_path: Path) -> None:
    one, two = FlowServer("node1"), FlowServer("node2")
    one.see(1)
    two.see(2)
    found = [Source(node, tmp_path / f"{node}.sock") for node in ("node1", "node2")]
    async with one.serving(found[0].flows), two.serving(found[1].flows):
        answer = await ask(lambda: sql.query(found, "SELECT node, source_port FROM flows ORDER BY node"))
        assert answer.to_pylist() == [
            {"node": "node1", "source_port": 1},
            {"node": "node2", "source_port": 2},
        ]


async def test_filters_and_times_hold_for_memory_and_files(tmp_path: Path) -> None:
    server = FlowServer()
    async with recording(Place(tmp_path), server) as source:
        connection = Connection([source])
        for where, expected in (
            ({"port": [2, 5, 6]}, [2, 5, 6]),
            (FlowFilter(pod=("shop/nobody",)), []),
            ([{"port": 1}, {"port": 7}], [1, 7]),
        ):
            table = await ask(lambda where=where: connection.to_arrow(where))
            assert table["source_port"].to_pylist() == expected
        table = await ask(lambda: connection.to_arrow(without={"port": 4}))
        assert table["source_port"].to_pylist() == [1, 2, 3, 5, 6, 7]
        assert (await ask(lambda: connection.to_arrow(last=2)))["source_port"].to_pylist() == [6, 7]
        since, end = logs.START + 2_000_000, logs.START + 6_000_000
        bounded = await ask(lambda: connection.to_arrow(since=since, until=end))
        assert bounded["source_port"].to_pylist() == [2, 3, 4, 5, 6]
        query = "SELECT source_port FROM flows ORDER BY time"
        assert (await ask(lambda: connection.sql(query, since)))["source_port"].to_pylist() == [
            2,
            3,
            4,
            5,
            6,
            7,
        ]


async def test_pandas_gets_a_frame(tmp_path: Path) -> None:
    server, path = FlowServer(), tmp_path / "flows.sock"
    server.see(1, 2)
    async with server.serving(path):
        frame = await ask(lambda: Connection([Source("node1", path)]).to_pandas())
        assert list(frame["source_port"]) == [1, 2]
        assert frame["source_pod"].tolist() == ["client-1", "client-1"]


async def test_a_follower_gets_what_comes_in_batches(tmp_path: Path) -> None:
    server, path = FlowServer(), tmp_path / "flows.sock"
    server.see(1)
    async with server.serving(path):
        batches = Connection([Source("node1", path)]).follow({"verdict": "FORWARDED"})
        first = asyncio.ensure_future(ask(lambda: next(batches)))
        ports: list[int] = []
        while not first.done():  # it follows from when it has connected on
            server.see(2)
            await asyncio.sleep(0.01)
        ports += first.result()["source_port"].to_pylist()
        assert set(ports) == {2}
        await ask(batches.close)


CLOSED = (
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('/etc/hostname')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_parquet('https://example.com/a.parquet')",
    "COPY flows TO '/tmp/flows.csv'",
    "COPY flows TO '{table}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{table}' (FORMAT csv, USE_TMP_FILE false)",
    "/**/ EXPLAIN ANALYZE COPY (SELECT 1) TO '{table}' (FORMAT csv, USE_TMP_FILE false)",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{table}' (FORMAT csv, USE_TMP_FILE false)",
    "EXPORT DATABASE '/tmp/flows'",
    "ATTACH '/tmp/flows.db'",
    "INSTALL httpfs",
    "LOAD json",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "DROP VIEW flows",
    "CREATE TABLE x AS SELECT 1",
    "INSERT INTO flows SELECT * FROM flows",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SELECT 1; SELECT 2",
    "SELECT * FROM source",
    "SELECT getenv('HOME')",
    "SELECT * FROM duckdb_secrets()",
    "SELEC",
    "",
)
OPEN = (
    "SELECT count(*) FROM flows WHERE time > now() - INTERVAL 5 MINUTE",
    "SELECT time_bucket(INTERVAL 1 MINUTE, time) AS minute, count(*) FROM flows GROUP BY ALL",
    "SELECT * FROM flows WHERE list_contains(source_labels, 'k8s:app=client') LIMIT 1",
    "SELECT unnest(ingress_denied_by) FROM flows",
    "WITH a AS (SELECT * FROM flows) SELECT count(*) FROM a",
    "EXPLAIN SELECT * FROM flows",
    "explain analyze\nFROM flows",
    "DESCRIBE flows",
    "SUMMARIZE flows",
    "FROM flows",
)
ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range % 7 = b.range % 5"
LARGE = "SELECT count(DISTINCT range::VARCHAR || 'xxxxxxxxxxxxxxxxxxxxxx') FROM range(30000000)"


async def test_a_query_reads_flows_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with recording(place, FlowServer()) as source:
        table = place.folder.tables()[0]
        before = table.read_bytes()
        for text in CLOSED:
            with pytest.raises(sql.QueryError):
                await ask(lambda text=text: sql.query([source], text.replace("{table}", str(table))))
        assert table.read_bytes() == before
        for text in OPEN:
            assert (await ask(lambda text=text: sql.query([source], text))).num_columns > 0
        rows = (await ask(lambda: sql.query([source], "DESCRIBE flows"))).to_pylist()
        assert [(row["column_name"], row["column_type"]) for row in rows] == [
            (each.name, each.sql) for each in COLUMNS
        ]
        with pytest.raises(sql.QueryError, match=r"more than 0\.2 s"):
            await ask(lambda: sql.query([source], ENDLESS, seconds=0.2))
        with pytest.raises(sql.QueryError, match="Out of Memory"):
            await ask(lambda: sql.query([source], LARGE, memory="20MB"))


# ---- the past as flows -------------------------------------------------------------------------------


def written(directory: Path, node: str, *offsets: int) -> list[Any]:
    """A table for each offset but the last, which is a spool; the flows."""
    folder = Folder(directory)
    folder.make()
    found = []
    for number, offset in enumerate(offsets):
        log = logs.some_log(node)
        records = logs.some_records(log, logs.START + offset)
        spool = Spool(folder.new_spool(logs.START + offset))
        parcel = Packer(log).pack(records, Position(node, number, 0))
        spool.write(msgspec.json.encode(parcel) + b"\n")
        spool.close()
        if number + 1 < len(offsets):
            tables.convert(spool.path)
        found += log.encoder().flows(records)
    return found


def test_the_past_of_two_nodes_is_one(tmp_path: Path) -> None:
    one = written(tmp_path / "1", "node1", 0, 2 * SECOND, 4 * SECOND)
    two = written(tmp_path / "2", "node2", SECOND, 3 * SECOND)
    recorded = Recorded({"node1": tmp_path / "1", "node2": tmp_path / "2"})
    found = [item.flow for item in recorded.read(Wanted())]
    assert found == sorted([*one, *two], key=lambda flow: flow.time)
    first, last = recorded.span() or (0, 0)
    assert (first, last) == (logs.START + 1, logs.START + 4 * SECOND + 15_004)


def test_the_past_is_bounded_and_filtered(tmp_path: Path) -> None:
    flows_ = written(tmp_path, "node1", 0, 2 * SECOND, 4 * SECOND)
    recorded = Recorded({"node1": tmp_path})
    per = len(flows_) // 3
    wanted = Wanted(logs.START + SECOND, logs.START + 3 * SECOND)
    assert [item.flow for item in recorded.read(wanted)] == flows_[per : 2 * per]
    dropped = [flow for flow in flows_ if flow.verdict == "DROPPED"]
    found = recorded.read(Wanted(filters=[FlowFilter(verdict=("DROPPED",))]))
    assert [item.flow for item in found] == dropped
    for last in (0, 1, 3, per + 2, 10 * per):
        expected = flows_[len(flows_) - min(last, len(flows_)) :]
        assert [item.flow for item in recorded.read(Wanted(last=last))] == expected


def test_tables_of_earlier_releases_are_read(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    expected = written(tmp_path, "node1", 0, 0)[: len(logs.ASKED) + 17]
    table = Folder(tmp_path).tables()[0]
    footer, with_less = tables.footer(table), pq.read_table(table).drop_columns(["interface", "proxy_port"])
    with pq.ParquetWriter(table, with_less.schema) as writer:
        writer.write_table(with_less)
        writer.add_key_value_metadata({tables.AXONEME: msgspec.json.encode(footer)})
    found = [item.flow for item in Recorded({"node1": tmp_path}).read(Wanted())]
    assert len(found) == 2 * len(expected)


def test_files_of_others_are_passed_over(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = written(tmp_path, "node1", 0)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "20240101T000000.000000Z.parquet")
    (tmp_path / "20240102T000000.000000Z.parquet").write_bytes(b"no Parquet")
    assert [item.flow for item in Recorded({"node1": tmp_path}).read(Wanted())] == expected


def test_nothing_recorded_is_no_past(tmp_path: Path) -> None:
    recorded = Recorded({"node1": tmp_path / "nowhere"})
    assert recorded.span() is None
    assert list(recorded.read(Wanted())) == []


# ---- where flows are ---------------------------------------------------------------------------------


def test_a_node_is_found_by_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(
        f"node: node7\ndirectory: {tmp_path}\nstore: {{kind: sqlite, path: /x}}\nhistory: {{directory: /y}}\n"
    )
    expected = [Source("node7", tmp_path / "flows.sock", Path("/y"))]
    assert flows.connect(config=config).sources == expected
    monkeypatch.setenv("AXO_CONFIG", str(config))
    assert flows.connect().sources == expected


def test_a_sandbox_that_is_not_there_is_named() -> None:
    name = f"none-{os.getpid()}"
    with pytest.raises(ConfigError, match=name):
        flows.connect(name)


def test_sandboxes_are_where_sandboxes_are() -> None:
    assert sources.SANDBOXES == layout.ROOT


def test_times_are_given_in_several_ways() -> None:
    import time
    from datetime import UTC, datetime

    assert nanoseconds(5) == 5
    assert nanoseconds(datetime(2026, 1, 1, tzinfo=UTC)) == 1767225600 * SECOND
    assert abs(nanoseconds(timedelta(minutes=1)) - (time.time_ns() - 60 * SECOND)) < SECOND
