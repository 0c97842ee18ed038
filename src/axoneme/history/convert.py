"""The process that makes tables of spools, one after the other: ``python -m axoneme.history.convert SPOOL…``.

It is a process of its own so that the one that keeps history stays small, and so that reading and writing of
columns takes memory only for as long as that lasts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    os.nice(10)
    # One thread, and memory that goes back to the system: this has time.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    os.environ["OMP_NUM_THREADS"] = "1"
    from axoneme.history.tables import convert

    for each in arguments:
        try:
            convert(Path(each))
        except OSError as error:
            print(f"{each}: {error.strerror or error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
