"""Every program of the package, as it is shipped, loads under the kernels of Debian, and has room to grow.

The kernels run at the same time, emulated; the real loader runs in them. ``AXONEME_RECORD=1`` (make programs)
writes what it found into docs/programs.md.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from bench import programs

from axoneme.datapath.footprint import STACK_LIMIT, STEPS_LIMIT
from axoneme.datapath.programs import ON_DEMAND, PROGRAMS
from kernels.debian import PACKAGES, Unavailable, kernel
from kernels.guest import Outcome, run

ALL = [program for each in (PROGRAMS | ON_DEMAND).values() for program in each]
#: Seconds for a boot and all loads under emulation, on a machine that does other things too.
PATIENCE = 900


def _loaded_in(series: str) -> Outcome:
    with tempfile.TemporaryDirectory(prefix=f"test-kernel-{os.getpid()}-") as folder:
        return run(kernel(series), [sys.executable, "bench/programs.py"], Path(folder), PATIENCE)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Mapping[str, Future[Outcome]]]:
    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        yield {series: pool.submit(_loaded_in, series) for series in PACKAGES}


@pytest.mark.parametrize("series", PACKAGES)
def test_every_program_loads(
    outcomes: Mapping[str, Future[Outcome]], series: str, summary: list[str]
) -> None:
    try:
        outcome = outcomes[series].result()
    except Unavailable as error:
        pytest.skip(str(error))
    found = [json.loads(line) for line in outcome.output.splitlines() if line.startswith("{")]
    functions = [programs.FunctionRow(**each) for document in found for each in document.pop("functions")]
    rows = [programs.Row(**document) for document in found]
    summary.extend(programs.compared(rows, programs.recorded(programs.PAGE.read_text())))

    refused = "\n".join(f"{row.program} on {series}: {row.refused}" for row in rows if row.refused)
    assert not refused, refused
    assert [row.program for row in rows] == ALL, outcome.explain()
    for row in rows:
        assert row.kernel == series
        assert row.steps <= programs.SHARE_OF_STEPS * STEPS_LIMIT, (
            f"{row.program} is too complex for {series}"
        )
        assert row.stack <= STACK_LIMIT, row
    if os.environ.get("AXONEME_RECORD"):
        programs.record(rows, list({each.name: each for each in reversed(functions)}.values())[::-1])


def test_the_table_names_every_program_under_every_kernel() -> None:
    known = programs.recorded(programs.PAGE.read_text())
    assert set(known) == {(series, program) for series in PACKAGES for program in ALL}, "make programs"
