"""Tiny programs, compiled when the tests run; a bpffs and a network namespace to try them in."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axoneme.datapath import bpffs
from axoneme.datapath.libbpf import Object

CLANG = shutil.which("clang-19") or shutil.which("clang")
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)

HEAD = """
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""

Compile = Callable[[str], Path]
Load = Callable[[str], Object]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs root" if os.geteuid() else "needs clang" if CLANG is None else ""
    for item in items:
        if reason and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def compile_program(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """From C source, without its usual head, to an object file; each source is compiled once."""
    made: dict[str, Path] = {}

    def compile_source(source: str) -> Path:
        if source not in made:
            assert CLANG is not None
            path = tmp_path_factory.mktemp("program") / "tiny.bpf.c"
            path.write_text(HEAD + source)
            target = path.with_suffix(".o")
            # Debian keeps <asm/types.h> under the machine's name.
            machine = f"/usr/include/{os.uname().machine}-linux-gnu"
            command: list[str | Path] = [
                CLANG,
                "-target",
                "bpf",
                "-mcpu=v3",
                "-g",
                "-O2",
                "-I",
                machine,
                "-c",
                path,
                "-o",
                target,
            ]
            subprocess.run(command, check=True)
            made[source] = target
        return made[source]

    return compile_source


@pytest.fixture
def load(compile_program: Compile) -> Iterator[Load]:
    """Compiles, opens and loads; closes when the test is over."""
    loaded: list[Object] = []

    def load_source(source: str) -> Object:
        loaded.append(Object.open(compile_program(source)))
        loaded[-1].load()
        return loaded[-1]

    yield load_source
    for item in loaded:
        item.close()


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of its own."""
    path = tmp_path / "bpf"
    bpffs.mount(path)
    yield path
    bpffs.unmount(path)


@pytest.fixture
def namespace() -> Iterator[None]:
    """This thread stands in a network namespace of its own, which goes when the test is over."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    unshare_network()
    try:
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


def unshare_network() -> None:
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
def interface(namespace: None) -> int:
    """The index of one end of a veth pair in the test's namespace."""
    return new_interface("one", "two")


def new_interface(name: str, peer: str) -> int:
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", peer], check=True)
    return socket.if_nametoindex(name)
