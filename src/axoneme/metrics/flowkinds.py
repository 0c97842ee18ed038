"""Each metric that is made from flows: which records it counts, and in which series.

The number of a series' own (see `axoneme.metrics.series`) has 23 bits here that a metric gives out, and one
for the direction where there is a label for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from axoneme.flows.encode import icmp_name
from axoneme.flows.events import Mask, Verdict, Vocabulary
from axoneme.metrics.contexts import TRAFFIC_DIRECTION, Side
from axoneme.metrics.families import labelled
from axoneme.metrics.flowbatch import ICMPV4, ICMPV6, PROTOCOLS, TCP, UNKNOWN_L7, FlowBatch
from axoneme.metrics.flowoptions import Setting
from axoneme.metrics.parties import Ids, Parties
from axoneme.metrics.series import OWN_BITS, Series, SeriesCounter, SeriesHistogram, keys_of

_INGRESS: Final = 1 << (OWN_BITS - 1)
_OTHER_PORT: Final = 1 << 16
_PORT_BITS: Final = 17
_OVERFLOW: Final = "overflow"
#: As they are in labels.
DIRECTIONS: Final = ("egress", "ingress")
_VERDICTS: Final = {int(each): each.name for each in Verdict}

Own = npt.NDArray[Any]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Kit:
    """What metrics are made with. ``most``: series of each family."""

    prefix: str
    parties: Callable[[Side], Parties]
    vocabulary: Vocabulary
    most: int


class FlowMetric:
    """``own_labels`` are those beside the contexts'."""

    own_labels: tuple[str, ...] = ()

    def __init__(self, setting: Setting, kit: Kit) -> None:
        contexts = setting.contexts
        self.setting = setting
        self.vocabulary = kit.vocabulary
        self.source, self.destination = kit.parties(contexts.source), kit.parties(contexts.destination)
        direction = (TRAFFIC_DIRECTION,) if contexts.direction else ()
        self.labels: Sequence[str] = (
            *self.own_labels,
            *contexts.source.names,
            *contexts.destination.names,
            *direction,
        )
        self.families: tuple[Series, ...] = self.make(kit)

    def make(self, kit: Kit) -> tuple[Series, ...]:
        raise NotImplementedError

    def count(self, batch: FlowBatch) -> None:
        raise NotImplementedError

    def values(self, own: int) -> tuple[str, ...]:
        """Of the own labels."""
        raise NotImplementedError

    def collapse(self, own: int) -> int:
        """See `axoneme.metrics.series.Meaning`; as long as there are few, they stay."""
        return own

    def describe(self, source: int, destination: int, own: int) -> str:
        ends = (*self.source.values(source), *self.destination.values(destination))
        direction = (DIRECTIONS[bool(own & _INGRESS)],) if self.setting.contexts.direction else ()
        return labelled(self.labels, (*self.values(own & (_INGRESS - 1)), *ends, *direction))

    def keys(self, batch: FlowBatch, places: Places, own: Own, turned: bool = False) -> Ids:
        """``turned``: the record's destination is the label's source."""
        ends = ("destination", "source") if turned else ("source", "destination")
        source = batch.ids(self.source, ends[0])[places]
        destination = batch.ids(self.destination, ends[1])[places]
        if self.setting.contexts.direction:
            own = own | np.where(batch.ingress[places], _INGRESS, 0)
        return keys_of(source, destination, own)

    # ---- series that go --------------------------------------------------------------------------

    def forget(self, parties: Parties, numbers: Sequence[int]) -> None:
        for family in self.families:
            family.forget(
                numbers if parties is self.source else (), numbers if parties is self.destination else ()
            )

    def used(self, parties: Parties) -> set[int]:
        """The numbers of these that series have."""
        found: set[int] = set()
        for family in self.families:
            sources, destinations, _ = family.parts()
            found.update(sources.tolist() if parties is self.source else ())
            found.update(destinations.tolist() if parties is self.destination else ())
        return found

    def tidy(self) -> None: ...


class CounterMetric(FlowMetric):
    """One counter, and from each record none or one."""

    name: ClassVar[str]
    help: ClassVar[str]

    def make(self, kit: Kit) -> tuple[Series, ...]:
        self.counter = SeriesCounter(f"{kit.prefix}_{self.name}", self.help, self, kit.most)
        return (self.counter,)

    def count(self, batch: FlowBatch) -> None:
        places = np.flatnonzero(self.counts(batch))
        if places.size:
            self.counter.count(self.keys(batch, places, self.own(batch)[places].astype(np.int64)), batch.now)

    def counts(self, batch: FlowBatch) -> Mask:
        raise NotImplementedError

    def own(self, batch: FlowBatch) -> Own:
        raise NotImplementedError


