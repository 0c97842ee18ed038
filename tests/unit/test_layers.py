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
    "lint": MODEL | {"policy", "identity"},
    "edges": MODEL | {"policy", "identity", "flows"},
    "datapath": PURE,
    "net": PURE,
    "sources": PURE,
    "flows": PURE | {"datapath", "sources"},
    "certificates": MODEL | {"sources"},
    "metrics": PURE | {"flows"},
    "hubble": PURE | {"flows", "sources", "certificates"},
    "history": PURE | {"flows", "sources"},
    "flowserver": EDGE | {"certificates", "metrics", "hubble", "history"},
    "relay": EDGE | {"certificates", "metrics", "hubble"},
    "capture": EDGE,
    "ui": EDGE | {"certificates", "edges", "health", "hubble", "history", "lint", "metrics", "relay"},
    "proxy": PURE | {"datapath", "sources"},
    "health": MODEL | {"net"},
    "agent": EDGE | {"certificates", "cni", "health", "hubble", "metrics"},
    "balancer": EDGE | {"agent"},
    "cni": MODEL,
    "operator": EDGE | {"certificates", "metrics"},
    "sandbox": EDGE | {"certificates", "operator"},
    "doctor": EDGE | {"agent", "certificates", "health"},
    "cli": EDGE
    | {"agent", "balancer", "doctor", "edges", "health", "lint", "operator", "sandbox"}
    | {"capture", "certificates", "flowserver", "history", "hubble", "metrics", "relay", "ui"},
}
NETWORK = {"socket", "select", "selectors", "ssl", "http", "urllib", "aiohttp", "pyroute2"}
FILES = {"os", "io", "pathlib", "shutil", "tempfile", "glob", "fcntl", "mmap", "sqlite3"}
PROCESSES = {"subprocess", "signal", "ctypes", "asyncio", "threading", "multiprocessing", "concurrent"}
CHANCE = {"time", "random", "secrets"}
IMPURE = NETWORK | FILES | PROCESSES | CHANCE
#: Modules of flows that touch the world; all its others are pure.
SHELL_OF_FLOWS = {"agentevents", "appended", "kernel", "rules"}
#: Functions of values that stand in modules which otherwise do I/O.
HARMLESS = {"socket.inet_ntop", "socket.inet_pton", "socket.AF_INET", "socket.AF_INET6"}


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


def is_pure(path: Path) -> bool:
    return package(path) in PURE | {"lint", "edges"} or (
        package(path) == "flows" and path.stem not in SHELL_OF_FLOWS
    )


def uses(path: Path) -> Iterator[str]:
    """Impure modules that are imported, each as what is used of it: ``time.monotonic``, or ``time`` alone."""
    tree = ast.parse(path.read_text())
    whole = {
        alias.asname or alias.name.split(".")[0]: alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] in IMPURE
    }
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in IMPURE:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole:
            used.add(node.value.id)
            yield f"{whole[node.value.id]}.{node.attr}"
    yield from (module for name, module in whole.items() if name not in used)


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
    sorted(path for path in modules() if is_pure(path)),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pure_packages_do_no_io(path: Path) -> None:
    touched = set(uses(path)) - HARMLESS
    assert not touched, f"{path.relative_to(ROOT)} uses {', '.join(sorted(touched))}"


def test_every_package_has_its_place_in_the_table() -> None:
    found = {package(path) for path in modules()}
    assert found <= ALLOWED.keys(), found - ALLOWED.keys()


def test_every_folder_with_modules_is_a_package() -> None:
    """Otherwise the wheel would come without it."""
    missing = {path.parent for path in modules() if not (path.parent / "__init__.py").exists()}
    assert not missing, f"no __init__.py in {missing}"
