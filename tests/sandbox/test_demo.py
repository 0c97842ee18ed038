"""The demonstration, as its users run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from axoneme.cli import demo, policytest
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
    calls = [line for line in lines if " http://" in line]
    assert len(calls) == 3
    assert all(line.endswith("   yes") for line in calls), "services by their names"
    assert sum(line.endswith("   yes") for line in lines) == 14 + 3
    for policy in ("visitors", "closed", "orders", "ledger", "no-bad-neighbours"):
        assert any("POLICY_DEN" in line or "FORWARDED" in line for line in lines if policy in line)
    assert lifecycle.status(SANDBOX).ready


def test_a_verdict_that_was_not_expected_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "from bakery/shop to bakery/ledger port 5432 -> denied by ledger"

    def otherwise(path: str) -> policytest.TestFile:
        text = Path(path).read_text()
        assert wrong in text
        return read(path, text.replace(wrong, wrong.replace("denied", "allowed")))

    read = policytest.read
    monkeypatch.setattr(policytest, "read", otherwise)
    code, output = run()
    assert code == 1, output
    assert "1 of 14 expectations were not fulfilled" in output
