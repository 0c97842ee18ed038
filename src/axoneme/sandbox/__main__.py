"""`python -m axoneme.sandbox NAME` supervises that sandbox; `lifecycle.up` starts it."""

import sys

from axoneme.sandbox.supervisor import run

run(sys.argv[1])
