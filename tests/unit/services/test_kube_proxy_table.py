"""The table in `docs/kube-proxy.md` names tests: they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = TESTS.parents[2] / "docs/kube-proxy.md"
FILES = {
    "C": "test_cluster.py",
    "F": "test_frontends.py",
    "P": "test_pod_ports.py",
    "E": "test_endpoint_choice.py",
    "K": "../../sandbox/test_kube_proxy.py",
    "R": "../../sandbox/test_pod_services.py",
}
#: A file's letter, and names of tests in it; with an ellipsis all that begin so.
_MENTION = re.compile(r"\b([CFPEKR])((?: `[a-z_]+…?`,?)*)")


def rows() -> list[list[str]]:
    lines = (line for line in TABLE.read_text().splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def mentions() -> list[str]:
    """What stands in the columns that name tests; a dash says that there is none, and perhaps why."""
    nothing = {"rule", "clients", "model"}
    return sorted({cell for row in rows() for cell in row[3:] if not cell.startswith("-")} - nothing)


def test_every_row_is_whole() -> None:
    assert len(rows()) > 50 and all(len(row) == 5 and all(row) for row in rows())


@pytest.mark.parametrize("rule", mentions())
def test_the_tests_are_there(rule: str) -> None:
    found = 0
    for letter, names in _MENTION.findall(rule):
        text = (TESTS / FILES[letter]).read_text()
        found += 1
        for name in re.findall(r"`([^`]+)`", names):
            whole = f"def test_{name}(" if not name.endswith("…") else f"def test_{name[:-1]}"
            assert whole in text, f"{FILES[letter]} has no {name}"
    for path in re.findall(r"`((?:tests/unit/agent/)?test_[a-z_]+\.py)`", rule):
        found += 1
        assert any(TESTS.parents[2].glob(f"tests/**/{Path(path).name}")), path
    assert found
