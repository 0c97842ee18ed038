"""The objects of the datapath, loaded over one set of tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from axoneme.datapath import bpf, sockets
from axoneme.datapath.features import Feature, has
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import Table
from axoneme.datapath.tableset import TableSet

PROGRAMS: Final = {
    "endpoint": ("from_pod", "to_pod"),
    "uplink": ("from_uplink", "to_uplink"),
    "overlay": ("from_overlay", "to_overlay"),
    "socket": tuple(sockets.CALLS),
    "tcphealth": tuple(sockets.HEALTH),
}
#: What is loaded when it is needed (`axoneme.datapath.callers`, `xdp`, `hostfilter`).
ON_DEMAND: Final = {"callers": ("list_callers",), "xdp": ("from_wire",), "host": ("host_in", "host_out")}
#: Which object says what a table is: all have all of them.
FIRST: Final = next(iter(PROGRAMS))
#: Under which names successors look at their predecessors' tables (`bpf/succession.h`).
OLD: Final = {
    "old_flows": "flows",
    "old_half_open": "half_open",
    "old_nat": "translations",
    "old_half_open_nat": "half_open_translations",
}
TURN: Final = "turn"
#: Maps that only successors have, while they take over.
TRANSIENT: Final = (TURN, *OLD)


@dataclass(frozen=True, slots=True)
class Constants:
    """What the programs are told when they are loaded: ``config.h``. Ports are in host byte order."""

    overlay_ifindex: int = 0
    overlay_port: int = 8472
    underlay_ipv6: int = 0
    world_ipv4: int = 2
    world_ipv6: int = 2
    masquerade: int = 1
    nat_port_first: int = 1024
    nat_port_last: int = 32767
    flow_quota: int = 32768
    answer_denied: int = 0
    node_namespace: int = 0


class Programs:
    """Objects that are open; closing them leaves at work what is attached."""

    def __init__(self, objects: Mapping[str, Object], fds: Mapping[str, int]) -> None:
        self.objects = objects
        #: Maps by name; the file descriptors belong to the objects and the `TableSet`.
        self.fds = fds

    @classmethod
    def load(cls, folder: Path, constants: Constants, tables: TableSet, *, successor: bool = False) -> Self:
        """Uses what stands in `tables`, and makes the others. `axoneme.datapath.libbpf.LoadError` when the
        kernel refuses a program. A ``successor`` waits for its turn."""
        objects: dict[str, Object] = {}
        fds = dict(tables.standing)
        try:
            for name in PROGRAMS:
                item = objects[name] = Object.open(folder / f"{name}.o")
                for table in item.map_names:
                    if table in TRANSIENT and not successor:
                        item.omit(table)
                    elif table in fds:
                        item.use(table, fds[table])
                    elif table in OLD:
                        _look_back(item, table, tables)
                    elif table in tables.sizes:
                        item.set_max_entries(table, tables.sizes[table])
                item.set_constants(
                    **asdict(constants),
                    successor=int(successor),
                    refusals_have_reasons=int(has(Feature.SET_RETVAL)),
                )
                item.load()
                for table in item.map_names:
                    if successor or table not in TRANSIENT:
                        fds.setdefault(table, item.map_fd(table))
        except BaseException:
            for item in objects.values():
                item.close()
            raise
        return cls(objects, fds)

    def fd(self, name: str) -> int:
        """File descriptor of a program by its C name."""
        for item, programs in PROGRAMS.items():
            if name in programs:
                return self.objects[item].program_fd(name)
        raise KeyError(name)

    def id(self, name: str) -> int:
        return bpf.program_info(self.fd(name)).id

    def table(self, name: str) -> Table:
        return Table.of(self.objects[FIRST], name)

    def close(self) -> None:
        for item in self.objects.values():
            item.close()


def _look_back(item: Object, name: str, tables: TableSet) -> None:
    """Lets a successor see the predecessors' table, if its keys have the size that it looks for.

    If not, it sees an empty one, and takes for new what has not been carried over yet.
    """
    there = tables.replaced.get(OLD[name])
    if there is not None and there.key_size() == item.declaration(name).key_size:
        item.use(name, there.fd)
