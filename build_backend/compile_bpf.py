"""Compiles bpf/*.bpf.c and the CNI plugin into the package, each only when its sources are newer.

Run as a program it does the same and says what it did. The compiler itself writes down what an object
includes, so nobody keeps such a list by hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "bpf"
OBJECTS = ROOT / "src" / "axoneme" / "datapath" / "objects"
PLUGIN, PLUGIN_SOURCE = ROOT / "src" / "axoneme" / "cni" / "bin" / "axo-cni", ROOT / "cni" / "axo-cni.c"
# The same objects wherever they are compiled: bpfel, as the wheel's tag promises; no path of this machine.
FLAGS = ["-O2", "-g", "-target", "bpfel", "-mcpu=v3", "-Wall", "-Werror", f"-ffile-prefix-map={ROOT}=."]


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


def current(target: Path, notes: Path) -> bool:
    """Whether the object is newer than this file and everything that it was made of."""
    try:
        made = target.stat().st_mtime_ns
        parts = notes.read_text().split()
        return made > max((ROOT / part).stat().st_mtime_ns for part in [__file__, *parts])
    except FileNotFoundError:
        return False


def included(rule: str) -> list[str]:
    """The files in the make rule that the compiler wrote; ours from ROOT on: a checkout may be copied."""
    return rule.replace("\\\n", " ").partition(": ")[2].replace(f"{ROOT}/", "").split()


def compile_one(source: Path, target: Path, notes: Path) -> None:
    # Another build may be doing the same: each has files of its own until they are complete.
    partial = target.with_suffix(f".{os.getpid()}.partial")
    rule = partial.with_suffix(".rule")
    try:
        command = [tool("clang"), *FLAGS, *include_directories(), "-MD", "-MF", rule]
        subprocess.run([*command, "-c", source, "-o", partial], check=True)
        # Drops DWARF, keeps BTF.
        subprocess.run([tool("llvm-strip"), "-g", partial], check=True)
        parts = partial.with_suffix(".parts")
        parts.write_text("\n".join(included(rule.read_text())))
        parts.rename(notes)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
        rule.unlink(missing_ok=True)


def compile_plugin() -> list[Path]:
    """The CNI plugin, which runs on the host and needs nothing there."""
    if PLUGIN.exists() and PLUGIN.stat().st_mtime_ns > PLUGIN_SOURCE.stat().st_mtime_ns:
        return []
    PLUGIN.parent.mkdir(parents=True, exist_ok=True)
    partial = PLUGIN.with_suffix(f".{os.getpid()}.partial")
    flags = ["-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror", f"-ffile-prefix-map={ROOT}=."]
    subprocess.run([tool("clang"), *flags, "-o", partial, PLUGIN_SOURCE], check=True)
    partial.rename(PLUGIN)
    return [PLUGIN]


def compile_all() -> list[Path]:
    """What was compiled now; empty when all was current."""
    OBJECTS.mkdir(parents=True, exist_ok=True)
    done = compile_plugin()
    for source in sorted(SOURCES.glob("*.bpf.c")):
        target = OBJECTS / source.name.replace(".bpf.c", ".o")
        notes = target.with_suffix(".made-of")
        if not current(target, notes):
            compile_one(source, target, notes)
            done.append(target)
    return done


if __name__ == "__main__":
    try:
        for path in compile_all():
            print(f"compiled {path.relative_to(ROOT)}")
    except (CompilerMissing, subprocess.CalledProcessError) as error:
        sys.exit(f"compile_bpf: {error}")
