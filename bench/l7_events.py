"""What it costs to tell of a request: at the proxy (redacted, encoded, sent), and at the flow server (received,
joined with its connection, kept).

Both ends in one process, each by its own processor time. The flow table is memory, with an entry for every
connection: a look-up in the kernel's costs about a microsecond more.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from axoneme.datapath.schema import Schema
from axoneme.flows.events import Mask, Vocabulary, record_dtype
from axoneme.flows.expiry import FlowTable
from axoneme.flows.ingest import Ingest
from axoneme.flows.joining import join
from axoneme.flows.kernel import lifetimes
from axoneme.flows.names import Names
from axoneme.flows.requests import Requests
from axoneme.flows.rules import RuleJournal
from axoneme.flows.store import FlowStore
from axoneme.flowserver.listening import Listening
from axoneme.model.l7event import HTTPEvent, L7Event
from axoneme.model.redaction import Redaction
from axoneme.proxy.events import EventSender

COUNT = 20_000


class Connections:
    """All there, all alike."""

    def __init__(self, schema: Schema) -> None:
        self.flow_key = schema.struct("flow_key")
        self._flow = np.zeros(1, schema.struct("flow"))

    def connections(self, keys: npt.NDArray[np.void]) -> tuple[Mask, npt.NDArray[np.void]]:
        return np.ones(len(keys), np.bool_), np.repeat(self._flow, len(keys))

    def identities(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        return np.zeros(len(addresses), np.uint32)


def event(number: int) -> L7Event:
    url = f"http://shop.example:8080/api/v1/items/{number}?page=2&token=0123456789abcdef"
    headers = (("user-agent", "curl/8.5.0"), ("x-request-id", "8b5c4f2e-41ac-4f8e-9b0a-3b0f0e6f4a3f"))
    http = HTTPEvent("GET", url, "HTTP/1.1", 200, headers)
    ends = ("10.0.0.1", 40000 + number % 1000, "10.0.0.2", 8080)
    return L7Event(
        time.time_ns(), "ingress", "TCP", *ends, "RESPONSE", "FORWARDED", latency_ns=3_000_000, http=http
    )


async def measure(together: int, events: list[L7Event], folder: Path) -> str:
    schema = Schema.load()
    vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
    meaning = FlowTable.read(schema.enums, lifetimes().tolist())
    store = FlowStore(record_dtype(vocabulary.event), 65536, 16384)
    names = Names(vocabulary.reserved, vocabulary.first_local)
    ingest = Ingest(store, names, RuleJournal(folder / "none"), Requests(), vocabulary)
    listening, known = Listening(folder / "l7.sock", "nobody"), Connections(schema)
    sender = EventSender(folder / "l7.sock", Redaction())
    sent = received = kept = 0.0
    async with listening.serving():
        for start in range(0, len(events), 64):
            began = time.thread_time()
            for place in range(start, start + 64, together):
                sender.send(*events[place : place + together])
            sent += time.thread_time() - began
            began = time.thread_time()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            received += time.thread_time() - began
            began = time.thread_time()
            if told := listening.take(2048):
                now = time.monotonic_ns()
                offset = time.time_ns() - now
                ingest.requests(join(told, known, meaning, vocabulary, now, offset), offset)
            kept += time.thread_time() - began
        sender.close()
    assert len(store.flows) == len(events) - sender.lost, "what was not kept is not lost either"
    each = (f"{seconds / len(events) * 1e6:6.1f}" for seconds in (sent, received, kept))
    return f"{together:3} a message  {'  '.join(each)}    {sender.lost} lost"


def main() -> None:
    events = [event(number) for number in range(COUNT // 64 * 64)]
    print("microseconds a request   sent  received  joined and kept")
    for together in (1, 16, 64):
        with tempfile.TemporaryDirectory() as folder:
            print(asyncio.run(measure(together, events, Path(folder))))


if __name__ == "__main__":
    main()
