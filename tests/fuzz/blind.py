"""Where there is no atheris: the same mutations without a guide."""

from __future__ import annotations

import resource
import signal
import sys
import time
from pathlib import Path
from random import Random

from fuzz.mutate import mutated
from fuzz.target import Target


def run(target: Target, seconds: float, failed: str) -> None:
    """For so long; an input that fails is written to a file whose name begins with ``failed``."""
    random, examples = Random(), [*target.seeds(), *(path.read_bytes() for path in target.found())]
    limit = target.megabytes << 20
    resource.setrlimit(resource.RLIMIT_AS, (4 * limit, 4 * limit))
    until, count = time.monotonic() + seconds, 0

    def bytes_changed(data: bytes, longest: int) -> bytes:
        made = bytearray(data[:longest])
        for _ in range(random.randint(1, 8)):
            at = random.randint(0, len(made))
            made[at : at + random.choice((0, 0, 1, 8))] = random.randbytes(random.choice((0, 1, 1, 4)))
        return bytes(made[:longest])

    while time.monotonic() < until:
        data = random.choice(examples)
        for _ in range(random.choice((1, 1, 2, 5))):
            seed = random.getrandbits(32)
            data = (
                mutated(data, target.longest, seed, bytes_changed)
                if target.json
                else bytes_changed(data, target.longest)
            )
        signal.alarm(target.seconds)
        try:
            target.check(data)
        except BaseException:
            Path(f"{failed}crash").write_bytes(data)
            raise
        count += 1
    signal.alarm(0)
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)
