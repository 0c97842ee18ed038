"""A container's way onto the network and off it, as whole processes of the CNI plugin.

Run as root: ``python bench/cni.py [pods]``. Prints a table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from agent import milliseconds, row
from one_node import Node, node

import axoneme.cni

PLUGIN = Path(axoneme.cni.__file__).parent / "bin" / "axo-cni"


def ask(agent: Node, command: str, name: str, netns: Path, previous: object = None) -> tuple[float, object]:
    """Seconds, and the answer; ``previous`` is that of ADD."""
    config = {
        "cniVersion": "1.1.0",
        "name": "net",
        "socket": str(agent.folder / "cni.sock"),
        "labels": {"app": name[-1]},
        "prevResult": previous,
    }
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": name,
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": str(netns),
    }
    began = time.monotonic()
    done = subprocess.run(
        [PLUGIN], input=json.dumps(config).encode(), env=environment, stdout=subprocess.PIPE, check=True
    )
    return time.monotonic() - began, json.loads(done.stdout or "null")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print("| what | measured | budget |")
    print("|---|---|---|")
    with node(cni_socket="FOLDER/cni.sock") as agent:
        agent.start()
        places = {f"pod-{number}": agent.namespaces.add(f"pod-{number}") for number in range(count)}
        added = {name: ask(agent, "ADD", name, place) for name, place in places.items()}
        times = [seconds for seconds, _ in added.values()]
        row(
            f"ADD, a whole process, pods 1 to {count}", milliseconds(times), "≤ 40 ms p50, the first included"
        )
        times = [ask(agent, "CHECK", name, place, added[name][1])[0] for name, place in places.items()]
        row("CHECK", milliseconds(times), "")
        times = [ask(agent, "DEL", name, place)[0] for name, place in places.items()]
        row("DEL", milliseconds(times), "≤ 30 ms")


if __name__ == "__main__":
    main()
