"""From flow records to serialized ``observer.GetFlowsResponse`` messages, without messages in between.

A flow is put together from pieces (`axoneme.hubble.wire`). What is different in each (times, identifiers,
ports, counts) is written by numpy for all records at once; what repeats is looked up
(`axoneme.hubble.parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np

from axoneme.flows.events import L7, Records, TrafficDirection, Verdict, take
from axoneme.flows.flow import Layer7, LostEvents
from axoneme.flows.flowlog import FlowLog
from axoneme.hubble import wire
from axoneme.hubble.eventtypes import event_types
from axoneme.hubble.fieldmask import EVERYTHING, Mask
from axoneme.hubble.parts import Part, Parts, Site
from axoneme.hubble.requests import flow_of
from axoneme.hubble.schema import enum, message, serialized
from axoneme.hubble.uuids import Uuids
from axoneme.identity.prefixes import address_text

#: Where IPv4 addresses stand (RFC 4291, section 2.5.5.2): their first twelve bytes.
_MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)

#: Protocols that ``flow.Layer4`` has a message for.
_KNOWN: Final = (1, 6, 17, 58, 132)

_RESPONSE_FLOW: Final = wire.tag(1, 2)
_IP: Final = wire.tag(5, 2)
_DETAILS: Final = wire.tag(71000, 2)

_POLICIES: Final = ("egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by")

#: A piece of each record's flow.
Pieces = Iterable[bytes]


class Encoder:
    """For one field mask; ``site`` is asked anew for each page."""

    def __init__(self, log: FlowLog, site: Callable[[], Site], mask: Mask = EVERYTHING) -> None:
        self._log = log
        self._site = site
        self._mask = mask
        self._parts = Parts(log, site, mask)
        self._uuids = Uuids(log.node)

    def responses(self, records: Records) -> list[bytes]:
        """One for each record, in the same order."""
        if not len(records):
            return []
        self._parts.refresh()
        time = _timestamps(records)
        node = np.frombuffer(wire.text(1000, self._site().name), np.uint8)
        ends = wire.pieces(wire.beside(_alike(node, records), wire.blocks(1001, time)))
        flows = map(b"".join, zip(*self._pieces(records, time), strict=True))
        length = wire.length
        return [
            b"".join((_RESPONSE_FLOW, length(len(flow)), flow, end))
            for flow, end in zip(flows, ends, strict=True)
        ]

    def lost(self, events: LostEvents, now: int) -> bytes:
        """``now``: ns of the wall clock."""
        made = message("observer.GetFlowsResponse")(
            lost_events={
                "source": enum("flow.LostEventSource")[events.source],
                "num_events_lost": events.num_events_lost,
            },
            node_name=self._site().name,
        )
        made.time.FromNanoseconds(now)
        return serialized(made)

    def _pieces(self, records: Records, time: wire.Rows) -> Iterator[Pieces]:
        mask, parts, vocabulary = self._mask, self._parts, self._log.vocabulary
        kinds, flags = records["kind"].tolist(), records["flags"]
        verdicts, directions = vocabulary.verdicts(records), vocabulary.directions(records)
        types, sub_types = event_types(vocabulary, records)
        replies = (flags & vocabulary.reply).astype(np.bool_).tolist()
        services = np.where(flags & vocabulary.served, records["service"], 0).tolist()

        stamps = [wire.blocks(1, time)] if mask.wants("time") else []
        if mask.wants("uuid"):
            stamps.append(wire.blocks(34, self._uuids.texts(records)))
        if stamps:
            piece: Sequence[bytes] = wire.pieces(wire.beside(*stamps))
            yield map(mask.trim_bytes, piece) if mask.inside("time") else piece

        heads = [
            parts.heads[key]
            for key in zip(
                kinds, verdicts.tolist(), directions.tolist(), types.tolist(), sub_types.tolist(), replies,
                strict=True,
            )
        ]  # fmt: skip
        ends = [
            [
                cache[key]
                for key in zip(
                    *(records[f"{side}_{name}"].tolist() for name in ("row", "identity", "endpoint")),
                    strict=True,
                )
            ]
            for side, cache in (("source", parts.sources), ("destination", parts.destinations))
        ]
        called = [parts.services[key] for key in zip(services, replies, strict=True)]
        yield (part.flow for part in heads)
        yield from ((part.flow for part in side) for side in ends)
        yield (part.flow for part in called)
        if mask.wants("IP"):
            yield self._addresses(records)
        if mask.wants("l4", "Summary"):
            layer4 = self._layer4(records, kinds)
            yield map(mask.trim_bytes, layer4) if mask.inside("l4") else layer4
        if mask.wants("interface", "proxy_port"):
            yield self._places(records)
        requests = self._requests(records, replies)
        yield requests[0]
        wants_details = mask.wants("details")
        if wants_details or mask.wants(*_POLICIES):
            policies = self._policies(records, verdicts, directions)
            yield (part.flow for part in policies)
            if wants_details:
                told = [
                    *([part.details for part in each] for each in (heads, *ends, called, policies)),
                    self._counts(records),
                    self._tcp_health(records),
                    self._rarities(records),
                    requests[1],
                ]
                details = map(b"".join, zip(*told, strict=True))
                whole = (_DETAILS + wire.length(len(each)) + each for each in details)
                yield map(mask.trim_bytes, whole) if mask.inside("details") else whole

    def _addresses(self, records: Records) -> list[bytes]:
        parts = self._parts
        ipv4 = (records["source"][:, :12] == _MAPPED).all(axis=1).tolist()
        masqueraded = (records["flags"] & self._log.vocabulary.masqueraded) != 0
        behind = wire.pieces(np.where(masqueraded[:, None], records["nat_address"], 0).astype(np.uint8))
        columns = (
            [parts.source_addresses[each] for each in wire.pieces(records["source"])],
            [parts.destination_addresses[each] for each in wire.pieces(records["destination"])],
            [parts.versions[key] for key in zip(ipv4, behind, strict=True)],
        )
        length = wire.length
        return [
            b"".join((_IP, length(len(content)), content))
            for content in map(b"".join, zip(*columns, strict=True))
        ]

    def _layer4(self, records: Records, kinds: Sequence[int]) -> list[bytes]:
        ports = wire.pieces(
            wire.beside(
                wire.numbers(1, records["source_port"], 3), wire.numbers(2, records["destination_port"], 3)
            )
        )
        names = ("protocol", "tcp_flags", "icmp_type", "icmp_code")
        keys = zip(*(records[name].tolist() for name in names), kinds, strict=True)
        cache = self._parts.layer4
        return [
            before + between + after if after is not None else before
            for (before, after), between in zip((cache[key] for key in keys), ports, strict=True)
        ]

    def _places(self, records: Records) -> Pieces:
        vocabulary = self._log.vocabulary
        interfaces = records["hook"] & np.uint32(vocabulary.hook_interface)
        to_proxy = (records["flags"] & vocabulary.proxied != 0) & (records["zone"] == vocabulary.zone_client)
        ports = np.where(to_proxy, records["nat_port"], 0)
        cache = self._parts.places
        return (cache[key] for key in zip(interfaces.tolist(), ports.tolist(), strict=True))

    def _policies(self, records: Records, verdicts: Any, directions: Any) -> list[Part]:
        vocabulary, kinds, flags = self._log.vocabulary, records["kind"], records["flags"]
        by_policy = np.isin(records["reason"], (vocabulary.policy_default, vocabulary.policy_deny))
        refused = ((kinds == vocabulary.drop) & by_policy) | ((kinds == L7) & (verdicts == Verdict.DROPPED))
        ingress = directions == TrafficDirection.INGRESS
        keys = zip(
            records["egress_rule"].tolist(),
            records["ingress_rule"].tolist(),
            ((refused & ~ingress) | (flags & vocabulary.audited_egress != 0)).tolist(),
            ((refused & ingress) | (flags & vocabulary.audited_ingress != 0)).tolist(),
            strict=True,
        )
        cache = self._parts.policies
        return [cache[key] for key in keys]

    def _requests(self, records: Records, replies: Sequence[bool]) -> tuple[Pieces, Pieces]:
        """What they say of themselves, and what of that has its place in the details."""
        places = np.flatnonzero(records["kind"] == L7).tolist()
        if not places:
            return repeat(b"", len(records)), repeat(b"", len(records))
        flows, details = [b""] * len(records), [b""] * len(records)
        numbers = records["request"].tolist()
        for place in places:
            known = self._log.requests.get(numbers[place])
            flow = flow_of(known or Layer7("RESPONSE" if replies[place] else "REQUEST"))
            details[place] = flow.details.SerializeToString()
            flow.ClearField("details")
            flows[place] = self._mask.trim(flow).SerializeToString()
        return flows, details

    def _counts(self, records: Records) -> list[bytes]:
        """Of ends: how long, and how much both ways; of drops: how much."""
        found = [b""] * len(records)
        vocabulary = self._log.vocabulary
        for kind in (vocabulary.end, vocabulary.drop):
            places = np.flatnonzero(records["kind"] == kind)
            if not len(places):
                continue
            these = take(records, places)
            packets, octets = these["packets"], these["bytes"]
            rows = [wire.numbers(3, packets[:, 0], 5), wire.numbers(4, octets[:, 0], 9)]
            if kind == vocabulary.end:
                rows.append(wire.numbers(2, these["time"] - these["started"], 9))
                rows += [wire.numbers(5, packets[:, 1], 5), wire.numbers(6, octets[:, 1], 9)]
            for place, piece in zip(places.tolist(), wire.pieces(wire.beside(*rows)), strict=True):
                found[place] = piece
        return found

    def _tcp_health(self, records: Records) -> Pieces:
        """Of ends that something was measured of."""
        measured = records["handshake"] | records["rtt"] | records["retransmissions"].max(axis=1)
        places = np.flatnonzero((records["kind"] == self._log.vocabulary.end) & (measured != 0))
        if not len(places):
            return repeat(b"", len(records))
        found = [b""] * len(records)
        these = take(records, places)
        times = [
            wire.numbers(number, these[name].astype(np.uint64) * np.uint64(1000), 6)
            for number, name in ((1, "handshake"), (2, "rtt"), (3, "min_rtt"))
        ]
        again = [wire.numbers(4 + way, these["retransmissions"][:, way], 3) for way in (0, 1)]
        pieces = wire.pieces(wire.blocks(17, *times, *again))
        for place, piece in zip(places.tolist(), pieces, strict=True):
            found[place] = piece
        return found

    def _rarities(self, records: Records) -> Pieces:
        """What few flows have: a frontend, a translated port, a protocol without a message."""
        vocabulary, flags = self._log.vocabulary, records["flags"]
        served, masqueraded = flags & vocabulary.served != 0, flags & vocabulary.masqueraded != 0
        # What was refused went to the service's own address.
        same = (records["frontend"] == records["destination"]).all(axis=1)
        elsewhere = served & ~(same & (records["frontend_port"] == records["destination_port"]))
        unknown = ~np.isin(records["protocol"], _KNOWN)
        places = np.flatnonzero(elsewhere | masqueraded | unknown)
        if not len(places):
            return repeat(b"", len(records))
        found = [b""] * len(records)
        these = take(records, places)
        for place, protocol, port, frontend, frontend_port in zip(
            places.tolist(),
            np.where(unknown[places], these["protocol"], 0).tolist(),
            np.where(masqueraded[places], these["nat_port"], 0).tolist(),
            wire.pieces(np.where(elsewhere[places, None], these["frontend"], 0).astype(np.uint8)),
            np.where(elsewhere[places], these["frontend_port"], 0).tolist(),
            strict=True,
        ):
            found[place] = (
                wire.number(7, protocol)
                + wire.number(8, port)
                + (wire.text(9, address_text(frontend)) if any(frontend) else b"")
                + wire.number(10, frontend_port)
            )
        return found


def _timestamps(records: Records) -> wire.Rows:
    """The content of a ``google.protobuf.Timestamp`` for each."""
    seconds, nanos = np.divmod(records["wall"], 1_000_000_000)
    return wire.beside(wire.numbers(1, seconds, 5), wire.numbers(2, nanos, 5))


def _alike(content: wire.Rows, records: Records) -> wire.Rows:
    """The same for each."""
    return np.broadcast_to(content, (len(records), len(content)))
