"""What metrics cost a flow: CPU time for each, beside that of taking it in, and what a scrape costs.

The events are those of `flows_decode`: 200 pods of 20 workloads, every third destination outside and never the
same. In batches as large as those of a busy node, and as small as those of a quiet one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import asyncio

from flows_decode import BATCH, PODS, events, pod

from axoneme.datapath.schema import Schema
from axoneme.flows.events import Records, Vocabulary, record_dtype, stamp
from axoneme.flows.names import End, Names
from axoneme.flowserver import allocator
from axoneme.metrics.exposition import exposition
from axoneme.metrics.flowmetrics import FlowMetrics
from axoneme.metrics.flowoptions import DEFAULT, settings

ROUNDS = 40
CASES: dict[str, Sequence[str]] = {
    "flow, without contexts": ("flow",),
    "drop, tcp, flow, port-distribution": ("drop", "tcp", "flow", "port-distribution"),
    "the default": DEFAULT,
    "flow by pod": ("flow:sourceContext=pod;destinationContext=pod",),
    "flow by pod, else address": ("flow:sourceContext=pod|ip;destinationContext=pod|ip",),
}


def some_names(vocabulary: Vocabulary) -> Names:
    names = Names(vocabulary.reserved, vocabulary.first_local)
    for number in range(PODS):
        labels = (f"k8s:app=web-{number % 20}", "k8s:io.kubernetes.pod.namespace=shop")
        end = End(labels, "shop", f"web-{number}", "Deployment", f"web-{number % 20}", "node1")
        names.put(f"state/endpoints/node1/{number}", [pod(number)], end)
    return names


def nanoseconds(metrics: FlowMetrics, records: Records, size: int) -> float:
    """A record, the median of rounds."""
    times = []
    parts = [records[at : at + size] for at in range(0, len(records), size)]
    parts = parts[: max(1, min(len(parts), 200))]
    count = sum(map(len, parts))
    for _ in range(ROUNDS if size > 1000 else 5):
        began = time.thread_time_ns()
        for part in parts:
            metrics.add(part)
            metrics.count()
        times.append(time.thread_time_ns() - began)
    return float(np.median(times)) / count


def main() -> None:
    allocator.keep()
    schema = Schema.load()
    vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
    names = some_names(vocabulary)
    records = stamp(events(vocabulary), record_dtype(vocabulary.event), 10**18)
    names.resolve(records)
    print(f"{BATCH} flows; ns of CPU a flow, by how many are counted at once")
    print(f"{'':36}{4096:>8}{512:>8}{64:>8}   series")
    for title, texts in CASES.items():
        metrics = FlowMetrics(settings(texts), names, vocabulary, names.has_pod)
        costs = [nanoseconds(metrics, records, size) for size in (4096, 512, 64)]
        count = sum(len(family) for metric in metrics._metrics for family in metric.families)
        print(f"{title:36}{costs[0]:8.0f}{costs[1]:8.0f}{costs[2]:8.0f}{count:9}")
    began = time.thread_time()
    text = asyncio.run(exposition(metrics.families(), openmetrics=True, packed=True))
    print(
        f"a scrape of {count} series: {(time.thread_time() - began) * 1e3:.0f} ms, {len(text) >> 10} KiB by gzip"
    )


if __name__ == "__main__":
    main()
