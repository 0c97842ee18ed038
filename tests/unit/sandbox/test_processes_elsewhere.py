"""Processes are started in whatever folder the user is in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from axoneme.sandbox.plan import Plan


@pytest.mark.parametrize("command", [Plan(name="x").agent_command, Plan(name="x").flows_command])
def test_modules_in_the_user_s_folder_are_not_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    for module in ("click", "msgspec", "yaml", "dns"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('somebody else')")
    done = subprocess.run(
        [*command, str(tmp_path / "none.yaml")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "somebody else" not in done.stderr
    assert "none.yaml" in done.stderr
