"""`python -m axoneme.sandbox.dns NAME` serves the names of that sandbox; its supervisor starts it."""

import sys

from axoneme.sandbox.dns.server import run

run(sys.argv[1])
