"""The page's own tests: what it works out without a browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UI = Path(__file__).resolve().parents[3] / "ui"


def test_the_page_passes_its_own_tests() -> None:
    npm = shutil.which("npm")
    if npm is None or not (UI / "node_modules" / ".bin" / "vitest").exists():
        pytest.skip("npm, or what `make ui` installs with it, is not here")
    done = subprocess.run([npm, "test", "--silent"], cwd=UI, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
