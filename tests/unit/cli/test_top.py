"""`axo top`: from what nodes have counted to rows, to lines, to what keys do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from textual.widgets import DataTable, Input, Static

from axoneme.cli.edgerates import Rates, Row, matching, name, ordered
from axoneme.cli.toptable import columns, duration, lines, rate
from axoneme.cli.topview import Top
from axoneme.flows.edgecounts import Edge, EdgeEnd, EdgeReport

SECOND = 1_000_000_000
CLIENT = EdgeEnd("shop", "client-1", "Deployment", "client", "node1")
WEB = EdgeEnd("shop", "web-1", "Deployment", "web", "node2")
WORLD = EdgeEnd(labels=("reserved:world",))


def edge(source: EdgeEnd = CLIENT, destination: EdgeEnd = WEB, port: int = 80, **counts: int) -> Edge:
    return Edge(source, destination, 6, port, **counts)


def report(node: str, seconds: float, *edges: Edge, since: int = 1) -> EdgeReport:
    return EdgeReport(node, round(seconds * SECOND), since, 1, 0, list(edges))


def one(rates: Rates, *reports: EdgeReport) -> Row:
    (row,) = rates.rows(reports)
    return row


# ---- rates ---------------------------------------------------------------------------------------


def test_rates_are_what_was_added_in_between() -> None:
    rates = Rates()
    first = one(rates, report("node1", 10, edge(opened=100, sent=1000, received=5000, dropped=7)))
    assert (first.connections, first.sent, first.drops, first.dropped) == (0, 0, 0, 7), (
        "nothing to compare with"
    )
    row = one(
        rates,
        report("node1", 12, edge(opened=110, sent=3000, received=5000, dropped=8, sent_again=4, open=3)),
    )
    assert (row.source, row.destination) == ("shop/client", "shop/web:80")
    assert (row.connections, row.sent, row.received, row.drops) == (5, 1000, 0, 0.5)
    assert (row.retransmissions, row.open, row.dropped) == (2, 3, 8)


def test_a_connection_between_two_nodes_counts_once_and_what_each_node_sent_again_twice() -> None:
    rates = Rates()
    for at in (10, 11):
        counts = {"opened": 10 * at, "sent": 100 * at, "open": 2, "sent_again": at, "dropped": 2 * at}
        row = one(rates, report("node1", at, edge(**counts)), report("node2", at, edge(**counts)))
    assert (row.connections, row.sent, row.open) == (10, 100, 2)
    assert (row.retransmissions, row.drops) == (2, 4)


@pytest.mark.parametrize(
    ("source", "answering", "counted"),
    [(CLIENT, ["node2"], 1), (WORLD, ["node1", "node2"], 1), (WORLD, ["node1"], 1)],
)
def test_where_the_source_has_no_node_the_destinations_counts(
    source: EdgeEnd, answering: list[str], counted: int
) -> None:
    reports = [report(node, 10, edge(source, open=1)) for node in answering]
    assert one(Rates(), *reports).open == counted


def test_times_are_means_of_what_ended_meanwhile_and_of_what_is_open() -> None:
    rates = Rates()
    one(rates, report("node1", 10, edge(rtt=10_000, rtts=1, handshake=9000, handshakes=1)))
    row = one(
        rates,
        report(
            "node1", 11, edge(rtt=10_300, rtts=2, handshake=9100, handshakes=2, open_rtt=500, open_rtts=1)
        ),
    )
    assert (row.rtt, row.handshake) == (400, 100)
    still = one(rates, report("node1", 12, edge(rtt=10_300, rtts=2, handshake=9100, handshakes=2)))
    assert (still.rtt, still.handshake) == (5150, 4550), "nothing new: of all"


def test_a_server_that_began_anew_gives_no_nonsense() -> None:
    rates = Rates()
    one(rates, report("node1", 10, edge(opened=100, sent=100)))
    row = one(rates, report("node1", 12, edge(opened=1, sent=1), since=2))
    assert (row.connections, row.sent) == (0, 0)


def test_an_edge_that_appears_late_has_no_past() -> None:
    rates = Rates()
    rates.rows([report("node1", 10)])
    assert one(rates, report("node1", 11, edge(open=1, sent=10**9))).sent == 0
    rates = Rates()
    rates.rows([report("node1", 10)])
    assert one(rates, report("node1", 11, edge(opened=1, sent=500))).sent == 500


@pytest.mark.parametrize(
    ("end", "group", "text"),
    [
        (CLIENT, "workload", "shop/client"),
        (CLIENT, "pod", "shop/client-1"),
        (CLIENT, "namespace", "shop"),
        (EdgeEnd("shop", "bare"), "workload", "shop/bare"),
        (EdgeEnd(node="node1", labels=("reserved:host",)), "workload", "node1"),
        (WORLD, "pod", "world"),
        (EdgeEnd(labels=("cidr:10.0.0.0/8", "reserved:world")), "pod", "world"),
        (EdgeEnd(), "pod", "unknown"),
    ],
)
def test_ends_have_names(end: EdgeEnd, group: str, text: str) -> None:
    assert name(end, group) == text


def test_groups_add_up() -> None:
    pods = [EdgeEnd("shop", f"client-{n}", "Deployment", "client", "node1") for n in range(3)]
    rates = Rates("namespace")
    assert one(rates, report("node1", 1, *(edge(pod, open=2) for pod in pods))).open == 6


# ---- rows ----------------------------------------------------------------------------------------


def row(source: str = "a", destination: str = "b:80", **more: Any) -> Row:
    numbers = dict.fromkeys(("connections", "sent", "received", "drops", "retransmissions"), 0.0)
    counts = dict.fromkeys(("open", "rtt", "handshake", "dropped"), 0)
    return Row(source=source, destination=destination, **(numbers | counts | more))


def test_rows_are_sorted_by_what_is_asked_and_else_by_name() -> None:
    rows = [row("quiet"), row("busy", sent=10.0), row("dropped", drops=1.0), row("also quiet")]
    assert [each.source for each in ordered(rows, "traffic")] == ["busy", "dropped", "also quiet", "quiet"]
    assert ordered(rows, "drops")[0].source == "dropped"
    assert ordered(rows, "traffic", reverse=True)[-1].source == "busy"


def test_words_of_a_filter_may_stand_in_either_end() -> None:
    rows = [row("shop/client", "shop/web:80"), row("shop/web", "db/postgres:5432")]
    assert [len(matching(rows, text)) for text in ("", "WEB", "web 5432", "client 5432")] == [2, 2, 1, 0]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_lines_are_as_wide_as_the_terminal_at_most(width: int) -> None:
    long = row("a-namespace/with-a-workload-of-a-very-long-name", "another/one-" + "x" * 90 + ":8080")
    made = lines([long, row(sent=123456789.0, rtt=12345)], width)
    assert all(len(line) <= width for line in made)
    assert ":8080" in made[1], "the port is not cut off"
    titles = [column.title for column in columns(width)]
    assert titles[:2] == ["SOURCE", "DESTINATION"]
    assert {"CONN/S", "B/S", "DROP/S", "RTT", "RETR/S"} <= set(titles)
    assert ("SENT/S" in titles) == (width >= 150)


def test_numbers_are_short() -> None:
    assert [rate(value) for value in (0, 0.04, 0.5, 9.99, 12, 999, 1234, 123456, 2.5e9)] == [
        *("", "", "0.5", "10.0", "12", "999", "1.2k", "123k", "2.5G"),
    ]
    assert [duration(us) for us in (0, 85, 1234, 99_499, 340_000, 2_100_000, 250_000_000)] == [
        *("", "85us", "1.2ms", "99.5ms", "340ms", "2.1s", "250s"),
    ]


# ---- the screen ----------------------------------------------------------------------------------


class Nodes:
    """What two nodes say; a second goes by with each look."""

    def __init__(self) -> None:
        self.looks = 0
        self.absent: Mapping[str, str] = {}

    async def ask(self) -> tuple[list[EdgeReport], Mapping[str, str]]:
        self.looks += 1
        n = self.looks
        busy = edge(opened=10 * n, sent=10_000 * n, open=1, open_rtt=150, open_rtts=1)
        odd = edge(WORLD, WEB, 443, opened=n, dropped=5 * n)
        return [report("node1", n, busy), report("node2", n, odd)], self.absent


def texts(app: Top) -> list[list[str]]:
    table = app.query_one(DataTable)
    return [[str(cell).strip() for cell in table.get_row_at(at)] for at in range(table.row_count)]


def status(app: Top) -> str:
    return str(app.query_one("#status", Static).render())


def test_keys_sort_filter_group_and_pause() -> None:
    async def run() -> None:
        nodes = Nodes()
        app = Top("sandbox test", nodes.ask, 3600)
        async with app.run_test(size=(80, 24)) as pilot:

            async def look() -> None:
                await app.look().wait()
                await pilot.pause()

            await look()
            await look()
            assert [each[:2] for each in texts(app)] == [
                ["shop/client", "shop/web:80"],
                ["world", "shop/web:443"],
            ]
            assert texts(app)[0][2:] == ["10", "10.0k", "", "150us", ""]
            table = app.query_one(DataTable)
            assert sum(column.width for column in table.columns.values()) <= 78, "80 columns hold it"
            await pilot.press("s", "s")
            assert "by drops" in status(app)
            assert texts(app)[0][0] == "world"
            await pilot.press("r")
            assert texts(app)[0][0] == "shop/client"
            await pilot.press("slash", *"443")
            assert [each[0] for each in texts(app)] == ["world"]
            await pilot.press("enter")
            assert app.focused is table
            assert not app.query_one(Input).has_class("shown")
            await pilot.press("slash", "escape")
            assert len(texts(app)) == 2
            await pilot.press("space")
            before = texts(app)
            await look()
            assert status(app).startswith("PAUSED")
            assert texts(app) == before
            await pilot.press("space", "g")
            assert sorted(each[0] for each in texts(app)) == ["shop/client-1", "world"]
            assert texts(app)[0][2] == "10", "rates are there at once"
            nodes.absent = {"node3": "no"}
            await look()
            assert "node3 does not answer" in status(app)
            await pilot.resize_terminal(160, 24)
            await pilot.pause()
            assert len(table.columns) == 11

    asyncio.run(run())
