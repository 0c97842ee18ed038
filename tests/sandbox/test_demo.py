"""The demonstration, as its users run it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from axoneme.cli import demo
from axoneme.cli.place import Place
from axoneme.sandbox import lifecycle

SANDBOX = f"test-demo-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def removed() -> Iterator[None]:
    yield
    lifecycle.down(SANDBOX)


def run() -> tuple[int, str]:
    result = CliRunner().invoke(demo.demo, ["--sandbox", SANDBOX], obj=Place())
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_it_shows_verdicts_and_flows_and_leaves_the_sandbox() -> None:
    code, output = run()
    assert code == 0, output
    lines = output.splitlines()
    assert sum(line.endswith("   yes") for line in lines) == len(demo.ATTEMPTS)
    assert "(no flow)" not in output
    for policy in ("visitors", "closed", "orders", "ledger", "no-bad-neighbours"):
        assert any("POLICY_DEN" in line or "FORWARDED" in line for line in lines if policy in line)
    assert lifecycle.status(SANDBOX).ready


def test_a_verdict_that_was_not_expected_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = demo.Attempt("bakery/shop", "bakery/ledger", 5432, True)
    monkeypatch.setattr(demo, "ATTEMPTS", (*demo.ATTEMPTS[:2], wrong))
    code, output = run()
    assert code == 1, output
    assert "1 of 3 connections did not come to what was expected" in output
