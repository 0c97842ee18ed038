"""Dependencies point downwards only, and the pure packages touch nothing outside of themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "src" / "axoneme"

#: What a package may import besides itself and `rpc`, which is a leaf that everybody may use.
MODEL = {"model"}
PURE = MODEL | {"policy", "identity", "services", "ipam"}
EDGE = PURE | {"datapath", "net", "sources", "flows", "proxy"}
ALLOWED = {
    "rpc": set(),
    "model": set(),
    "policy": MODEL,
    "identity": MODEL,
    "services": MODEL,
    "ipam": MODEL,
    "datapath": PURE,
    "net": PURE,
    "sources": PURE,
    "flows": PURE | {"datapath", "sources"},
    "proxy": PURE | {"datapath", "sources"},
    "agent": EDGE,
    "cni": MODEL,
    "sandbox": EDGE,
    "cli": EDGE | {"agent", "sandbox"},
}
IMPURE = {
    "socket",
    "subprocess",
    "asyncio",
    "threading",
    "multiprocessing",
    "time",
    "random",
    "os",
    "sqlite3",
}
IMPURE |= {"secrets", "shutil", "tempfile", "signal", "select", "fcntl", "ctypes", "mmap", "urllib", "http"}


def modules() -> Iterator[Path]:
    return (path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def imports(path: Path) -> Iterator[str]:
    """Also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (
                [f"axoneme.{a.name}" for a in node.names] if node.module == "axoneme" else [node.module]
            )


def package(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", sorted(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    own = package(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "axoneme" and len(parts) > 1 and parts[1] in ALLOWED:
            assert parts[1] in ALLOWED[own] | {own, "rpc"}, f"{own} imports {name}"


@pytest.mark.parametrize(
    "path",
    sorted(path for path in modules() if package(path) in PURE),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pure_packages_do_no_io(path: Path) -> None:
    touched = {name.split(".")[0] for name in imports(path)} & IMPURE
    assert not touched, f"{path.relative_to(ROOT)} imports {', '.join(sorted(touched))}"


def test_every_package_has_its_place_in_the_table() -> None:
    found = {package(path) for path in modules()}
    assert found <= ALLOWED.keys(), found - ALLOWED.keys()
