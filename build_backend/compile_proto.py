"""Compiles src/axoneme/hubble/proto into one descriptor set beside it, when a source is newer.

From that set the program makes its message classes when it runs (`axoneme.hubble.schema`), so there is no
generated code. Run as a program it does the same and says what it did.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import as_file, files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "src" / "axoneme" / "hubble" / "proto"
TARGET = PROTO / "hubble.binpb"


class ProtoError(Exception):
    """The sources are wrong; the compiler has said where."""


def compile_all() -> list[Path]:
    """What was compiled now; empty when all was current."""
    sources = sorted(PROTO.glob("*/*.proto"))
    newest = max(path.stat().st_mtime_ns for path in [Path(__file__), *sources])
    if TARGET.exists() and TARGET.stat().st_mtime_ns > newest:
        return []
    from grpc_tools import protoc  # only here: whoever has the set needs no compiler

    partial = TARGET.with_suffix(f".{os.getpid()}.partial")
    try:
        with as_file(files("grpc_tools") / "_proto") as common:
            options = [f"-I{PROTO}", f"-I{common}", "--include_imports", f"--descriptor_set_out={partial}"]
            if protoc.main(["protoc", *options, *map(str, sources)]):
                raise ProtoError(f"{PROTO}: not compiled")
        partial.rename(TARGET)
    finally:
        partial.unlink(missing_ok=True)
    return [TARGET]


if __name__ == "__main__":
    try:
        for path in compile_all():
            print(f"compiled {path.relative_to(ROOT)}")
    except ProtoError as error:
        sys.exit(f"compile_proto: {error}")
