"""The flow server's view of the datapath: the pinned maps that it reads, and nothing else of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath.bpf import NotFound
from axoneme.datapath.btf import Btf
from axoneme.datapath.elf import Elf
from axoneme.datapath.maps import MappedArray, Table
from axoneme.datapath.ring import RingReader
from axoneme.datapath.schema import OBJECTS, Schema, SchemaError
from axoneme.flows.store import KernelLosses

_TABLES: Final = ("flows", "half_open", "translations", "half_open_translations")
#: The file in the node's state that tells the layout of what is pinned.
LAYOUT: Final = "datapath.layout"
_STRUCTS: Final = (
    *("event", "flow_key", "flow", "translation", "usage", "counter"),
    *("prefix_key", "address"),
)
#: Bits of an address: the whole of it is looked up.
_WHOLE: Final = 128
_NAMES: Final = (*_TABLES, "usage", "flow_events", "drop_events", "lost")


class OtherSchema(ValueError):
    """The maps are those of another release, whose records this one cannot read."""


class Kernel:
    """The maps, open. They belong to the agent; when it replaces them, `replaced` says so."""

    def __init__(self, maps: Path, schema: Schema) -> None:
        """Raises `axoneme.datapath.bpf.NotFound` while one of them is not there, and `OtherSchema`."""
        self._maps = maps
        try:
            self._open(maps, schema)
        except ValueError as error:
            raise OtherSchema(f"{maps} is of another release: {error}") from None

    def _open(self, maps: Path, schema: Schema) -> None:
        event = schema.struct("event")
        self._inodes = self._look()
        self.flow_events = RingReader.pinned(maps / "flow_events", event)
        self.drop_events = RingReader.pinned(maps / "drop_events", event)
        key, flow, translation = (schema.struct(each) for each in ("flow_key", "flow", "translation"))
        self.flow_key = key
        self.flows = Table.pinned(maps / "flows", key, flow)
        self.half_open = Table.pinned(maps / "half_open", key, flow)
        self.translations = Table.pinned(maps / "translations", key, translation)
        self.half_open_translations = Table.pinned(maps / "half_open_translations", key, translation)
        self.usage = MappedArray.pinned(maps / "usage", schema.struct("usage")).array
        self._lost = Table.pinned(maps / "lost", np.dtype(np.uint32), schema.struct("counter"))
        self._rings = schema.enum("ring")
        self._prefix = schema.struct("prefix_key")
        self._addresses: Table | None = None
        with suppress(NotFound):  # a load balancer knows nobody
            self._addresses = Table.pinned(maps / "addresses", self._prefix, schema.struct("address"))

    def connections(self, keys: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.void]]:
        """Which of these keys stand in the flow table, settled or half open, and their entries."""
        found, flows = self.flows.read(keys)
        if not found.all():
            others = np.flatnonzero(~found)
            found[others], flows[others] = self.half_open.read(keys[others])
        return found, flows

    def identities(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        """Of addresses, of shape (n, 16); 0 for those of which nothing is known."""
        numbers = np.zeros(len(addresses), np.uint32)
        if self._addresses is not None and len(addresses):
            keys = np.zeros(len(addresses), self._prefix)
            keys["prefix_length"], keys["address"] = _WHOLE, addresses
            numbers[:] = self._addresses.read(keys)[1]["identity"]
        return numbers

    def losses(self) -> KernelLosses:
        """Events that found their ring full, since the maps exist."""
        numbers, counts = self._lost.sums()
        lost = dict(zip(numbers.tolist(), counts["packets"].tolist(), strict=True))
        return KernelLosses(lost[self._rings["RING_FLOWS"]], lost[self._rings["RING_DROPS"]])

    def replaced(self) -> bool:
        """Whether other maps stand under the names now, or none."""
        return self._look() != self._inodes

    def close(self) -> None:
        for ring in (self.flow_events, self.drop_events):
            ring.close()
        for name in _TABLES:
            getattr(self, name).close()
        self._lost.close()
        if self._addresses is not None:
            self._addresses.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for name in _NAMES:
            try:
                found[name] = (self._maps / name).stat().st_ino
            except FileNotFoundError:
                found[name] = None
        return found


def fingerprint(schema: Schema) -> str:
    """Of all layouts that a flow server reads. The agent leaves it in `LAYOUT`, since to ask the kernel for
    the types of its maps takes more rights than this process has."""
    return schema.fingerprint(_STRUCTS)


def lifetimes(objects: Path = OBJECTS) -> npt.NDArray[np.uint32]:
    """How long an entry of the flow table lives, in ticks, by ``enum flow_state``: the constant in the
    programs that this package ships."""
    path = objects / "endpoint.o"
    image = path.read_bytes()
    elf = Elf(image, path.name)
    variable = Btf.of_object(image, path.name).variables.get("lifetime")
    section = elf.section(variable.section) if variable else None
    if variable is None or section is None:
        raise SchemaError(f"{path}: has no constant 'lifetime'; rebuild the objects (make bpf)")
    return np.frombuffer(section, np.uint32, variable.size // 4, variable.offset)
