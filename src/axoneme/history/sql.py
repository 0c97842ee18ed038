"""Questions about flows in SQL, by DuckDB: one table, ``flows``, of what is in memory and what was recorded.

A query can read that table and nothing else. Only one statement is let through, and only such as reads; other
files, the network, extensions and Python's variables are closed to it, which no query can change.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from axoneme.flows.recordsrequest import Position, RecordsRequest
from axoneme.history import live
from axoneme.history.recorded import NodeHistory
from axoneme.history.schema import SCHEMA
from axoneme.history.sources import Source

_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)
_MEMORY: Final = "1GB"
#: How often files may vanish, because they have become too old, while a query is being prepared.
_TRIES: Final = 3


class QueryError(ValueError):
    """The query cannot be answered; the text is for whoever wrote it."""


def query(
    sources: Sequence[Source], text: str, since: int = 0, seconds: float | None = None, memory: str = _MEMORY
) -> pa.Table:
    """The answer. ``since``: flows before that (ns of the wall clock) are not looked at. A query that takes
    more than ``seconds`` is given up. Raises `QueryError`; `axoneme.rpc.RpcError` where a node is silent.
    """
    _check(text)
    for left in reversed(range(_TRIES)):
        files, rest = _gather(sources, since)
        try:
            return answered(files, rest, text, since, seconds, memory)
        except duckdb.IOException as error:
            if not left or all(path.exists() for path in files):
                raise QueryError(str(error)) from None
        except duckdb.Error as error:
            raise QueryError(str(error)) from None
    raise AssertionError


def answered(
    files: list[Path],
    rest: pa.Table,
    text: str,
    since: int = 0,
    seconds: float | None = None,
    memory: str = _MEMORY,
) -> pa.Table:
    """The same of what was found: tables, and what is in none. Raises `QueryError`, and `duckdb.Error`."""
    with duckdb.connect(":memory:", config=_CONFIG) as connection:
        _prepare(connection, files, rest, since, memory)
        return _answer(connection, text, seconds)


_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def _check(text: str) -> None:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise QueryError(str(error)) from None
    if len(statements) != 1:
        raise QueryError(f"{len(statements)} statements; give one query")
    kind = statements[0].type
    if kind is duckdb.StatementType.EXPLAIN and (head := _EXPLAIN.match(text)):
        _check(text[head.end() :])  # ANALYZE carries out what stands behind it
        return
    if kind is not duckdb.StatementType.SELECT:
        raise QueryError(f"this is {kind.name}; only queries (SELECT) are answered")


def _gather(sources: Sequence[Source], since: int) -> tuple[list[Path], pa.Table]:
    """Files of what was recorded, and a table of what stands in none of them yet."""
    with ThreadPoolExecutor(max(1, len(sources))) as pool:
        found = list(pool.map(lambda source: _of(source, since), sources))
    files = [path for paths, _ in found for path in paths]
    return files, pa.concat_tables([table for _, table in found]) if found else SCHEMA.empty_table()


def _of(source: Source, since: int) -> tuple[list[Path], pa.Table]:
    files: list[Path] = []
    tables: list[pa.Table] = []
    after: Position | None = None
    if source.history is not None:
        files, spooled, after = NodeHistory(source.history).files(since)
        tables.append(spooled)
    found = live.batches(source.flows, RecordsRequest(since=since, after=after))
    tables.append(pa.Table.from_batches(found, SCHEMA))
    return files, pa.concat_tables(tables)


def _prepare(
    connection: duckdb.DuckDBPyConnection, files: list[Path], rest: pa.Table, since: int, memory: str
) -> None:
    connection.register("recent", rest)
    parts = ["SELECT * FROM recent"]
    if files:
        paths = ", ".join(_quoted(str(path)) for path in files)
        parts.append(f"SELECT * FROM read_parquet([{paths}], union_by_name = true)")
        connection.execute(f"SET allowed_paths = [{paths}]")
    every = " UNION ALL BY NAME ".join(parts)
    bound = f" WHERE epoch_ns(time) >= {since}" if since else ""
    connection.execute(f"SET memory_limit = {_quoted(memory)}")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    connection.execute(f"CREATE VIEW flows AS SELECT * FROM ({every}){bound}")


def _answer(connection: duckdb.DuckDBPyConnection, text: str, seconds: float | None) -> pa.Table:
    timer = threading.Timer(seconds, connection.interrupt) if seconds is not None else None
    if timer:
        timer.start()
    try:
        return connection.sql(text).to_arrow_table()
    except duckdb.InterruptException:
        raise QueryError(f"it takes more than {seconds:g} s; ask for less, such as a shorter time") from None
    finally:
        if timer:
            timer.cancel()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
