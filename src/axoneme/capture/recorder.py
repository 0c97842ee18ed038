"""Holds packets until their flows are known, and writes those that are wanted, in order of time.

A packet is there before its flow server has told of its connection, so each waits `HOLD`. Those of several
nodes leave in one order.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from axoneme.capture import packets, pcapng
from axoneme.capture.chosen import Chosen, names
from axoneme.capture.packets import Packet
from axoneme.capture.taps import Seen
from axoneme.flows import render
from axoneme.flows.flow import Flow

#: Nanoseconds: longer than it takes for a flow from the kernel through a flow server to us.
HOLD: Final = 1_000_000_000
#: How long a packet that came in is known when it goes out, and the pieces of a datagram belong together.
_THROUGH: Final = 1_000_000_000
_REMEMBERED: Final = 65536
#: Bytes of packets that wait; beyond, the oldest are looked at before their time.
_WAITING: Final = 256 << 20


#: By node and device: what is behind it.
Describe = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Limits:
    """``size``: bytes of the file; ``snap_length``: of a packet; ``packets``: how many. 0: any."""

    snap_length: int = 262144
    size: int = 100_000_000
    packets: int = 0


@dataclass(slots=True)
class _Interface:
    number: int
    passed: int = 0
    written: int = 0


@dataclass(slots=True)
class _Node:
    chosen: Chosen = field(default_factory=Chosen)
    interfaces: dict[str, _Interface] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    came_in: dict[bytes, int] = field(default_factory=dict)
    pieces: dict[bytes, tuple[packets.End, packets.End]] = field(default_factory=dict)
    lost: int = 0


class Recorder:
    """Writes to ``file``. ``every_device``: also packets that go out of a node where they were seen coming
    in. Times are nanoseconds since 1970."""

    def __init__(
        self,
        file: BinaryIO,
        limits: Limits,
        comment: str,
        describe: Describe,
        every_device: bool = False,
    ) -> None:
        self._file = file
        self._limits = limits
        self._describe = describe
        self._every_device = every_device
        self._nodes: dict[str, _Node] = {}
        self._waiting: list[tuple[int, int, str, Seen, Packet]] = []
        self._bytes = 0
        self._order = itertools.count()
        self._interfaces = 0
        self._named: dict[bytes, str] = {}
        self._comments: dict[int, tuple[Flow, str]] = {}
        self.size = 0
        self.written = 0
        #: Why nothing more is written; empty while something is.
        self.full = ""
        kernel = os.uname()
        system = f"{kernel.sysname} {kernel.release}"
        self._write(pcapng.section("axo capture", system, comment))

    # ---- what comes in -------------------------------------------------------------------------

    def hear(self, node: str, flow: Flow, time: int) -> None:
        """A flow that is wanted."""
        self._node(node).chosen.add(flow, time)

    def see(self, node: str, seen: Iterable[Seen]) -> None:
        here = self._node(node)
        for each in seen:
            here.passed[each.interface] = here.passed.get(each.interface, 0) + 1
            packet = (packets.of_frame if each.ethernet else packets.of_ip)(each.data)
            if packet is None or self._was_seen(here, each, packet):
                continue
            cut = each._replace(data=each.data[: self._limits.snap_length])
            heapq.heappush(self._waiting, (each.time, next(self._order), node, cut, _whole(here, packet)))
            self._bytes += len(cut.data)
        while self._bytes > _WAITING:
            self._next()

    def lose(self, node: str, count: int) -> None:
        """Packets that came by too fast."""
        self._node(node).lost += count

    def lost(self) -> dict[str, int]:
        """How many of them, of the nodes that had some."""
        return {name: each.lost for name, each in self._nodes.items() if each.lost}

    def _was_seen(self, here: _Node, seen: Seen, packet: Packet) -> bool:
        if self._every_device:
            return False
        if seen.outgoing:
            return seen.time - here.came_in.get(packet.identity, -_THROUGH) < _THROUGH
        while len(here.came_in) >= _REMEMBERED:
            del here.came_in[next(iter(here.came_in))]
        here.came_in[packet.identity] = seen.time
        return False

    # ---- what goes out -------------------------------------------------------------------------

    def settle(self, now: int) -> None:
        """What has waited long enough by then; whoever reads the file meanwhile sees it."""
        before = self.size
        while self._waiting and self._waiting[0][0] <= now - HOLD and not self.full:
            self._next()
        if self.size != before:
            self._file.flush()
        for here in self._nodes.values():
            here.chosen.forget(now - 2 * HOLD)

    def finish(self, now: int) -> None:
        """Writes what is left, and what each interface had."""
        while self._waiting and not self.full:
            self._next()
        for here in self._nodes.values():
            lost = f"{here.lost} packets of this node came too fast and are missing" if here.lost else ""
            for name, interface in here.interfaces.items():
                passed = here.passed[name]
                self._write(pcapng.statistics(interface.number, now, passed, interface.written, lost))
        self._file.flush()

    def _next(self) -> None:
        time, _, node, seen, packet = heapq.heappop(self._waiting)
        self._bytes -= len(seen.data)
        here = self._nodes[node]
        flow = here.chosen.find(packet, time)
        if flow is None:
            return
        interface = self._interface(node, here, seen)
        self._name(flow)
        dropped = {"DROPPED": True, "FORWARDED": False}.get(flow.verdict)
        direction = pcapng.OUTBOUND if seen.outgoing else pcapng.INBOUND
        block = pcapng.packet(
            interface.number, time, seen.data, seen.length, direction, self._comment(flow), dropped
        )
        if self._limits.size and self.size + len(block) > self._limits.size:
            self.full = f"the file has {self._limits.size} bytes"
            return
        self._write(block)
        self.written += 1
        interface.written += 1
        if self.written == self._limits.packets:
            self.full = f"{self.written} packets are written"

    def _interface(self, node: str, here: _Node, seen: Seen) -> _Interface:
        known = here.interfaces.get(seen.interface)
        if known is None:
            known = here.interfaces[seen.interface] = _Interface(self._interfaces)
            self._interfaces += 1
            link = pcapng.ETHERNET if seen.ethernet else pcapng.RAW_IP
            self._write(
                pcapng.interface(
                    link,
                    self._limits.snap_length,
                    f"{node}:{seen.interface}",
                    self._describe(node, seen.interface),
                )
            )
        return known

    def _name(self, flow: Flow) -> None:
        new = {address: name for address, name in names(flow) if self._named.get(address) != name}
        if new:
            self._named |= new
            self._write(pcapng.names(new))

    def _comment(self, flow: Flow) -> str:
        known = self._comments.get(id(flow))
        if known is not None and known[0] is flow:
            return known[1]
        if len(self._comments) >= _REMEMBERED:
            self._comments.clear()
        made = comment(flow)
        self._comments[id(flow)] = flow, made
        return made

    def _write(self, block: bytes) -> None:
        self._file.write(block)
        self.size += len(block)

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())


def comment(flow: Flow) -> str:
    """What stands beside a packet: verdict, ends, policies and labels, a line each."""
    lines = [
        " ".join(filter(None, (flow.verdict, flow.drop_reason_desc, f"seen by {flow.node_name}"))),
        f"{render.source(flow)} -> {render.destination(flow)}",
        *render.decisions(flow),
    ]
    if flow.proxy_port:
        lines.append(f"proxy at port {flow.proxy_port}")
    for what, end in (("source", flow.source), ("destination", flow.destination)):
        if end.labels:
            lines.append(f"{what}: {', '.join(end.labels)}")
    return "\n".join(lines)


def _whole(here: _Node, packet: Packet) -> Packet:
    """A later piece of a datagram is where its first one was going."""
    if not packet.fragment:
        return packet
    if not packet.later:
        while len(here.pieces) >= _REMEMBERED:
            del here.pieces[next(iter(here.pieces))]
        here.pieces[packet.fragment] = packet.source, packet.destination
        return packet
    known = here.pieces.get(packet.fragment)
    return packet._replace(source=known[0], destination=known[1]) if known else packet
