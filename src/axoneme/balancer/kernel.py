"""The kernel's side of the load balancer: programs on the uplinks, the machine's own addresses, services.

It is a node's, without pods: the agent's own parts do it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from axoneme.agent.balancer import Balancer as Writer
from axoneme.agent.config import AgentConfig, LoadBalancingConfig, TableConfig
from axoneme.agent.highmark import FILE_NAME as HIGHEST
from axoneme.agent.highmark import HighMark
from axoneme.agent.machine import Machine
from axoneme.balancer.config import MachineConfig
from axoneme.balancer.connections import Connections, Names
from axoneme.balancer.reports import ConnectionReport
from axoneme.datapath.plane import Datapath
from axoneme.flows.kernel import LAYOUT, fingerprint
from axoneme.flows.rules import FILE_NAME, RuleWriter
from axoneme.identity import arrays
from axoneme.identity.addressbook import HOST, Flag, Record
from axoneme.identity.prefixes import Prefix, prefix_of
from axoneme.services.balanced import Balanced
from axoneme.services.view import ServiceView
from axoneme.sources.config import StoreConfig


def as_node(machine: MachineConfig) -> AgentConfig:
    """What an agent of this machine would be told."""
    return AgentConfig(
        node=machine.called,
        directory=machine.directory,
        store=StoreConfig(),
        routing="native",
        families=machine.families,
        uplinks=machine.uplinks,
        bpffs=machine.bpffs,
        state=machine.state,
        cgroup=machine.cgroup,
        tcp_health=False,
        load_balancing=LoadBalancingConfig(acceleration=machine.acceleration),
        tables=TableConfig(**machine.tables),
    )


class Kernel:
    """Made once, by which the programs are at work, with the services that the tables hold already."""

    def __init__(self, config: MachineConfig) -> None:
        """`axoneme.sources.config.ConfigError`, `axoneme.net.commands.NetworkError` and
        `axoneme.datapath.libbpf.LoadError` say what this machine lacks."""
        node = as_node(config)
        self._machine = Machine(node)
        if not config.cgroup:
            self._machine.group = None
        self._uplinks = config.uplinks
        self._plane = Datapath.load(node.bpffs_path, self._machine.constants(), self._machine.sizes())
        self._machine.attach(self._plane)
        self._plane.take_over()
        (node.state_path / LAYOUT).write_text(fingerprint(self._plane.schema))
        self._plane.addresses.adopt()
        self._own: dict[Prefix, Record] = {}
        self._journal = RuleWriter(node.state_path / FILE_NAME)
        self._writer = Writer(
            self._plane, self._journal, HighMark(node.state_path / HIGHEST), node.tables.limits()
        )
        self._tell_own_addresses()
        self._connections = Connections(self._plane.schema)
        self._wanted: dict[tuple[str, str], Balanced] = {}

    # ---- what it shall do ----------------------------------------------------------------------

    def apply(self, wanted: Iterable[Balanced]) -> int:
        """These services from now on, and no others; how many entries that took."""
        after = {(each.name, each.port): each for each in wanted}
        changed = [each for name, each in after.items() if self._wanted.get(name) != each]
        self._writer.apply(changed, [name for name in self._wanted if name not in after])
        self._wanted = after
        return self._writer.reconcile() if self._writer.broken else self._writer.settle()

    def look_again(self) -> bool:
        """Whether the machine has other addresses than before: `apply` then, what is told has not changed."""
        changed = self._machine.look_again(self._plane)
        if changed:
            self._tell_own_addresses()
        self._journal.retry()
        self._writer.tidy()
        return changed

    def audit(self) -> Iterator[None]:
        """As `axoneme.datapath.plane.Datapath.audit`."""
        return self._plane.audit()

    def close(self) -> None:
        self._plane.close()

    def _tell_own_addresses(self) -> None:
        """What comes for them is the machine's, unless a service has the port."""
        own = [ip_address(text) for text in self._machine.state(()).addresses]
        after = {prefix_of(ip_network(address)): Record(HOST, b"", Flag.NODE) for address in own}
        table = self._plane.addresses
        if gone := self._own.keys() - after.keys():
            table.delete(arrays.key_array(list(gone), table.key))
        table.write(*arrays.entry_arrays(after, table.key, table.value))
        self._own = after
        self._writer.machines(own)

    # ---- what it does --------------------------------------------------------------------------

    def uplinks(self) -> dict[str, tuple[str, ...]]:
        """With their addresses."""
        return {name: tuple(map(str, self._machine.addresses_of(name))) for name in self._uplinks}

    @property
    def writes(self) -> int:
        """Entries of service tables since the start."""
        return self._writer.writes.total()

    @property
    def repairs(self) -> Counter[str]:
        return self._plane.repairs

    def views(self) -> Sequence[ServiceView]:
        return self._writer.services()

    def census(self) -> Counter[tuple[int, int]]:
        """Connections, by numbers of service and backend."""
        return self._connections.census(self._plane.flows, self._plane.half_open, time.monotonic_ns())

    def connections(
        self, names: Mapping[tuple[int, int], Names], limit: int
    ) -> tuple[int, list[ConnectionReport]]:
        plane = self._plane
        return self._connections.listed(plane.flows, plane.half_open, names, time.monotonic_ns(), limit)
