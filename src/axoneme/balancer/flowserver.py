"""The flow server beside the load balancer: it takes ended connections out of the flow table, reports flows.

A process of its own, as on every node, with fewer privileges; it is started again when it ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from axoneme.balancer.config import MachineConfig

log = logging.getLogger(__name__)

#: Seconds until it is started again, and until it is killed when it does not end.
_PAUSE: Final = 1.0
_PATIENCE: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1


def settings(machine: MachineConfig) -> dict[str, Any]:
    """Its configuration. What it calls the shared state holds the names of pods; here there are none."""
    return {
        "node": machine.called,
        "directory": machine.directory,
        "bpffs": str(machine.bpffs_path),
        "state": machine.state,
        "store": {"kind": "sqlite", "path": f"{machine.state}/names.db"},
    }


async def run_flow_server(machine: MachineConfig) -> None:
    """Until cancelled."""
    path = machine.state_path / "flows.json"
    path.write_text(json.dumps(settings(machine)))
    while True:
        await _run(path)
        await asyncio.sleep(_PAUSE)


async def _run(path: Path) -> None:
    command = (sys.executable, "-P", "-m", "axoneme.cli", "flows", "serve", "--config", str(path))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, preexec_fn=_end_with_parent
    )
    try:
        code = await process.wait()
        log.error("the flow server ended with code %d; starting it again", code)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _PATIENCE)
            except TimeoutError:
                process.kill()
                await process.wait()


def _end_with_parent() -> None:
    """Also when that is killed: the next one starts its own."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
