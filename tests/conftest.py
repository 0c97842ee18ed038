"""What a test needs, by the folder that it stands in; and that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: Folders whose tests load programs into the kernel or make namespaces.
PRIVILEGED = ("datapath", "sandbox", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.path.relative_to(HERE).parts[0] in PRIVILEGED:
            item.add_marker(pytest.mark.skip(reason="needs root: sudo make test"))


def _traces() -> dict[str, set[str]]:
    """What tests make outside of their temporary folders, all of it named or placed so that it is ours."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    namespaces = Path("/run/netns")
    return {
        "network namespaces": {p.name for p in namespaces.glob("test-*")} if namespaces.is_dir() else set(),
        "bpffs mounts": {line.split()[1] for line in mounts if line.split()[2] == "bpf"},
        "sandboxes": {p.name for p in Path("/run/axoneme/sandbox").glob("test-*")},
    }


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = _traces()
    yield
    left = {what: sorted(names - before[what]) for what, names in _traces().items()}
    assert not any(left.values()), f"left behind: {left}"
