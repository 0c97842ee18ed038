"""Events a second on one core: out of the ring, named, stored, filtered; and what a follower costs.

Budget: at least 3 million events a second decoded and filtered. The ring is memory of this process, laid
out as the kernel lays it out; everything behind it is the flow server's own code.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from axoneme.datapath.ring import Ring
from axoneme.datapath.schema import Schema
from axoneme.flows.encode import Encoder
from axoneme.flows.events import Records, Vocabulary, record_dtype, take
from axoneme.flows.filters import Matcher
from axoneme.flows.flow import Item
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.ingest import Ingest
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests
from axoneme.flows.rules import RuleJournal
from axoneme.flows.servicenames import ServicePort
from axoneme.flows.store import FlowStore
from axoneme.flowserver import allocator

PODS = 200
SERVICES = 1000
BATCH = 16384
ROUNDS = 60

FILTERS = {
    "one pod, one port": FlowFilter(pod=("shop/web-7",), port=(8080,)),
    "dropped, to a namespace": FlowFilter(verdict=("dropped",), to_namespace=("shop",)),
    "a service": FlowFilter(to_service=("shop/service-7",)),
    "labels and a prefix": FlowFilter(label=("app=web-3,tier!=db",), ip=("10.244.0.0/16",)),
    "reserved identity, tcp": FlowFilter(identity=("world",), protocol=("tcp",)),
}


def pod(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes((10, 244, number // 250, 1 + number % 250))


def events(vocabulary: Vocabulary, seed: int = 7) -> Records:
    """Connections among pods, most of them by services, and every third to somewhere that is never the same."""
    rng = np.random.default_rng(seed)
    found = np.zeros(BATCH, vocabulary.event)
    pods = np.frombuffer(b"".join(map(pod, range(PODS))), np.uint8).reshape(-1, 16)
    source, destination = rng.integers(0, PODS, (2, BATCH))
    found["source"], found["destination"] = pods[source], pods[destination]
    outside = rng.random(BATCH) < 1 / 3
    found["destination"][outside, 12:] = rng.integers(1, 223, (int(outside.sum()), 4), np.uint8)
    found["source_identity"] = 256 + source
    found["destination_identity"] = np.where(outside, 2, 256 + destination)
    found["source_port"] = rng.integers(1024, 65535, BATCH)
    found["destination_port"] = rng.choice([80, 443, 8080, 5432], BATCH)
    found["protocol"] = rng.choice([6, 17], BATCH)
    found["kind"] = rng.choice([vocabulary.new, vocabulary.end], BATCH)
    found["egress_rule"] = rng.integers(0, 20, BATCH)
    found["time"] = np.cumsum(rng.integers(1, 1000, BATCH))
    found["started"] = found["time"] // 2
    found["tcp_flags"] = 2
    called = ~outside & (rng.random(BATCH) < 3 / 4)
    found["flags"][called] |= vocabulary.served
    found["frontend"], found["frontend_port"] = pods[rng.integers(0, PODS, BATCH)], 80
    found["service"] = np.where(called, rng.integers(1, SERVICES, BATCH), 0)
    found["backend"] = np.where(called, 10 * found["service"] + rng.integers(0, 10, BATCH), 0)
    return found


def kernel_ring(name: str, found: Records) -> tuple[Ring, Callable[[], None]]:
    """A ring that `refill` fills with the events again, at the place where the kernel would."""
    stride = found.dtype.itemsize + 8
    size = 1 << (BATCH * stride * 2 - 1).bit_length()
    data = np.zeros(2 * size, np.uint8)
    consumed, produced = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    cells = np.zeros((BATCH, stride), np.uint8)
    cells[:, :4] = np.array([found.dtype.itemsize], np.uint32).view(np.uint8)
    cells[:, 8:] = found.view(np.uint8).reshape(BATCH, -1)

    def refill() -> None:
        consumed[0] = 0
        produced[0] = BATCH * stride

    data[: BATCH * stride] = cells.ravel()
    return Ring(name, consumed, produced, data, found.dtype), refill


def rate(work: Callable[[], None], before: Callable[[], None] = lambda: None) -> float:
    """Million events a second: the median of rounds of one batch each."""
    times = []
    for _ in range(ROUNDS):
        before()
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return BATCH / float(np.median(times)) / 1e6


def main() -> None:
    allocator.keep()
    schema = Schema.load()
    vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
    names = Names(vocabulary.reserved, vocabulary.first_local)
    for number in range(PODS):
        labels = (f"k8s:app=web-{number % 20}", "k8s:io.kubernetes.pod.namespace=shop", "k8s:tier=front")
        names.put(
            f"state/endpoints/node1/{number}",
            [pod(number)],
            End(labels, "shop", f"web-{number}", "Deployment", f"web-{number % 20}", "node1"),
        )
    store = FlowStore(record_dtype(vocabulary.event), 65536, 16384)
    journal = RuleJournal(Path("/nonexistent"))
    for number in range(1, SERVICES):
        journal.services.put(number, ServicePort(f"shop/service-{number}", "http"))
    requests = Requests()
    ingest = Ingest(store, names, journal, requests, vocabulary)
    ring, refill = kernel_ring("flow_events", events(vocabulary))

    print(f"event {vocabulary.event.itemsize} bytes, record {store.dtype.itemsize}; batches of {BATCH}")
    copied = rate(ring.read, refill)
    taken = rate(lambda: ingest.flows(ring.read(), 10**18), refill)
    print(f"copied out of the ring                    {copied:7.2f} M/s")
    print(f"decoded: copied, stamped, named, stored   {taken:7.2f} M/s")
    records = store.flows.read(store.flows.next - BATCH, store.flows.next)
    for title, wanted in FILTERS.items():
        matcher = Matcher(
            [wanted],
            [],
            names=names,
            services=journal.services,
            requests=requests,
            node="node1",
            vocabulary=vocabulary,
        )
        filtered = rate(lambda matcher=matcher: matcher.mask(records))  # type: ignore[misc]
        both = 1 / (1 / taken + 1 / filtered)
        hits = int(matcher.mask(records).sum())
        print(f"filtered: {title:28} {filtered:9.2f} M/s, with decoding {both:6.2f} M/s ({hits} hits)")

    encoder = Encoder(names, lambda _: (), journal.services, requests, "node1", vocabulary)
    encode = msgspec.json.Encoder().encode
    page = take(records, np.arange(1024))
    began = time.thread_time()
    for _ in range(20):
        lines = [encode(Item(flow=flow, node_name="node1")) for flow in encoder.flows(page)]
    each = (time.thread_time() - began) / 20 / len(lines)
    print(f"made into JSON for a follower             {each * 1e6:7.2f} us a flow ({len(lines[0])} bytes)")

    little = events(vocabulary)[:200]
    began = time.thread_time()
    for _ in range(500):
        ingest.flows(little, 10**18)
    print(
        f"a poll with {len(little)} events                    {(time.thread_time() - began) / 500 * 1e6:7.0f} us"
    )


if __name__ == "__main__":
    main()
