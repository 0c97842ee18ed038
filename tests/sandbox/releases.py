"""Another release of the datapath: the same programs over tables of other layouts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import axoneme

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))
import compile_bpf  # noqa: E402

#: What is different in it: in ``tables.h``, each text once.
CHANGES: Mapping[str, str] = {
    "SCHEMA_VERSION = ": "SCHEMA_VERSION = 1",
    # Other places for all that follows; a field more; a wider one; one more in the events.
    "	__u32 epoch; /* sum": "	__u64 first_seen;\n	__u32 epoch; /* sum",
    "	__u32 ifindex; /* host side of its veth pair */\n	__u32 identity;\n	__u16 id;": (
        "	__u32 flags;\n	__u32 identity;\n	__u32 ifindex;\n	__u32 id;"
    ),
    "	__be16 port;\n	__u8 stands_for_low;": "	__u32 age;\n	__be16 port;\n	__u8 stands_for_low;",
    "	__be16 frontend_port;\n	__be16 backend_port;\n	__u32 service;": (
        "	__be16 frontend_port;\n	__be16 backend_port;\n	__u32 age;\n	__u32 service;"
    ),
    "	__u32 service; /* for callers within the cluster */": (
        "	__u32 since;\n	__u32 service; /* for callers within the cluster */"
    ),
    "MAGLEV_PLACES = 16381": "MAGLEV_PLACES = 251",
    "	__u64 time; /* CLOCK_MONOTONIC, ns */\n	__u8 source[16];": (
        "	__u64 time;\n	__u64 sequence;\n	__u8 source[16];"
    ),
    "	__u32 identity;\n	__u32 flags;   /* enum address_flag */": (
        "	__u64 flags;\n	__u32 identity;\n	__u32 cost;"
    ),
}


def build(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Compiles the other release's objects into a folder of `folder`."""
    sources, objects = folder / "bpf", folder / "objects"
    shutil.copytree(ROOT / "bpf", sources)
    objects.mkdir()
    tables = sources / "tables.h"
    text = tables.read_text()
    for before, after in CHANGES.items():
        assert text.count(before) == 1, f"tables.h has changed: {before!r}"
        text = text.replace(before, after)
    tables.write_text(text)
    patch.setattr(compile_bpf, "SOURCES", sources)
    for source in sources.glob("*.bpf.c"):
        target = objects / source.name.replace(".bpf.c", ".o")
        compile_bpf.compile_one(source, target, target.with_suffix(".made-of"))
    return objects


def package(folder: Path, objects: Path) -> Path:
    """The whole package with these objects in it, as another installation; what PYTHONPATH must name."""
    target = folder / "release"
    shutil.copytree(
        Path(axoneme.__file__).parent,
        target / "axoneme",
        ignore=shutil.ignore_patterns("__pycache__", "objects"),
    )
    shutil.copytree(objects, target / "axoneme/datapath/objects")
    return target
