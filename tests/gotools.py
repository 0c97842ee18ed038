"""Clients that others have written in Go, for tests alone: built once, kept under build/tools.

Building them takes minutes, so `make test` uses them where they are, and `make test-all` builds what is
missing (or: python tests/gotools.py). Modules come from the module proxy that the machine's Go is set up for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "tools"


@dataclass(frozen=True)
class Tool:
    module: str
    version: str
    package: str = "."
    flags: str = ""
    program: Path | None = None  # of ours, to be built with what the module requires


TOOLS = {
    "hubble": Tool(
        "github.com/cilium/hubble", "v1.19.4", flags="-X github.com/cilium/cilium/hubble/pkg.Version=1.19.4"
    ),
    "hubble_count": Tool(
        "github.com/cilium/hubble", "v1.19.4", "./ours", program=ROOT / "bench" / "hubble_count.go"
    ),
    "grpcurl": Tool("github.com/fullstorydev/grpcurl", "v1.9.3", "./cmd/grpcurl"),
}


def build(name: str) -> Path:
    """In a copy of the module's sources: what they replace in their go.mod counts only there."""
    tool, target = TOOLS[name], FOLDER / name
    if target.exists():
        return target
    wanted = ["go", "mod", "download", "-json", f"{tool.module}@{tool.version}"]
    found = json.loads(subprocess.run(wanted, capture_output=True, check=True, cwd="/").stdout)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        shutil.copytree(found["Dir"], source)
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        if tool.program:
            (source / "ours").mkdir()
            shutil.copy(tool.program, source / "ours" / "main.go")
        FOLDER.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(f".{os.getpid()}")
        command = ["go", "build", "-o", str(draft), "-ldflags", f"-s -w {tool.flags}", tool.package]
        subprocess.run(command, cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        draft.rename(target)
    return target


def tool(name: str) -> Path:
    """Its program; skips the test where there is none."""
    if not (FOLDER / name).exists() and not os.environ.get("AXONEME_TEST_ALL"):
        pytest.skip(f"build/tools/{name} is not there: `make test-all` builds it, or python tests/gotools.py")
    try:
        return build(name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{name} cannot be built here: {error}")


if __name__ == "__main__":
    for each in sys.argv[1:] or TOOLS:
        print(build(each))
