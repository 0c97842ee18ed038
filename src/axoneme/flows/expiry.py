"""Connections that ended without saying so: which entries of the flow table are due, and their ends.

The datapath reports the end of a TCP connection when it sees it. All others end by silence: an entry
whose last packet is older than its state's lifetime counts for nothing in the datapath, and is taken
out from here, with the event that the datapath would have written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import Events, Mask, Vocabulary

_COPIED = (
    "source_identity",
    "destination_identity",
    "egress_rule",
    "ingress_rule",
    "source_endpoint",
    "destination_endpoint",
    "frontend",
    "frontend_port",
    "service",
    "backend",
)


_HEALTH = ("handshake", "rtt", "min_rtt")
_TCP, _RST = 6, 0x04  # RFC 9293, section 3.1


class _End(NamedTuple):
    """One end of each of many connections."""

    address: npt.NDArray[np.uint8]
    port: npt.NDArray[np.uint16]


class Translations(NamedTuple):
    """What connections that are over leave behind in the tables of translations, entry by entry."""

    outside: npt.NDArray[np.void]  # keys: the tuple as one side of the node sees it
    behind: npt.NDArray[np.void]  # values: who stands behind its end, the initiator or a backend
    #: Which ones the other end may still remember (TIME_WAIT, RFC 9293, section 3.6.1).
    remembered: Mask


@dataclass(frozen=True)
class FlowTable:
    """What the numbers in ``struct flow`` mean, and how long an entry lives by its state, in ticks."""

    lifetimes: npt.NDArray[np.uint32]
    tick_shift: int
    closed: int
    from_low: int
    masqueraded: int
    released: int
    served: int
    shadow_egress: int
    shadow_ingress: int
    shadow_authenticated: int
    icmp: tuple[int, int] = (1, 58)

    @classmethod
    def read(cls, enums: Mapping[str, Mapping[str, int]], lifetimes: Sequence[int]) -> FlowTable:
        """From the schema's enums, by their C names."""
        return cls(
            lifetimes=np.array(lifetimes, np.uint32),
            tick_shift=enums["tick"]["TICK_SHIFT"],
            closed=enums["flow_state"]["FLOW_CLOSED"],
            from_low=enums["flow_flag"]["FLOW_FROM_LOW"],
            masqueraded=enums["flow_flag"]["FLOW_MASQUERADED"],
            released=enums["flow_flag"]["FLOW_RELEASED"],
            served=enums["flow_flag"]["FLOW_SERVED"],
            shadow_egress=enums["shadow"]["SHADOW_EGRESS"],
            shadow_ingress=enums["shadow"]["SHADOW_INGRESS"],
            shadow_authenticated=enums["shadow"]["SHADOW_AUTHENTICATED"],
        )

    def due(self, flows: npt.NDArray[np.void], now: int) -> Mask:
        """Which entries (``struct flow``) are over. ``now``: CLOCK_MONOTONIC, ns.

        One tick later than the datapath sees it, for our clock is finer than the one it reads.
        """
        state = np.minimum(flows["state"], len(self.lifetimes) - 1)
        # In 64 bits: an entry that was touched after ``now`` was taken has a negative age.
        age = np.int64(now >> self.tick_shift) - flows["seen"]
        over: Mask = age > self.lifetimes[state].astype(np.int64) + 1
        return over

    def masquerades(
        self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void], value: np.dtype[np.void]
    ) -> Translations:
        """The entries for the node's ends of those among these connections that still have a port there.
        ``value``: ``struct translation``.
        """
        masked = (flows["flags"] & (self.masqueraded | self.released)) == self.masqueraded
        keys, flows = keys[masked], flows[masked]
        initiator, called = self._ends(keys, flows)
        outside, behind = self._entries(
            keys, value, _End(flows["nat_address"], flows["nat_port"]), called, initiator
        )
        behind["seen"] = flows["seen"]
        reset = ((flows["leg"]["tcp_flags"] & _RST) != 0).any(axis=1)
        return Translations(
            outside, behind, (keys["protocol"] == _TCP) & (flows["state"] == self.closed) & ~reset
        )

    def calls(
        self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void], value: np.dtype[np.void]
    ) -> Translations:
        """The same for what clients of services have called. The client may have another backend by now."""
        served = (flows["flags"] & self.served) != 0
        keys, flows = keys[served], flows[served]
        initiator, called = self._ends(keys, flows)
        outside, behind = self._entries(
            keys, value, _End(flows["frontend"], flows["frontend_port"]), initiator, called
        )
        behind["backend"], behind["seen"] = flows["backend"], flows["seen"]
        return Translations(outside, behind, np.zeros(len(keys), np.bool_))

    def _ends(self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void]) -> tuple[_End, _End]:
        """The initiators, and whom they called."""
        low = (flows["flags"] & self.from_low) != 0
        return (
            _End(
                np.where(low[:, None], keys["low"], keys["high"]),
                np.where(low, keys["low_port"], keys["high_port"]),
            ),
            _End(
                np.where(low[:, None], keys["high"], keys["low"]),
                np.where(low, keys["high_port"], keys["low_port"]),
            ),
        )

    def _entries(
        self, keys: npt.NDArray[np.void], value: np.dtype[np.void], end: _End, other: _End, who: _End
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        """Keys and values that say who stands behind ``end`` in what passes between it and ``other``.

        The ends of a key are in the order of their bytes, as ``order`` of packet.h puts them.
        """
        # An ICMP query has one identifier, which stands for the port on both sides.
        icmp = np.isin(keys["protocol"], self.icmp)
        other = _End(other.address, np.where(icmp, end.port, other.port))
        first = _before(end, other)
        outside = _ordered(end, other, first, keys["protocol"], keys.dtype)
        outside["icmp_type"] = keys["icmp_type"]
        outside["asked_by_low"] = icmp & first
        behind = np.zeros(len(keys), value)
        behind["address"], behind["port"] = who.address, who.port
        behind["stands_for_low"] = first
        behind["zone"] = keys["zone"]
        return outside, behind

    def ends(
        self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void], now: int, vocabulary: Vocabulary
    ) -> Events:
        """The events of those among the given entries whose end nobody has reported yet.

        They happen now, but say how long the connection was in use: ``started`` is moved by the time
        that it has been silent.
        """
        silent = flows["state"] != self.closed
        keys, flows = keys[silent], flows[silent]
        events = self.described(keys, flows, vocabulary)
        events["kind"] = vocabulary.end
        legs = flows["leg"]
        events["packets"] = np.minimum(legs["packets"], np.uint64(0xFFFFFFFF))
        events["bytes"] = legs["bytes"]
        events["tcp_flags"] = legs["tcp_flags"][:, 0] | legs["tcp_flags"][:, 1]
        events["hook"] = legs["hook"][:, 0]
        for name in _HEALTH:
            events[name] = flows[name]
        events["retransmissions"] = legs["retransmissions"]
        events["time"] = now
        last = np.maximum(
            flows["seen"].astype(np.int64) << self.tick_shift, flows["created"].astype(np.int64)
        )
        used = np.maximum(0, last - flows["created"].astype(np.int64))
        events["started"] = np.maximum(0, now - used)
        return events

    def described(
        self, keys: npt.NDArray[np.void], flows: npt.NDArray[np.void], vocabulary: Vocabulary
    ) -> Events:
        """Events about these connections, with what is known of them but not what has happened; the source
        is who began them."""
        events = np.zeros(len(flows), vocabulary.event)
        low = (flows["flags"] & self.from_low) != 0
        events["source"] = np.where(low[:, None], keys["low"], keys["high"])
        events["destination"] = np.where(low[:, None], keys["high"], keys["low"])
        events["source_port"] = np.where(low, keys["low_port"], keys["high_port"])
        events["destination_port"] = np.where(low, keys["high_port"], keys["low_port"])
        events["protocol"] = keys["protocol"]
        events["icmp_type"] = keys["icmp_type"]
        events["zone"] = keys["zone"]
        for name in _COPIED:
            events[name] = flows[name]
        inward = (flows["source_endpoint"] == 0) & (flows["destination_endpoint"] != 0)
        events["flags"] = np.where(inward, vocabulary.ingress, 0)
        proxied = flows["proxy_port"] != 0
        events["flags"] |= np.where(proxied, vocabulary.proxied, 0).astype(np.uint8)
        for shadow, flag in zip(
            (self.shadow_egress, self.shadow_ingress, self.shadow_authenticated),
            (vocabulary.audited_egress, vocabulary.audited_ingress, vocabulary.authenticated),
            strict=True,
        ):
            events["flags"] |= np.where((flows["shadow"] & shadow) != 0, flag, 0).astype(np.uint8)
        masked = (flows["flags"] & self.masqueraded) != 0
        events["flags"] |= np.where(masked, vocabulary.masqueraded, 0).astype(np.uint8)
        events["nat_port"] = np.where(masked, flows["nat_port"], flows["proxy_port"])
        events["nat_address"] = np.where(masked[:, None], flows["nat_address"], 0)
        events["flags"] |= np.where(flows["service"] != 0, vocabulary.served, 0).astype(np.uint8)
        return events

    def tuples(self, events: Events, key: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """The keys (``struct flow_key``) under which connections over TCP and UDP stand, in zone CLIENT, by
        the two ends of their events."""
        source = _End(events["source"], events["source_port"])
        destination = _End(events["destination"], events["destination_port"])
        return _ordered(source, destination, _before(source, destination), events["protocol"], key)


def _ordered(
    one: _End, other: _End, first: Mask, protocol: npt.NDArray[np.uint8], key: np.dtype[np.void]
) -> npt.NDArray[np.void]:
    """Keys with these ends; ``first``: where the one is the lower."""
    keys = np.zeros(len(first), key)
    keys["low"] = np.where(first[:, None], one.address, other.address)
    keys["high"] = np.where(first[:, None], other.address, one.address)
    keys["low_port"] = np.where(first, one.port, other.port)
    keys["high_port"] = np.where(first, other.port, one.port)
    keys["protocol"] = protocol
    return keys


def _before(one: _End, other: _End) -> Mask:
    """Where the first end is the lower one, compared as the datapath does: words in the machine's order."""
    a, b = (np.ascontiguousarray(end.address).view("=u8").reshape(-1, 2) for end in (one, other))
    p, q = (end.port.astype(">u2").view("=u2") for end in (one, other))
    lower: Mask = np.where(
        a[:, 0] != b[:, 0], a[:, 0] < b[:, 0], np.where(a[:, 1] != b[:, 1], a[:, 1] < b[:, 1], p < q)
    )
    return lower
