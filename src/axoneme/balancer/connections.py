"""The connections that the flow table holds, by service and backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from axoneme.balancer.reports import ConnectionReport
from axoneme.datapath.maps import Table
from axoneme.datapath.plane import unpacked
from axoneme.datapath.schema import Schema
from axoneme.flows.expiry import FlowTable
from axoneme.flows.kernel import lifetimes

#: Entries of the flow table that are looked at at once.
_CHUNK: Final = 4096
_PROTOCOLS: Final = {6: "TCP", 17: "UDP", 132: "SCTP"}


_Rows = npt.NDArray[np.void]


class Names(NamedTuple):
    """What a pair of numbers in a flow stands for."""

    service: str
    backend: str


class Connections:
    """Reads the flow tables; entries that are over, and not taken out yet, do not count.

    Of those that only one side has begun none do, but where backends answer clients by themselves: nobody
    here hears more.
    """

    def __init__(self, schema: Schema) -> None:
        self._meaning = FlowTable.read(schema.enums, lifetimes().tolist())
        flags = schema.enum("flow_flag")
        self._from_low, self._masqueraded = flags["FLOW_FROM_LOW"], flags["FLOW_MASQUERADED"]
        self._wrapped = flags["FLOW_WRAPPED"]
        self._states = {
            number: name.removeprefix("FLOW_").lower().replace("_", "-")
            for name, number in schema.enum("flow_state").items()
        }

    def census(self, flows: Table, half_open: Table, now: int) -> Counter[tuple[int, int]]:
        """How many there are, by numbers of service and backend. ``now``: CLOCK_MONOTONIC, ns."""
        found: Counter[tuple[int, int]] = Counter()
        for _, values in self._live(flows, half_open, now):
            pairs = values["service"].astype(np.uint64) << np.uint64(32) | values["backend"]
            for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
                found[int(pair) >> 32, int(pair) & 0xFFFFFFFF] += int(count)
        return found

    def listed(
        self,
        flows: Table,
        half_open: Table,
        names: Mapping[tuple[int, int], Names],
        now: int,
        limit: int,
    ) -> tuple[int, list[ConnectionReport]]:
        """How many have one of these pairs of numbers, and the oldest of them."""
        wanted = np.fromiter((service << 32 | backend for service, backend in names), np.uint64, len(names))
        keys, values = [], []
        for some_keys, some in self._live(flows, half_open, now):
            pairs = some["service"].astype(np.uint64) << np.uint64(32) | some["backend"]
            chosen = np.isin(pairs, wanted)
            keys.append(some_keys[chosen])
            values.append(some[chosen])
        if not keys:
            return 0, []
        all_keys, all_values = np.concatenate(keys), np.concatenate(values)
        oldest = np.argsort(all_values["created"], kind="stable")[:limit]
        pairs = zip(all_keys[oldest], all_values[oldest], strict=True)
        return len(all_values), [self._report(key, value, names, now) for key, value in pairs]

    def _live(self, flows: Table, half_open: Table, now: int) -> Iterator[tuple[_Rows, _Rows]]:
        for table in (flows, half_open):
            for keys, values in table.batches(_CHUNK):
                live = (values["service"] != 0) & ~self._meaning.due(values, now)
                live &= values["state"] != self._meaning.closed
                if table is half_open:
                    live &= (values["flags"] & self._wrapped) != 0
                yield keys[live], values[live]

    def _report(
        self, key: Any, value: Any, names: Mapping[tuple[int, int], Names], now: int
    ) -> ConnectionReport:
        service, backend = names[int(value["service"]), int(value["backend"])]
        near, far = ("low", "high") if value["flags"] & self._from_low else ("high", "low")
        client = _end(key[near], key[f"{near}_port"])
        masked = value["flags"] & self._masqueraded
        legs = value["leg"]
        return ConnectionReport(
            service=service,
            backend=backend,
            protocol=_PROTOCOLS.get(int(key["protocol"]), str(key["protocol"])),
            client=client,
            frontend=_end(value["frontend"], value["frontend_port"]),
            source=_end(value["nat_address"], value["nat_port"]) if masked else client,
            server=_end(key[far], key[f"{far}_port"]),
            state=self._states.get(int(value["state"]), "unknown"),
            age=max(0, now - int(value["created"])) / 1e9,
            idle=self._seconds((now >> self._meaning.tick_shift) - int(value["seen"])),
            packets=(int(legs["packets"][0]), int(legs["packets"][1])),
            bytes=(int(legs["bytes"][0]), int(legs["bytes"][1])),
        )

    def _seconds(self, ticks: int) -> float:
        return (max(0, ticks) << self._meaning.tick_shift) / 1e9


def _end(address: npt.NDArray[np.uint8], port: np.integer[Any]) -> str:
    found = unpacked(bytes(address))
    return f"[{found}]:{int(port)}" if found.version == 6 else f"{found}:{int(port)}"
