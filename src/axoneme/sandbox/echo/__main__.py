"""`python -m axoneme.sandbox.echo SOCKET`"""

import sys
from pathlib import Path

from axoneme.sandbox.echo.server import run

run(Path(sys.argv[1]))
