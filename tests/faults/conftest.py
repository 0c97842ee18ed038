"""What fault tests share: the checker, compiled; a sandbox under traffic; the summary of what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import checkers
import pytest
from members import Members, members


@pytest.fixture(scope="session")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkers.compile_checker(tmp_path_factory.mktemp("checker"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Members]:
    with members("faults") as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := checkers.summary():
        terminalreporter.section("packets under faults")
        for line in lines:
            terminalreporter.write_line(line)
