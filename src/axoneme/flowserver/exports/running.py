"""Exports as they run: one task each, which walks through the record as any other reader does.

What a sink does not take in time, the store overwrites: then it is this export that has lost flows, says how
many, and goes on. Nobody else waits: each sink has a thread to block in, and no more than a page at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from google.protobuf.json_format import ParseDict, ParseError

from axoneme.flows.flow import LostEvents
from axoneme.flows.flowfilter import FilterError
from axoneme.flows.store import Cursor
from axoneme.flowserver.exports.config import ExportConfig, parse
from axoneme.flowserver.exports.sinks import Sink, make
from axoneme.flowserver.observe import Accepts, Page, Reader, Span
from axoneme.hubble.filters import Filters
from axoneme.hubble.parts import Site
from axoneme.hubble.schema import message
from axoneme.rpc import NoParams
from axoneme.sources.config import ConfigError

log = logging.getLogger(__name__)

#: Seconds between two looks at the file, and until something is tried again that could not be done.
_ROUND: Final = 1.0
#: xds-protos, which the proxies need, brings an older copy of OpenTelemetry's messages to the same place.
_REMEDY: Final = (
    "`pip install 'axoneme[otlp]'`, then `pip install --force-reinstall --no-deps opentelemetry-proto`"
)
_RETRY: Final = 5.0
#: Flows in a page of a walk that are encoded before others get their turn.
_TURN: Final = 256

#: Hubble's filters, to include and to exclude, as what they accept; raises `FilterError`.
Compile = Callable[[ExportConfig], Accepts]


class ExportStatus(msgspec.Struct, frozen=True):
    """``lost``: flows that were to be written and were not, of which ``undelivered`` because the sink did not
    take them. ``problem``: why it does not work just now."""

    name: str
    target: str
    exported: int
    lost: int
    undelivered: int
    problem: str = ""


@dataclass(slots=True)
class _Export:
    config: ExportConfig
    exported: int = 0
    lost: int = 0
    undelivered: int = 0
    unsaid: int = 0  # of the undelivered: the sink does not know of them yet
    problem: str = ""
    position: Cursor | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def status(self) -> ExportStatus:
        target = self.config.file_path or (self.config.otlp.endpoint if self.config.otlp else "")
        return ExportStatus(
            self.config.name, target, self.exported, self.lost, self.undelivered, self.problem
        )


class Exports:
    def __init__(self, path: Path | None, reader: Reader, compile_filters: Compile) -> None:
        """``path``: the file that says which exports there are, and may change; None: there are none."""
        self._path = path
        self._reader = reader
        self._compile = compile_filters
        self._encoder = reader.log.encoder()
        self._exports: dict[str, _Export] = {}
        self._problem = ""
        self._seen: tuple[int, ...] | None = None

    async def run(self) -> None:
        """Until cancelled; at once when there can be none."""
        if self._path is None:
            return
        try:
            while True:
                await self._look(self._path)
                await asyncio.sleep(_ROUND)
        finally:
            await asyncio.gather(*(self._stop(each) for each in self._exports.values()))

    async def status(self, _: NoParams) -> list[ExportStatus]:
        found = [each.status() for each in self._exports.values()]
        if self._problem:
            found.append(ExportStatus("", str(self._path), 0, 0, 0, self._problem))
        return found

    # ---- the file ------------------------------------------------------------------------------

    async def _look(self, path: Path) -> None:
        """What cannot be read changes nothing."""
        try:
            status = path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            wanted = parse(path.read_bytes(), str(path))
            self._problem = ""
        except OSError as error:
            self._complain(f"{path}: {error.strerror}")
            self._seen = None
            return
        except ConfigError as error:
            self._complain(str(error))
            return
        await self._change(wanted)

    def _complain(self, problem: str) -> None:
        if self._problem != problem:
            log.error("%s; exports stay as they are", problem)
        self._problem = problem

    async def _change(self, wanted: dict[str, ExportConfig]) -> None:
        for name, export in list(self._exports.items()):
            if wanted.get(name) == export.config:
                continue
            await self._stop(export)
            if name in wanted:  # it goes on where it was
                export.config, export.problem = wanted[name], ""
                self._start(export)
            else:
                del self._exports[name]
                log.info("export %s: ended", name)
        for name, config in wanted.items():
            if name not in self._exports:
                self._exports[name] = _Export(config)
                self._start(self._exports[name])
                log.info("export %s: begins", name)

    def _start(self, export: _Export) -> None:
        export.task = asyncio.create_task(self._keep_on(export))

    async def _stop(self, export: _Export) -> None:
        if export.task is not None:
            export.task.cancel()
            await asyncio.wait([export.task])

    # ---- one export ----------------------------------------------------------------------------

    async def _keep_on(self, export: _Export) -> None:
        """Until it has come to its end; whatever goes wrong is tried again."""
        while True:
            try:
                await self._export(export)
                return
            except FilterError as error:
                export.problem = str(error)
                log.error("export %s: %s; it exports nothing", export.config.name, error)
                return
            except ImportError as error:
                export.problem = f"{error}; {_REMEDY}"
                log.error("export %s: %s", export.config.name, export.problem)
                return
            except OSError as error:
                self._fail(export, error)
            except Exception as error:  # the other exports, and all else of this process, go on
                log.exception("export %s failed", export.config.name)
                export.problem = f"{type(error).__name__}: {error}"
            await asyncio.sleep(_RETRY)

    async def _export(self, export: _Export) -> None:
        config = export.config
        accepts = self._compile(config)
        export.position = export.position or self._reader.log.store.end()
        span = Span(follow=True, until=config.until, after=export.position)
        loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, f"export {config.name}")
        sink: Sink | None = None
        try:
            sink = await loop.run_in_executor(thread, make, config, self._reader.log.node)
            async with aclosing(self._reader.pages(span, accepts)) as pages:
                async for page in pages:
                    await self._put(export, sink, thread, page)
        finally:
            if sink is not None:
                thread.submit(sink.close)
            thread.shutdown(wait=False)

    async def _put(self, export: _Export, sink: Sink, thread: Executor, page: Page) -> None:
        export.position, missing = page.next, sum(each.num_events_lost for each in page.lost)
        export.lost += missing
        try:
            await self._deliver(export, sink, thread, page)
        except Exception:  # which nobody expects: it is not tried again, so that what comes behind gets out
            export.lost += len(page.records)
            export.undelivered += len(page.records)
            export.unsaid += len(page.records) + missing
            raise

    async def _deliver(self, export: _Export, sink: Sink, thread: Executor, page: Page) -> None:
        flows = []
        for start in range(0, len(page.records), _TURN):
            flows += self._encoder.flows(page.records[start : start + _TURN])
            await asyncio.sleep(0)
        lost = list(page.lost)
        if export.unsaid:
            lost.append(LostEvents("OBSERVER_EVENTS_QUEUE", "flows", export.unsaid))
        unsaid = export.unsaid + sum(each.num_events_lost for each in page.lost)
        now = f"{np.datetime_as_string(np.datetime64(time.time_ns(), 'ns'))}Z"
        try:
            put = partial(sink.put, flows, lost, self._reader.log.node, now)
            await asyncio.get_running_loop().run_in_executor(thread, put)
        except OSError as error:
            export.lost += len(flows)
            export.undelivered += len(flows)
            export.unsaid = unsaid + len(flows)
            self._fail(export, error)
            return
        export.exported += len(flows)
        export.unsaid = 0
        if export.problem:
            log.info("export %s: works again", export.config.name)
            export.problem = ""

    def _fail(self, export: _Export, error: OSError) -> None:
        problem = f"{error.filename or export.status().target}: {error.strerror or error}"
        if export.problem != problem:
            log.warning("export %s: %s; flows are lost meanwhile", export.config.name, problem)
        export.problem = problem


def compile_with_hubble(reader: Reader, site: Callable[[], Site]) -> Compile:
    """Filters as Hubble has them: ``flow.FlowFilter`` in the form of JSON."""

    def compiled(config: ExportConfig) -> Accepts:
        included = _messages("includeFilters", config.include_filters)
        excluded = _messages("excludeFilters", config.exclude_filters)
        return Filters(reader.log, site(), included, excluded).mask

    return compiled


def _messages(field_name: str, filters: Sequence[dict[str, Any]]) -> list[Any]:
    kind = message("flow.FlowFilter")
    try:
        return [ParseDict(each, kind()) for each in filters]
    except ParseError as error:
        raise FilterError(field_name, list(filters), f"a flow.FlowFilter of Hubble's: {error}") from None