class Drop(CounterMetric):
    name, help = "drop_total", "Number of drops"
    own_labels = ("reason", "protocol")

    def counts(self, batch: FlowBatch) -> Mask:
        return np.asarray(batch.verdicts == Verdict.DROPPED)

    def own(self, batch: FlowBatch) -> Own:
        return batch.reasons.astype(np.int64) | batch.protocols.astype(np.int64) << 8

    def values(self, own: int) -> tuple[str, ...]:
        reason = own & 0xFF
        named = self.vocabulary.reasons.get(reason, f"REASON_{reason}") if reason else "DROP_REASON_UNKNOWN"
        return named, PROTOCOLS[own >> 8]


#: Hubble's message types, and what it says beside them; trace points that there is something like here.
_TYPES: Final = ("Trace", "Drop", "PolicyVerdict", "L7")
_TRACE, _DROP, _POLICY_VERDICT, _L7 = range(4)
_SUBTYPES: Final = ("", "DNS", "HTTP", "Kafka", "to-endpoint", "to-proxy", "to-network")
_TO_ENDPOINT, _TO_PROXY, _TO_NETWORK = 4, 5, 6


class Flow(CounterMetric):
    name, help = "flows_processed_total", "Total number of flows processed"
    own_labels = ("protocol", "type", "subtype", "verdict")

    def counts(self, batch: FlowBatch) -> Mask:
        return np.ones(len(batch), np.bool_)

    def own(self, batch: FlowBatch) -> Own:
        records, vocabulary = batch.records, batch.vocabulary
        if batch.told:
            types = np.full(len(batch), _L7)
            subtypes = np.where(
                batch.protocols > UNKNOWN_L7, batch.protocols.astype(np.int64) - UNKNOWN_L7, 0
            )
        else:
            decided = (records["egress_rule"] != 0) | (records["ingress_rule"] != 0)
            decided &= batch.kind(vocabulary.new)
            drop = batch.kind(vocabulary.drop)
            types = np.where(drop, _DROP, np.where(decided, _POLICY_VERDICT, _TRACE))
            inside = records["destination_endpoint"] != 0
            where = np.where(inside, _TO_ENDPOINT, _TO_NETWORK)
            where = np.where(batch.verdicts == Verdict.REDIRECTED, _TO_PROXY, where)
            subtypes = np.where(types == _TRACE, where, 0)
        verdicts = batch.verdicts.astype(np.int64)
        return batch.protocols.astype(np.int64) | types << 4 | subtypes << 6 | verdicts << 9

    def values(self, own: int) -> tuple[str, ...]:
        verdict = _VERDICTS.get(own >> 9, Verdict.VERDICT_UNKNOWN.name)
        return PROTOCOLS[own & 15], _TYPES[own >> 4 & 3], _SUBTYPES[own >> 6 & 7], verdict


class PortDistribution(CounterMetric):
    name, help = "port_distribution_total", "Number of connections by destination port"
    own_labels = ("protocol", "port")

    def counts(self, batch: FlowBatch) -> Mask:
        mask: Mask = batch.kind(self.vocabulary.new) & batch.passed & ~batch.reply & (batch.protocols != 0)
        return mask

    def own(self, batch: FlowBatch) -> Own:
        icmp = np.isin(batch.protocols, (ICMPV4, ICMPV6))
        ports = np.where(icmp, 0, batch.column("destination_port"))
        return np.asarray(ports | batch.protocols.astype(np.int64) << _PORT_BITS)

    def values(self, own: int) -> tuple[str, ...]:
        return PROTOCOLS[own >> _PORT_BITS], _port(own)

    def collapse(self, own: int) -> int:
        return own >> _PORT_BITS << _PORT_BITS | _OTHER_PORT


def _port(own: int) -> str:
    port = own & ((1 << _PORT_BITS) - 1)
    return _OVERFLOW if port == _OTHER_PORT else str(port)


_FIN, _SYN, _RST = 1, 2, 4
_FLAGS: Final = ("SYN", "SYN-ACK", "FIN", "RST")
_FAMILIES: Final = ("IPv4", "IPv6")


