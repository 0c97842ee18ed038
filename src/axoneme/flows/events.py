"""From the kernel's event records to flow records.

A flow record is the kernel's event, byte for byte, with four columns more: ``wall`` (its time on
the wall clock), ``source_row`` and ``destination_row`` (who its ends were when it came in, as row
numbers of `axoneme.flows.names`), and ``request`` (see `axoneme.flows.requests`). ``time`` stays
CLOCK_MONOTONIC: it never steps back, so the store can search in it whatever somebody does to the wall clock.

Requests that proxies tell of are records of the same form, of kind `L7`: ``reason`` is their `Verdict`, and
answers have the flag for replies, with who answers as their source.

The numbers in a record are the kernel's; `Vocabulary` holds what they mean, read from the same C
header as the layout. Only the names that go out over Hubble's API are written here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from axoneme.identity.prefixes import address_text

#: Structured arrays: the kernel's ``struct event``, and the records that `record_dtype` describes.
Events = npt.NDArray[np.void]
Records = npt.NDArray[np.void]
Mask = npt.NDArray[np.bool_]

_NETWORK_ORDER = ("source_port", "destination_port", "nat_port", "frontend_port")

#: The kind of a record that no kernel has written; Hubble's number for such messages.
L7 = 129


class Verdict(enum.IntEnum):
    """Hubble's numbers (flow.Verdict)."""

    VERDICT_UNKNOWN = 0
    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4
    REDIRECTED = 5
    TRACED = 6
    TRANSLATED = 7


class TrafficDirection(enum.IntEnum):
    """Hubble's numbers (flow.TrafficDirection); not those of the kernel's policy keys."""

    TRAFFIC_DIRECTION_UNKNOWN = 0
    INGRESS = 1
    EGRESS = 2


#: Hubble's names (flow.DropReason) for numbers that our header calls otherwise.
_HUBBLE_REASONS = {
    132: "INVALID_SOURCE_IP",
    133: "POLICY_DENIED",
    134: "INVALID_PACKET_DROPPED",
    139: "UNSUPPORTED_L3_PROTOCOL",
    155: "CT_MAP_INSERTION_FAILED",
    158: "SERVICE_BACKEND_NOT_FOUND",
    160: "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT",
    170: "ENCAPSULATION_TRAFFIC_IS_PROHIBITED",
    175: "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND",
    176: "FORBIDDEN_ICMPV6_MESSAGE",
    177: "DENIED_BY_LB_SRC_RANGE_CHECK",
    178: "SOCKET_LOOKUP_FAILED",
    189: "AUTH_REQUIRED",
    191: "SNAT_NO_MAP_FOUND",
    203: "DROP_EP_NOT_READY",
}


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers in an event mean."""

    event: np.dtype[np.void]
    new: int
    end: int
    drop: int
    reply: int
    ingress: int
    masqueraded: int
    served: int
    proxied: int
    audited_egress: int
    audited_ingress: int
    authenticated: int
    zone_client: int
    hook_interface: int  # mask of the interface index in ``hook``
    policy_default: int
    policy_deny: int
    unauthenticated: int
    reasons: Mapping[int, str]  # drop reasons, by Hubble's names where it has them
    reserved: Mapping[int, str]  # identities with a fixed meaning: 1 -> "host"
    first_local: int  # from here on an identity means something on its node only: a prefix outside

    @classmethod
    def read(cls, event: np.dtype[np.void], enums: Mapping[str, Mapping[str, int]]) -> Vocabulary:
        """From the schema's dtype of ``struct event`` and its enums, by their C names."""
        kinds, flags, reasons = enums["event_kind"], enums["event_flag"], enums["drop_reason"]
        names = {number: name.removeprefix("DROP_") for name, number in reasons.items() if number}
        identities = enums["identity"]
        return cls(
            event=event,
            new=kinds["EVENT_NEW"],
            end=kinds["EVENT_END"],
            drop=kinds["EVENT_DROP"],
            reply=flags["EVENT_REPLY"],
            ingress=flags["EVENT_INGRESS"],
            masqueraded=flags["EVENT_MASQUERADED"],
            served=flags["EVENT_SERVED"],
            proxied=flags["EVENT_PROXIED"],
            audited_egress=flags["EVENT_AUDITED_EGRESS"],
            audited_ingress=flags["EVENT_AUDITED_INGRESS"],
            authenticated=flags["EVENT_AUTHENTICATED"],
            zone_client=enums["zone"]["ZONE_CLIENT"],
            hook_interface=0xFFFFFFFF ^ enums["hook"]["HOOK_EGRESS"],
            policy_default=reasons["DROP_POLICY_DEFAULT"],
            policy_deny=reasons["DROP_POLICY_DENY"],
            unauthenticated=reasons["DROP_UNAUTHENTICATED"],
            reasons={number: _HUBBLE_REASONS.get(number, name) for number, name in names.items()},
            reserved={
                number: name.removeprefix("IDENTITY_").lower().replace("_", "-")
                for name, number in identities.items()
                if 0 < number < identities["IDENTITY_FIRST_CLUSTER"]
            },
            first_local=identities["IDENTITY_FIRST_LOCAL"],
        )

    def verdicts(self, records: Records) -> npt.NDArray[np.uint8]:
        """What became of each record's packet or connection, as `Verdict` numbers."""
        by_kind = np.zeros(256, np.uint8)
        by_kind[[self.new, self.end]] = Verdict.FORWARDED
        by_kind[self.drop] = Verdict.DROPPED
        kinds, flags = records["kind"], records["flags"]
        verdicts: npt.NDArray[np.uint8] = by_kind[kinds]
        forwarded = verdicts == Verdict.FORWARDED
        to_proxy = (flags & self.proxied != 0) & (records["zone"] == self.zone_client)
        verdicts[forwarded & to_proxy] = Verdict.REDIRECTED
        verdicts[forwarded & (flags & (self.audited_egress | self.audited_ingress) != 0)] = Verdict.AUDIT
        requests = kinds == L7
        verdicts[requests] = records["reason"][requests]
        return verdicts

    def directions(self, records: Records) -> npt.NDArray[np.uint8]:
        """In which direction each was decided, as `TrafficDirection` numbers.

        A connection between two pods of one node is decided in both directions at once, and counts
        as egress; a drop counts as what dropped it.
        """
        ingress = (records["flags"] & self.ingress) != 0
        return np.where(ingress, np.uint8(TrafficDirection.INGRESS), np.uint8(TrafficDirection.EGRESS))


