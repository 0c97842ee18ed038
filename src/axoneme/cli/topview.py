"""The live table of `axo top`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Final

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import DataTable, Footer, Input, Static

from axoneme.cli.edgerates import GROUPS, SORTS, Rates, Row, matching, ordered
from axoneme.cli.toptable import cells, columns, heads
from axoneme.flows.edgecounts import EdgeReport

#: What nodes say, and why others do not.
Sample = tuple[list[EdgeReport], Mapping[str, str]]
#: Rows that are drawn: more than anybody reads.
_MOST: Final = 500


class Top(App[None]):
    CSS = """
    #status { height: 1; background: $panel; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("g", "group", "group"),
        Binding("slash", "filter", "filter"),
        Binding("space", "pause", "pause"),
        Binding("escape", "clear", "clear", show=False),
        Binding("q", "quit", "quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        title: str,
        ask: Callable[[], Awaitable[Sample]],
        interval: float,
        sort: str = "traffic",
        group: str = GROUPS[0],
        text: str = "",
    ) -> None:
        super().__init__()
        self._title = title
        self._ask = ask
        self._interval = interval
        self._sort, self._group, self._text = sort, group, text
        self._backwards = self._paused = False
        # All of them: whoever turns to another need not wait for rates.
        self._rates = {each: Rates(each) for each in GROUPS}
        self._absent: Mapping[str, str] = {}
        self._rows: dict[str, list[Row]] = {each: [] for each in GROUPS}
        self._widths: tuple[int, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(id="status")
        table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=0, zebra_stripes=True)
        yield table
        yield Input(self._text, placeholder="words that both ends together must have", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self._draw()
        self.set_interval(self._interval, self.look)
        self.look()

    @work(exclusive=True)
    async def look(self) -> None:
        reports, self._absent = await self._ask()
        rows = {group: rates.rows(reports) for group, rates in self._rates.items()}
        if not self._paused:
            self._rows = rows
            self._draw()

    # ---- keys ----------------------------------------------------------------------------------

    def action_sort(self) -> None:
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]
        self._draw()

    def action_reverse(self) -> None:
        self._backwards = not self._backwards
        self._draw()

    def action_group(self) -> None:
        self._group = GROUPS[(GROUPS.index(self._group) + 1) % len(GROUPS)]
        self._draw()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._draw()

    def action_filter(self) -> None:
        field = self.query_one(Input)
        field.add_class("shown")
        field.focus()

    def action_clear(self) -> None:
        self.query_one(Input).value = ""
        self._close()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._text = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        self._close()

    def _close(self) -> None:
        self.query_one(Input).remove_class("shown")
        self.query_one(DataTable).focus()

    # ---- what is seen --------------------------------------------------------------------------

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if not self.is_running:
            return
        shown = ordered(matching(self._rows[self._group], self._text), self._sort, self._backwards)
        self.query_one("#status", Static).update(Text(self._status(len(shown)), no_wrap=True))
        table: DataTable[Text] = self.query_one(DataTable)
        layout = columns(self.size.width - 2)  # beside a scroll bar
        widths = tuple(column.width for column in layout)
        at, down = table.cursor_row, table.scroll_y
        if widths != self._widths:
            self._widths = widths
            table.clear(columns=True)
            for head, column in zip(heads(layout), layout, strict=True):
                table.add_column(Text(f"{head} "), key=column.title, width=column.width + 1)
        else:
            table.clear()
        for row in shown[:_MOST]:
            style = "bold red" if row.drops else "yellow" if row.retransmissions else ""
            table.add_row(*(Text(cell, style) for cell in cells(row, layout)))
        if shown:
            table.move_cursor(row=min(at, len(shown) - 1), animate=False)
            table.scroll_to(y=down, animate=False)

    def _status(self, count: int) -> str:
        order = f"by {self._sort}{', least first' if self._backwards else ''}"
        words = [f"{self._title}: {count} edges of {self._group}s {order}"]
        if self._paused:
            words.insert(0, "PAUSED")
        if self._text:
            words.append(f"with {self._text!r}")
        words += [f"{node} does not answer" for node in self._absent]
        return " | ".join(words)
