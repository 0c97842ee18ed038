"""What a test needs, by the folder that it stands in; and that nothing is left behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

# How fast examples come says how busy the machine is, and nothing about the tests.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# How long an example takes says something about the machine's load, not about the code.
hypothesis.settings.register_profile("axoneme", deadline=None)
hypothesis.settings.load_profile("axoneme")

HERE = Path(__file__).parent
#: Folders whose tests load programs into the kernel or make namespaces.
PRIVILEGED = ("datapath", "sandbox", "faults", "cluster", "kernels")
#: Where the sandboxes of tests live; all their names begin so.
SANDBOXES = "/run/axoneme/sandbox/test-"


def _missing() -> str:
    """What this process lacks for the privileged tests; empty when nothing."""
    if os.geteuid() != 0:
        return "needs root: sudo make test"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y)"
    capabilities = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if capabilities and not int(capabilities[1], 16) >> 21 & 1:
        return "needs CAP_SYS_ADMIN, which this container was not given"
    return ""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes long; runs in make test-all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("AXONEME_TEST_ALL"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes long: make test-all"))
    missing = _missing()
    if not missing:
        return
    for item in items:
        if item.path.relative_to(HERE).parts[0] in PRIVILEGED:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ours = tmp_path_factory.getbasetemp()
    before = _traces(ours)
    yield
    left = {what: sorted(found - before[what]) for what, found in _traces(ours).items()}
    left = {what: found for what, found in left.items() if found}
    assert not left, f"tests left behind: {left}"


def _traces(ours: Path) -> dict[str, set[str]]:
    """What tests make outside of their temporary folders, without what another test session makes now."""
    namespaces = Path("/run/netns")
    found = {
        "network namespaces": {each.name for each in namespaces.glob("test-*")}
        if namespaces.is_dir()
        else set(),
        "links": {name for _, name in socket.if_nameindex()},
        "filters": set(_filters()),
        "mounts": set(_mounts(ours)),
        "sandboxes": {each.name for each in Path(SANDBOXES).parent.glob("test-*")},
        "control groups": {str(each) for each in Path("/sys/fs/cgroup").glob("**/axoneme/test-*")},
        "processes": set(_processes()),
    }
    return {what: {name for name in names if not _of_another_session(name)} for what, names in found.items()}


def _filters() -> Iterator[str]:
    """Programs of ours on devices of this machine itself: its own network would be cut off."""
    if os.geteuid() != 0:
        return
    for _, name in socket.if_nameindex():
        for point in ("ingress", "egress"):
            command = ["tc", "filter", "show", "dev", name, point]
            if b"handle 0x61786f" in subprocess.run(command, check=False, capture_output=True).stdout:
                yield f"{name} {point}"


def _mounts(ours: Path) -> Iterator[str]:
    """Filesystems of BPF and files of network namespaces, where tests have them."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        named = re.search(rf"/test-\S*-{os.getpid()}\b", place)
        if kind in ("bpf", "nsfs") and (named or Path(place).is_relative_to(ours)):
            yield place


def _processes() -> Iterator[str]:
    """Those that name a sandbox of a test among their arguments."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if SANDBOXES in arguments or re.search(r"supervise test-", arguments):
            yield f"{folder.name}: {arguments.strip()}"


def _of_another_session(name: str) -> bool:
    """Whether the name holds the number of another process that runs tests, or uses their helpers."""
    for number in re.findall(r"test-\S*?-(\d+)\b", name):
        if int(number) == os.getpid():
            continue
        try:
            if b"python" in Path(f"/proc/{number}/cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False
