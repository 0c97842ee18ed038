"""What the kernel says of this process: the figures that client libraries of Prometheus give (proc(5))."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from axoneme.metrics.families import Collector, Counter, Family, Gauge

_SELF = Path("/proc/self")
_PAGE = resource.getpagesize()


def process_metrics(prefix: str) -> Collector:
    """``<prefix>_process_…``."""
    began = _began()

    def collect() -> Iterator[Family]:
        def gauge(name: str, help: str, value: float) -> Gauge:
            made = Gauge(f"{prefix}_process_{name}", help)
            made.set(value)
            return made

        spent = Counter(f"{prefix}_process_cpu_seconds_total", "User and system CPU time spent, in seconds")
        spent.add(by=time.process_time())
        yield spent
        size, resident = (int(each) * _PAGE for each in (_SELF / "statm").read_text().split()[:2])
        yield gauge("virtual_memory_bytes", "Virtual memory size in bytes", size)
        yield gauge("resident_memory_bytes", "Resident memory size in bytes", resident)
        yield gauge(
            "open_fds", "Number of open file descriptors", sum(1 for _ in (_SELF / "fd").iterdir()) - 1
        )
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield gauge("max_fds", "Maximum number of open file descriptors", most)
        yield gauge("start_time_seconds", "Start time of the process since 1970, in seconds", began)

    return collect


def _began() -> float:
    fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
