"""The table of what programs cost is printed when the tests are over."""

from __future__ import annotations

import pytest

SUMMARY = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[SUMMARY]:
        terminalreporter.section("programs as loaded, and the difference to docs/programs.md")
        for line in config.stash[SUMMARY]:
            terminalreporter.line(line)


@pytest.fixture
def summary(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the end of the report."""
    return pytestconfig.stash[SUMMARY]
