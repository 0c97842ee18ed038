"""Builds the web UI's page from ui/ into the package, when a source is another than what it was built of.

Run as a program it does the same and says what it did. With AXONEME_WITHOUT_UI=1 it does nothing: `axo ui`
then has its API, and no page.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "ui"
TARGET = ROOT / "src" / "axoneme" / "ui" / "static"
#: In the target: the digest of what it was built of.
STAMP = ".made-of"
#: What node_modules was installed from.
LOCK, INSTALLED = SOURCES / "package-lock.json", SOURCES / "node_modules" / ".axoneme-lock"
_NOT_SOURCES = {"node_modules"}
_OLDEST = (20, 19)
WITHOUT = "AXONEME_WITHOUT_UI"


class UiError(Exception):
    """The page cannot be built here."""


def build() -> list[Path]:
    """What was built now; empty when all was current, or is not wanted. `UiError`."""
    if os.environ.get(WITHOUT) == "1" or not SOURCES.is_dir():
        return []
    digest = _digest()
    stamp = TARGET / STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return []
    npm = _npm()
    partial = TARGET.with_name(f"static.{os.getpid()}.partial")
    try:
        if not INSTALLED.exists() or INSTALLED.read_text() != _of(LOCK):
            _run(npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")
            INSTALLED.write_text(_of(LOCK))
        _run(npm, "run", "--silent", "build", "--", "--logLevel=warn", "--emptyOutDir", f"--outDir={partial}")
        (partial / STAMP).write_text(digest)
        shutil.rmtree(TARGET, ignore_errors=True)
        partial.rename(TARGET)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [TARGET]


def _npm() -> str:
    npm, node = shutil.which("npm"), shutil.which("node")
    remedy = (
        f"install Node.js {'.'.join(map(str, _OLDEST))} or later with npm, or set {WITHOUT}=1 to go without"
    )
    if npm is None or node is None:
        raise UiError(f"npm is needed to build the web UI in {SOURCES}, and is not installed: {remedy}")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if version < _OLDEST:
        raise UiError(f"node {said} is too old to build the web UI: {remedy}")
    return npm


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=SOURCES, stdout=sys.stderr, check=False)
    if done.returncode:
        raise UiError(f"{' '.join(command)}: failed in {SOURCES}, with what it says above")


def _digest() -> str:
    """Of all sources, and of this file."""
    found = hashlib.sha256()
    for path in [Path(__file__), *_files(SOURCES)]:
        found.update(f"{path.relative_to(ROOT)}\0{_of(path)}\0".encode())
    return found.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in _NOT_SOURCES:
            yield from _files(path)
        elif path.is_file():
            yield path


def _of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        for path in build():
            print(f"built {path.relative_to(ROOT)}")
    except UiError as error:
        sys.exit(f"build_ui: {error}")
