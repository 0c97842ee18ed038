"""`python -m axoneme.cli` is `axo`."""

import sys

from axoneme.cli import main

sys.exit(main())
