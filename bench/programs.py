"""What each program of the datapath costs when it is loaded, kernel by kernel: docs/programs.md.

``python bench/programs.py`` loads every program on this kernel, alone, with all that can be switched on, and
prints one JSON object a line. The tests of tests/kernels run it under other kernels, and compare and write
the table.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "programs.md"
#: Beyond this part of the verifier's limit a program is refused here, before a kernel does it.
SHARE_OF_STEPS = 0.8


@dataclass(frozen=True, slots=True)
class Row:
    """One program under one kernel. `refused`: the verifier's reasons, and no figures then."""

    kernel: str  # series: "6.1"
    program: str
    instructions: int = 0
    native_bytes: int = 0
    stack: int = 0
    steps: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """One function, as the first program has it that contains it."""

    name: str
    instructions: int
    stack: int


def measure(kernel: str) -> Iterator[tuple[Row, Sequence[FunctionRow]]]:
    """Every program of the package on the running kernel; needs root."""
    from axoneme.datapath.footprint import footprint
    from axoneme.datapath.libbpf import LoadError, Object
    from axoneme.datapath.programs import ON_DEMAND, PROGRAMS, Constants
    from axoneme.datapath.schema import OBJECTS

    everything = asdict(Constants(overlay_ifindex=1, masquerade=1, answer_denied=1)) | {
        "refusals_have_reasons": 1
    }

    @contextmanager
    def loaded(name: str, program: str, *, statistics: bool = False, successor: int = 0) -> Iterator[Object]:
        with Object.open(OBJECTS / f"{name}.o") as item:
            given = everything | {"successor": successor}
            item.set_constants(**{key: value for key, value in given.items() if key in item.btf.variables})
            item.select([program])
            if statistics:
                item.keep_statistics()
            item.load()
            yield item

    for name, programs in (PROGRAMS | ON_DEMAND).items():
        for program in programs:
            try:
                for successor in (0, 1):  # also as it is while it takes over from another
                    with loaded(name, program, successor=successor):
                        pass
            except LoadError as error:
                yield Row(kernel, program, refused=f"{error}\n{error.diagnosis.log[-20000:]}"), ()
                continue
            with loaded(name, program, statistics=True) as item:
                found = footprint(item, program)
            figures = (found.instructions, found.native_bytes, found.stack, found.steps)
            functions = [FunctionRow(each.name, each.instructions, each.stack) for each in found.functions]
            yield Row(kernel, program, *figures), functions


def recorded(page: str) -> dict[tuple[str, str], Row]:
    """The rows of the table in the page."""
    line = re.compile(
        r"^\| (\d+\.\d+) \| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", re.MULTILINE
    )
    return {
        (kernel, program): Row(kernel, program, *(int(each.replace(",", "")) for each in figures))
        for kernel, program, *figures in line.findall(page)
    }


def table(rows: Iterable[Row]) -> str:
    lines = [
        "| kernel | program | instructions | machine code, bytes | deepest stack, bytes | verifier's steps |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = (row.instructions, row.native_bytes, row.stack, row.steps)
        lines.append(
            f"| {row.kernel} | `{row.program}` | " + " | ".join(f"{each:,}" for each in figures) + " |"
        )
    return "\n".join(lines) + "\n"


def compared(rows: Iterable[Row], known: dict[tuple[str, str], Row]) -> Iterator[str]:
    """The table for a terminal, each figure with its difference to the recorded one."""
    yield f"{'kernel':<7}{'program':<14}{'instructions':>20}{'code':>20}{'stack':>14}{'steps':>22}"
    for row in rows:
        before = known.get((row.kernel, row.program))

        def figure(what: str, width: int, row: Row = row, before: Row | None = before) -> str:
            now = getattr(row, what)
            change = now - getattr(before, what) if before else 0
            return f"{now:,}{f' ({change:+,})' if change else ''}{'' if before else ' (new)'}".rjust(width)

        if row.refused:
            yield f"{row.kernel:<7}{row.program:<14} refused"
        else:
            yield (
                f"{row.kernel:<7}{row.program:<14}{figure('instructions', 20)}{figure('native_bytes', 20)}"
                f"{figure('stack', 14)}{figure('steps', 22)}"
            )


def record(rows: Sequence[Row], functions: Sequence[FunctionRow]) -> None:
    """Puts the rows of one kernel into the page, in the place of those it had, and the functions."""
    page = PAGE.read_text()
    known = {**recorded(page), **{(row.kernel, row.program): row for row in rows}}
    series = sorted({kernel for kernel, _ in known}, key=lambda text: [int(part) for part in text.split(".")])
    order = [row.program for row in rows]
    kept = [known[kernel, program] for kernel in series for program in order if (kernel, program) in known]
    body = "| function | instructions | stack of its own, bytes |\n|---|---|---|\n" + "".join(
        f"| `{each.name}` | {each.instructions:,} | {each.stack} |\n" for each in functions
    )
    for mark, content in (("programs", table(kept)), ("functions", body)):
        page = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)",
            lambda found, content=content: found[1] + content + found[2],
            page,
            flags=re.DOTALL,
        )
    PAGE.write_text(page)


def main() -> None:
    kernel = ".".join(os.uname().release.split(".")[:2])
    for row, functions in measure(kernel):
        print(json.dumps({**asdict(row), "functions": [asdict(each) for each in functions]}), flush=True)
        print(f"{row.program}: {'refused' if row.refused else 'loaded'}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