class Tcp(FlowMetric):
    """Of connections that are over; what is said of an answer has who answers as its source."""

    own_labels = ("flag", "family")

    def make(self, kit: Kit) -> tuple[Series, ...]:
        self.flags = SeriesCounter(
            f"{kit.prefix}_tcp_flags_total", "TCP flag occurrences: connections that had them", self, kit.most
        )
        return (self.flags,)

    def count(self, batch: FlowBatch) -> None:
        ended = batch.kind(self.vocabulary.end) & (batch.protocols == TCP) & batch.passed
        if not ended.any():
            return
        flags = batch.records["tcp_flags"]
        syn = ended & (flags & _SYN != 0)
        family = batch.ipv6.astype(np.int64) << 2
        seen = (syn, syn & batch.answered, ended & (flags & _FIN != 0), ended & (flags & _RST != 0))
        for flag, mask in enumerate(seen):
            places = np.flatnonzero(mask)
            if places.size:
                own = family[places] | flag
                self.flags.count(self.keys(batch, places, own, turned=_FLAGS[flag] == "SYN-ACK"), batch.now)

    def values(self, own: int) -> tuple[str, ...]:
        return _FLAGS[own & 3], _FAMILIES[own >> 2]


#: Seconds: from within a node to across the world, and a SYN that was sent again.
_ROUND_TRIPS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    3.0,
)


class TcpHealth(FlowMetric):
    """What was measured at the sockets of this node, of connections that are over; Hubble has none of it."""

    def make(self, kit: Kit) -> tuple[Series, ...]:
        handshake, rtt = (
            SeriesHistogram(f"axoneme_tcp_{name}_seconds", help, self, kit.most, _ROUND_TRIPS)
            for name, help in (
                ("handshake", "How long handshakes took, in seconds"),
                ("rtt", "Round trip time, smoothed, at the end of a connection, in seconds"),
            )
        )
        help = "Segments that had to be sent again, by either end"
        again = SeriesCounter("axoneme_tcp_retransmissions_total", help, self, kit.most)
        self._times, self._again = (("handshake", handshake), ("rtt", rtt)), again
        return handshake, rtt, again

    def count(self, batch: FlowBatch) -> None:
        ended = batch.kind(self.vocabulary.end) & (batch.protocols == TCP)
        for column, family in self._times:
            places = np.flatnonzero(ended & (batch.records[column] > 0))
            if places.size:
                seconds = batch.records[column][places] / 1e6
                keys = self.keys(batch, places, np.zeros(len(places), np.int64))
                family.observe(keys, seconds, batch.now)
        sent_again = batch.records["retransmissions"].sum(axis=1, dtype=np.int64)
        places = np.flatnonzero(ended & (sent_again > 0))
        if places.size:
            keys = self.keys(batch, places, np.zeros(len(places), np.int64))
            self._again.add(keys, sent_again[places], batch.now)

    def values(self, own: int) -> tuple[str, ...]:
        return ()


_REPLIES: Final = np.arange(256)
_REPLIES[8], _REPLIES[128], _REPLIES[13] = 0, 129, 14


class Icmp(FlowMetric):
    own_labels = ("family", "type")

    def make(self, kit: Kit) -> tuple[Series, ...]:
        self.messages = SeriesCounter(
            f"{kit.prefix}_icmp_total",
            "Number of ICMP exchanges by message, and of messages dropped",
            self,
            kit.most,
        )
        return (self.messages,)

    def count(self, batch: FlowBatch) -> None:
        six = batch.protocols == ICMPV6
        ended = batch.kind(self.vocabulary.end)
        mask = (six | (batch.protocols == ICMPV4)) & (ended | batch.kind(self.vocabulary.drop))
        if not mask.any():
            return
        family, codes = six.astype(np.int64), batch.column("icmp_code").astype(np.int64) << 9
        types = batch.column("icmp_type").astype(np.int64)
        for kinds, which, turned in (
            (types, mask, False),
            (_REPLIES[types], mask & ended & batch.answered, True),
        ):
            places = np.flatnonzero(which)
            if places.size:
                own = family[places] | kinds[places] << 1 | codes[places]
                self.messages.count(self.keys(batch, places, own, turned), batch.now)

    def values(self, own: int) -> tuple[str, ...]:
        six, kind, code = own & 1, own >> 1 & 0xFF, own >> 9
        return _FAMILIES[six], icmp_name(58 if six else 1, kind, code)


