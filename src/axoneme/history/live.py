"""What flow servers have in memory, and what they see from now on, as Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from axoneme.flows.recordsrequest import RecordsRequest
from axoneme.flows.transfer import Parcel, Unpacker
from axoneme.history import columns
from axoneme.rpc import Client


def batches(flows: Path, request: RecordsRequest, requests: int = 1 << 16) -> Iterator[pa.RecordBatch]:
    """With the columns of `axoneme.history.schema`, some at a time; closing the iterator ends the stream.
    Raises `axoneme.rpc.RpcError`."""
    unpacker = Unpacker(requests)
    stream = cast(Any, Client(flows).stream("flows.records", request, Parcel))
    with closing(stream) as parcels:
        for parcel in parcels:
            records = unpacker.unpack(parcel)
            if len(records):
                yield columns.batch(unpacker.log, records)