def record_dtype(event: np.dtype[np.void]) -> np.dtype[np.void]:
    """The flow record for this kernel's events: the event's fields where they are, then ours.

    Ports become big-endian integers here, whichever way the event's dtype spells them.
    """
    assert event.names is not None
    assert event.fields is not None
    base = (event.itemsize + 7) & ~7
    return np.dtype(
        {
            "names": [*event.names, "wall", "source_row", "destination_row", "request"],
            "formats": [
                *(np.dtype(">u2") if name in _NETWORK_ORDER else event[name] for name in event.names),
                np.dtype(np.int64),
                np.dtype(np.uint32),
                np.dtype(np.uint32),
                np.dtype(np.uint64),
            ],
            "offsets": [
                *(event.fields[name][1] for name in event.names),
                *(base, base + 8, base + 12, base + 16),
            ],
            "itemsize": base + 24,
        }
    )


def stamp(events: Events, dtype: np.dtype[np.void], offset: int, floor: int = 0) -> Records:
    """Records of a batch, in order of time, the ends not yet named.

    ``offset`` is wall clock minus CLOCK_MONOTONIC, in ns. Two CPUs take the time before they take
    their place in the ring, so neighbours can be out of order by microseconds: they are sorted, and
    none lies before ``floor``, the time of the newest record of earlier batches.
    """
    count, size = len(events), events.dtype.itemsize
    records = np.empty(count, dtype)
    whole = records.view(np.uint8).reshape(count, dtype.itemsize)
    whole[:, :size] = np.ascontiguousarray(events).view(np.uint8).reshape(count, size)
    whole[:, size:] = 0
    time = records["time"]
    if np.any(time[1:] < time[:-1]):
        records = take(records, np.argsort(time, kind="stable"))
        time = records["time"]
    np.maximum(time, np.uint64(floor), out=time)
    records["wall"] = time.astype(np.int64) + offset
    return records


def opaque(records: Records) -> npt.NDArray[np.void]:
    """The same memory as items without fields: numpy copies those whole, and others field by field
    (and turns big-endian fields into native ones where it joins two arrays)."""
    return records.view(f"V{records.dtype.itemsize}")


def take(records: Records, which: npt.NDArray[np.intp] | Mask) -> Records:
    """Some of the records, by a mask or by their places: a copy."""
    taken: Records = opaque(records)[which].view(records.dtype)
    return taken


def join(*parts: Records) -> Records:
    joined: Records = np.concatenate([opaque(part) for part in parts]).view(parts[0].dtype)
    return joined


def words(records: Records, field: str) -> npt.NDArray[np.uint64]:
    """An address column as two native 64-bit integers a row (n, 2): to compare and hash, not to read."""
    found: npt.NDArray[np.uint64] = records[field].view(np.uint64)
    return found


class AddressTexts:
    """Texts of addresses, remembered: the same few come again and again."""

    def __init__(self, capacity: int = 16384) -> None:
        self._capacity = capacity
        self._known: dict[bytes, str] = {}

    def of(self, records: Records, field: str) -> list[str]:
        raw = records[field].tobytes()
        if len(self._known) > self._capacity:
            self._known.clear()
        known, found = self._known, []
        for at in range(0, len(raw), 16):
            address = raw[at : at + 16]
            text = known.get(address)
            if text is None:
                text = known[address] = address_text(address)
            found.append(text)
        return found
