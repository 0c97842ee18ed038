"""Real manifests, written elsewhere, that tests run on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: Beside the project, or where the environment says.
FOLDER = Path(
    os.environ.get("AXONEME_MANIFESTS")
    or Path(__file__).resolve().parents[2] / "shared" / "data" / "manifests"
)


def folder(name: str) -> Path:
    """A collection of manifests; skips the test where it is missing."""
    path = FOLDER / name
    if not path.is_dir():
        pytest.skip(f"needs the manifests of {name} in {FOLDER} (or in $AXONEME_MANIFESTS)")
    return path


def text(*paths: Path) -> str:
    return "\n---\n".join(path.read_text() for path in paths)
