"""Services at the socket under Debian's kernels: real calls, and flows and drops that name what was called.

It takes minutes under emulation: ``make test-kernels``.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from kernels.debian import PACKAGES, Unavailable, kernel
from kernels.guest import run

pytestmark = pytest.mark.skipif(
    not os.environ.get("AXONEME_TEST_KERNELS"), reason="takes minutes: make test-kernels"
)
#: Seconds for everything.
PATIENCE = 3000
TESTS = ("tests/datapath/test_sockets.py", "tests/sandbox/test_called_services.py")


@pytest.mark.parametrize("series", PACKAGES)
def test_calls_are_what_they_are_here(series: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f"test-kernel-{os.getpid()}-") as folder:
        try:
            outcome = run(
                kernel(series), [sys.executable, "-m", "pytest", "-q", *TESTS], Path(folder), PATIENCE
            )
        except Unavailable as error:
            pytest.skip(str(error))
    assert outcome.status == 0, outcome.explain()
    assert re.search(r"^\d{2,} passed in", outcome.output, re.MULTILINE), outcome.output