class FlowsToWorld(CounterMetric):
    name, help = "flows_to_world_total", "Total number of flows to reserved:world"

    def __init__(self, setting: Setting, kit: Kit) -> None:
        self._with_port = setting.is_set("port")
        self.own_labels = ("protocol", "verdict", *(("port",) if self._with_port else ()))
        super().__init__(setting, kit)
        reserved = {name: number for number, name in self.vocabulary.reserved.items()}
        self._world = [reserved[name] for name in ("world", "world-ipv4", "world-ipv6") if name in reserved]
        self._policy = (self.vocabulary.policy_default, self.vocabulary.policy_deny)

    def counts(self, batch: FlowBatch) -> Mask:
        """What has an identity of its own outside, for a prefix or a name, is the world's as well."""
        number = batch.records["destination_identity"]
        mask = np.isin(number, self._world) | (number >= self.vocabulary.first_local)
        mask &= batch.protocols != 0
        dropped = batch.kind(self.vocabulary.drop)
        if not self.setting.is_set("any-drop"):
            dropped &= np.isin(batch.reasons, self._policy)
        mask &= dropped | (batch.kind(self.vocabulary.new) & ~batch.reply)
        if self.setting.is_set("syn-only"):
            mask &= (batch.records["tcp_flags"] & _SYN != 0) & ~batch.reply
        return mask

    def own(self, batch: FlowBatch) -> Own:
        verdicts = batch.verdicts.astype(np.int64)
        # Protocols above L4 do not get here, so that three bits are enough.
        own = (batch.protocols.astype(np.int64) & 7) | verdicts << 3
        if not self._with_port:
            return own
        icmp = np.isin(batch.protocols, (ICMPV4, ICMPV6))
        return own << _PORT_BITS | np.where(icmp, 0, batch.column("destination_port"))

    def values(self, own: int) -> tuple[str, ...]:
        kind = own >> _PORT_BITS if self._with_port else own
        named = PROTOCOLS[kind & 7], _VERDICTS.get(kind >> 3, Verdict.VERDICT_UNKNOWN.name)
        return (*named, _port(own)) if self._with_port else named

    def collapse(self, own: int) -> int:
        return own >> _PORT_BITS << _PORT_BITS | _OTHER_PORT if self._with_port else own


_MATCHES: Final = ("none", "unknown", "l7/dns", "l7/http", "l7/kafka", "l7/")
_NONE, _UNKNOWN = 0, 1
_OF_L7: Final = 2


class Policy(FlowMetric):
    """A connection counts in each direction in which a policy decided it. ``match`` is ``none`` where no rule
    allowed it, else ``unknown``: of which kind the rule's entry was, the datapath does not say."""

    own_labels = ("direction", "match", "action")

    def make(self, kit: Kit) -> tuple[Series, ...]:
        self.verdicts = SeriesCounter(
            f"{kit.prefix}_policy_verdicts_total", "Total number of network policy verdicts", self, kit.most
        )
        return (self.verdicts,)

    def count(self, batch: FlowBatch) -> None:
        vocabulary, records = self.vocabulary, batch.records
        if batch.told:
            matches = np.where(
                batch.protocols > UNKNOWN_L7, batch.protocols.astype(np.int64) - UNKNOWN_L7 - 1, 3
            )
            self._put(batch, np.ones(len(batch), np.bool_), batch.ingress, matches + _OF_L7)
            return
        refused = batch.kind(vocabulary.drop)
        refused &= np.isin(batch.reasons, (vocabulary.policy_default, vocabulary.policy_deny))
        new = batch.kind(vocabulary.new) & (records["source_identity"] != 1)  # the host may call its pods
        none = np.full(len(batch), _NONE)
        self._put(batch, refused, batch.ingress, none)
        for ingress, rule, audited in (
            (False, "egress_rule", vocabulary.audited_egress),
            (True, "ingress_rule", vocabulary.audited_ingress),
        ):
            allowed = np.where(records["flags"] & audited != 0, _NONE, _UNKNOWN)
            self._put(batch, new & (records[rule] != 0), np.full(len(batch), ingress), allowed)

    def _put(self, batch: FlowBatch, mask: Mask, ingress: Mask, matches: Own) -> None:
        places = np.flatnonzero(mask)
        if places.size:
            own = ingress.astype(np.int64) | matches << 1 | batch.verdicts.astype(np.int64) << 4
            self.verdicts.count(self.keys(batch, places, own[places]), batch.now)

    def values(self, own: int) -> tuple[str, ...]:
        verdict = _VERDICTS.get(own >> 4, "unknown").lower()
        return DIRECTIONS[own & 1], _MATCHES[own >> 1 & 7], verdict
