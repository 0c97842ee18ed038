"""The demonstration, from end to end, under Debian's kernels: two nodes, real agents and flow servers, an
overlay between them, policies that allow and deny over both families, flows that name them.

It takes minutes under emulation: ``make test-kernels``.
"""

from __future__ import annotations

import json
import os
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
#: Under emulation the verifier takes a minute for what takes a second.
COMMAND = """
.venv/bin/axo demo --timeout 2400
code=$?
.venv/bin/axo --sandbox demo status -o json >/run/answer/status.json
tail -n 5 /run/axoneme/sandbox/demo/logs/*-agent.log
exit $code
"""


@pytest.mark.parametrize("series", PACKAGES)
def test_the_demonstration_comes_to_what_it_should(series: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f"test-kernel-{os.getpid()}-") as folder:
        try:
            outcome = run(kernel(series), ["/bin/sh", "-c", COMMAND], Path(folder), PATIENCE, cpus=2)
        except Unavailable as error:
            pytest.skip(str(error))
        assert outcome.status == 0, outcome.explain()
        status = json.loads((Path(folder) / "answer" / "status.json").read_text())
    assert "allowed by NetworkPolicy bakery/visitors" in outcome.output, outcome.explain()
    assert "DROPPED POLICY_DENIED" in outcome.output
    assert status["well"], status["troubles"]
    for node in status["nodes"]:
        assert node["agent"]["kernel"].startswith(f"{series}.")
        lacks = [sentence for sentence in node["agent"]["kernel_lacks"] if "tcx" in sentence]
        assert bool(lacks) is (series == "6.1")
    assert ("this kernel has no tcx links" in outcome.output) is (series == "6.1"), "in the agents' logs"
