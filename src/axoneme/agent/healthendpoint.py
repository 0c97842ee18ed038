"""The node's health endpoint: an address in its pod range with nobody behind it, for others to try.

It is plugged in like a pod (a veth pair, the same programs, its own entries) into a network namespace
that only a file holds, and has the identity ``health`` (4), which policies select as they do any other.
The kernel answers its echo requests; for connections the agent listens in there, by a socket that was
opened inside. So when the agent is down, the way to the node's pods can still be told from the agent.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointRecord, EndpointTable
from axoneme.agent.pods import Link
from axoneme.health.answering import listen
from axoneme.identity.numbers import Reserved
from axoneme.ipam.pool import AddressError
from axoneme.ipam.pools import AddressPools
from axoneme.model.state import EndpointState, endpoint_key
from axoneme.net import netns, pods

log = logging.getLogger(__name__)

LINK: Final = "axo_health"
_CONTAINER, _INTERFACE = "health", "eth0"
#: Its number as an endpoint, the last that there is: pods are numbered from 1 on.
NUMBER: Final = 65535
#: Where in the node's range: out of the way of pods, which begin at the front.
_PLACE: Final = 254
_SYSCTLS: Final = {
    **netns.ENDPOINT_SYSCTLS,
    "ipv4/ip_forward": "0",  # a way in is no way through
    "ipv6/conf/all/forwarding": "0",
}


class HealthEndpoint:
    """``namespace`` is the file that holds its network namespace."""

    def __init__(
        self, node: str, namespace: Path, control: Control, endpoints: EndpointTable, link: Link
    ) -> None:
        self._node = node
        self._namespace = namespace
        self._control = control
        self._endpoints = endpoints
        self._link = link

    @property
    def record(self) -> EndpointRecord | None:
        return self._endpoints.records.get((_CONTAINER, _INTERFACE))

    def addresses(self) -> tuple[str, ...]:
        return tuple(self.record.state.addresses) if self.record else ()

    def prepare(self, pools: AddressPools) -> None:
        """Takes up what an earlier agent has plugged in, or takes addresses and has the policy compiled.

        Comes before the tables are written for the first time. AddressError when the range is full.
        """
        if self.record and not netns.held(self._namespace):
            pools.release(self._endpoints.link(self.record).addresses)
            self.remove()
        if self.record:
            return
        state = EndpointState(
            id=NUMBER,
            node=self._node,
            identity=Reserved.HEALTH,
            addresses=[str(address) for address in _allocate(pools)],
            labels=Reserved.HEALTH.labels.texts(),
            host_interface=LINK,
        )
        record = EndpointRecord(
            container_id=_CONTAINER,
            interface=_INTERFACE,
            namespace_path=str(self._namespace),
            mac=pods.mac_of(f"{self._node}/{_CONTAINER}", _INTERFACE),
            mtu=self._link.mtu,
            route_mtu=self._link.route_mtu,
            ifindex=0,
            state=state,
        )
        self._endpoints.records[record.container_id, record.interface] = record
        key = endpoint_key(self._node, NUMBER)
        self._control.endpoint_changed(key, state)
        self._control.local_subject(state.identity, key, True)

    async def plug(self) -> None:
        """Makes the namespace and the link, or mends them. Comes when the tables are written."""
        record = self.record
        if record is None:
            return
        if record.ifindex:
            if faults := self._endpoints.faults(record):
                log.warning("the health endpoint: %s; mended", "; ".join(faults))
                self._endpoints.mend(record)
            return
        netns.release(self._namespace)
        netns.make(self._namespace, _SYSCTLS)
        self._endpoints.remember(await self._endpoints.plug(record))

    def listeners(self) -> Iterator[socket.socket]:
        """For each of its addresses, in its namespace."""
        for address in self.addresses():
            yield listen(address, make=self._open)

    def _open(self, family: int, kind: int) -> socket.socket:
        return netns.open_socket(self._namespace, family, kind)

    def remove(self) -> None:
        """Leaves nothing of it; there need be nothing."""
        if record := self.record:
            self._endpoints.unplug(record)
            self._endpoints.forget(record)
            key = endpoint_key(self._node, NUMBER)
            self._control.endpoint_changed(key, None)
            self._control.local_subject(record.state.identity, key, False)
        pods.remove(LINK)
        netns.release(self._namespace)


def _allocate(pools: AddressPools) -> Iterable[pods.Address]:
    ranges = [pool.prefixes[0] for pool in pools.pools.values()]
    wanted = [prefix[min(_PLACE, prefix.num_addresses - 2)] for prefix in ranges]
    try:
        return pools.allocate(wanted)
    except AddressError:
        return pools.allocate()
