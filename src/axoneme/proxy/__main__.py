"""``python -m axoneme.proxy KIND CONFIG``: a proxy by itself, as ``axo proxy KIND --config CONFIG``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from axoneme.proxy.plan import KINDS
from axoneme.proxy.process import run


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: python -m axoneme.proxy {'|'.join(KINDS)} CONFIG")
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form)
    run(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
