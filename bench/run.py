"""Runs every program of this folder and writes what they print into docs/performance.md.

``python bench/run.py [PROGRAM…]``; root. With programs named, only their sections are replaced. Measure on
a quiet machine: ratios to a baseline of the same run bear noise, but not everything.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
#: In the order of the page, with what its section is called.
PROGRAMS = {
    "packet_cost": "A packet of an established connection",
    "network": "Over the network, against plain veth routing",
    "tcp_health": "TCP health at the sockets, with and without",
    "services": "Services, against kube-proxy's rules",
    "xdp": "The fast path",
    "services_agent": "Services by the whole agent",
    "l7": "HTTP through a policy",
    "l7_policies": "A policy above L4: from written to in force",
    "agent": "The agent",
    "cni": "Containers by the CNI plugin",
    "scale": "The agent in a large cluster",
    "dns_proxy": "Names through the DNS proxy",
    "kafka": "Kafka through the proxy",
    "flows_decode": "Flows: decoding and filtering",
    "flows": "Flows: from the packet to whoever follows",
    "hubble_api": "Flows: from the ring to clients of Hubble's API",
    "flow_metrics": "Flows: metrics made of them",
    "l7_events": "Requests: told by proxies, kept by the flow server",
    "store": "The shared state on SQLite",
}


def machine() -> str:
    system = platform.uname()
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    size = f"{int(memory[1]) >> 20} GiB" if memory else "?"
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} × {model[1] if model else system.machine}, {size}, Linux {system.release}"


def section(name: str, title: str, output: str) -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    body = output if output.startswith("|") else f"```\n{output}```\n"
    return f"## {title}\n`bench/{name}.py`, {when}, load before it {os.getloadavg()[0]:.1f}\n\n{body}"


def measure(name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True, check=True
    )
    print(done.stdout, flush=True)
    return done.stdout


def main() -> None:
    wanted = sys.argv[1:] or list(PROGRAMS)
    subprocess.run([sys.executable, str(HERE.parent / "build_backend" / "compile_bpf.py")], check=True)
    page = PAGE.read_text()
    page = re.sub(r"(?m)^Machine: .*$", f"Machine: {machine()}.", page)
    for name in wanted:
        title = PROGRAMS[name]
        print(f"== {title}", flush=True)
        made = section(name, title, measure(name)).rstrip() + "\n"
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin not in page:
            page += f"\n{begin}{end}\n"
        before, _, rest = page.partition(begin)
        page = before + begin + made + end + rest.partition(end)[2]
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
