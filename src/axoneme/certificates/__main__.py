"""``python -m axoneme.certificates AUTHORITY STORE``: see `axoneme.certificates.signer.serve`."""

import logging
import sys
from pathlib import Path

from axoneme.certificates.signer import serve

logging.basicConfig(
    stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
)
serve(Path(sys.argv[1]), Path(sys.argv[2]))
