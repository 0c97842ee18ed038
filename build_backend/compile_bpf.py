"""Compiles bpf/*.bpf.c into the package, each object only when something that it may include is newer.

Run as a program it does the same and says what it did.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "bpf"
OBJECTS = ROOT / "src" / "axoneme" / "datapath" / "objects"
FLAGS = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"]


class CompilerMissing(Exception):
    """There is no clang that could compile the datapath."""


def tool(name: str) -> str:
    found = shutil.which(f"{name}-19") or shutil.which(name)
    if found is None:
        raise CompilerMissing(
            f"{name}-19 is needed to compile {SOURCES} and is not installed; `make setup` installs it"
        )
    return found


def include_directories() -> list[str]:
    """Where asm/types.h lives: Debian keeps it by architecture."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    candidates = [SOURCES, *([Path("/usr/include") / multiarch] if multiarch else [])]
    if not multiarch or not candidates[-1].is_dir():
        candidates += [p.parent for p in Path("/usr/include").glob("*-linux-gnu/asm")]
    return [f"-I{path}" for path in candidates if path.is_dir()]


def compile_all() -> list[Path]:
    """The objects that were compiled now; empty when all were current."""
    OBJECTS.mkdir(parents=True, exist_ok=True)
    newest = max(p.stat().st_mtime for p in [*SOURCES.glob("*.h"), *SOURCES.glob("*.bpf.c"), Path(__file__)])
    done = []
    for source in sorted(SOURCES.glob("*.bpf.c")):
        target = OBJECTS / source.name.replace(".bpf.c", ".o")
        if target.exists() and target.stat().st_mtime >= newest:
            continue
        partial = target.with_suffix(".partial")
        subprocess.run(
            [tool("clang"), *FLAGS, *include_directories(), "-c", source, "-o", partial], check=True
        )
        # Drops DWARF, keeps BTF.
        subprocess.run([tool("llvm-strip"), "-g", partial], check=True)
        partial.rename(target)
        done.append(target)
    return done


if __name__ == "__main__":
    try:
        for path in compile_all():
            print(f"compiled {path.relative_to(ROOT)}")
    except (CompilerMissing, subprocess.CalledProcessError) as error:
        sys.exit(f"compile_bpf: {error}")
