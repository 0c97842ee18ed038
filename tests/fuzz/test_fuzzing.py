"""Every target under fire for a bounded time; an input that fails is shown, to be put into ``found``."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

TESTS = Path(__file__).resolve().parents[1]
#: For each target.
SECONDS = int(os.environ.get("AXONEME_FUZZ_SECONDS", "20"))


@pytest.mark.skipif(not os.environ.get("AXONEME_TEST_ALL"), reason="takes minutes: make test-all")
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_the_property(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", name, str(SECONDS), f"{tmp_path}/"],
        check=False,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["../src", "."])},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=10 * SECONDS + 120,
    )
    inputs = {path.name: base64.b64encode(path.read_bytes()[:4096]) for path in tmp_path.iterdir()}
    assert not inputs and done.returncode == 0, f"{inputs}\n{done.stderr[-4000:]}"
    assert "stat::number_of_executed_units" in done.stderr
