"""What users install: a wheel with everything inside, that needs no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("clang-19") is None:
        pytest.skip("needs clang-19, which builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", "objects", "*.binpb", "node_modules"
    )
    shutil.copytree(ROOT, source, ignore=ignored, symlinks=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_it_holds_the_compiled_datapath_and_the_examples(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("endpoint", "overlay", "uplink"):
        assert f"axoneme/datapath/objects/{name}.o" in names
    if (ROOT / "src" / "axoneme" / "ui" / "static").exists():
        assert "axoneme/ui/static/index.html" in names
        assert any(name.startswith("axoneme/ui/static/assets/") for name in names)
    assert {"axoneme/hubble/proto/hubble.binpb", "axoneme/hubble/proto/flow/flow.proto"} <= names
    assert {"axoneme/examples/bakery/app.yaml", "axoneme/examples/bakery/policies.yaml"} <= names
    assert not any(name.startswith(("tests/", "bpf/")) for name in names)


def test_it_works_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import axoneme, sys; from axoneme.datapath.schema import Schema; from axoneme.cli import main;"
        "assert axoneme.__file__.startswith(sys.argv.pop()); Schema.load().struct('flow');"
        "from axoneme.hubble.schema import message; message('flow.Flow'); sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "version", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nonexistent"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "axoneme" in done.stdout
