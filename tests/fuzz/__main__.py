"""``python -m fuzz NAME [SECONDS [PREFIX]]``: atheris guides mutations by the lines that they reach.

An input that fails is written to a file whose name begins with PREFIX.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# libFuzzer ends by exit(3), in which threads of a mathematical library may wait for each other for ever.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    import atheris
except ImportError:  # it is for x86_64 only, and not for every Python
    atheris = None

if atheris:
    with atheris.instrument_imports(include=["axoneme"], enable_loader_override=False):
        from fuzz.targets import TARGETS
else:
    from fuzz.targets import TARGETS

from fuzz import blind
from fuzz.mutate import mutated
from fuzz.target import Target


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz NAME [SECONDS [PREFIX]]; NAME is one of {', '.join(TARGETS)}")
    target = TARGETS[sys.argv[1]]
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 3600
    prefix = sys.argv[3] if len(sys.argv) > 3 else f"{target.name}-"
    if atheris:
        _guided(target, seconds, prefix)
    else:
        blind.run(target, seconds, prefix)


def _guided(target: Target, seconds: int, prefix: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        for number, seed in enumerate((*target.seeds(), *(path.read_bytes() for path in target.found()))):
            (Path(corpus) / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={prefix}",
            f"-max_len={target.longest}",
            f"-timeout={target.seconds}",
            f"-rss_limit_mb={target.megabytes}",
            "-verbosity=0",
            "-print_final_stats=1",
            corpus,
        ]
        mutator = _structured if target.json else None
        atheris.Setup([sys.argv[0], *options], target.check, custom_mutator=mutator)
        atheris.Fuzz()


def _structured(data: bytes, longest: int, seed: int) -> bytes:
    return mutated(data, longest, seed, atheris.Mutate)


if __name__ == "__main__":
    main()
