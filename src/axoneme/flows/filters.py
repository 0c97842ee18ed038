"""Filters as masks over columns.

Every condition of a `FlowFilter` becomes a few array operations over a batch. What is asked of a pod,
workload or label is evaluated once for each row of `axoneme.flows.names`, and then is a look-up in a
table of booleans.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from axoneme.flows.events import L7, Mask, Records, TrafficDirection, Verdict, Vocabulary, words
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.names import End, Names
from axoneme.flows.requestfilters import KINDS, Asked, of_kind, tests
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServiceSet
from axoneme.identity.prefixes import address_bytes
from axoneme.model.labels import Labels
from axoneme.model.selectortext import parse_selector

Condition = Callable[[Records], Mask]
T = TypeVar("T")

_PROTOCOLS = {
    "icmp": (1, 58),
    "icmpv4": (1,),
    "icmpv6": (58,),
    "tcp": (6,),
    "udp": (17,),
    "sctp": (132,),
}
_SIDES = {"": ("source", "destination"), "from_": ("source",), "to_": ("destination",)}


class Matcher:
    """Filters compiled for one node; raises `FilterError`.

    No filter at all lets everything through.
    """

    def __init__(
        self,
        filters: Sequence[FlowFilter],
        not_filters: Sequence[FlowFilter],
        *,
        names: Names,
        services: ServiceNames,
        requests: Requests,
        node: str,
        vocabulary: Vocabulary,
    ) -> None:
        compiler = _Compiler(names, services, requests, node, vocabulary)
        self._wanted = [compiler.conditions(each) for each in filters]
        self._unwanted = [compiler.conditions(each) for each in not_filters]

    def mask(self, records: Records) -> Mask:
        """True for each record that the filters let through."""
        if not self._wanted and not self._unwanted:
            return np.ones(len(records), np.bool_)
        mask = _any(records, self._wanted) if self._wanted else np.ones(len(records), np.bool_)
        if self._unwanted:
            mask &= ~_any(records, self._unwanted)
        return mask


def _any(records: Records, alternatives: list[list[Condition]]) -> Mask:
    mask = np.zeros(len(records), np.bool_)
    for each in alternatives:
        one = np.ones(len(records), np.bool_)
        for condition in each:
            one &= condition(records)
        mask |= one
    return mask


class RowSet:
    """The rows of `Names` whose end a test accepts; looks only at those that are new."""

    def __init__(self, names: Names, accepts: Callable[[End], bool]) -> None:
        self._names = names
        self._accepts = accepts
        self._seen = -1
        self._table: Mask = np.zeros(0, np.bool_)

    def __call__(self, rows: npt.NDArray[np.uint32]) -> Mask:
        if self._seen != self._names.version:
            if len(self._table) < len(self._names):
                grown = np.zeros(2 * len(self._names), np.bool_)
                grown[: len(self._table)] = self._table
                self._table = grown
            for row, end in self._names.since(self._seen):
                self._table[row] = self._accepts(end)
            self._seen = self._names.version
        return self._table[rows]


class _Compiler:
    def __init__(
        self, names: Names, services: ServiceNames, requests: Requests, node: str, vocabulary: Vocabulary
    ) -> None:
        self._names = names
        self._services = services
        self._requests = requests
        self._node = node
        self._vocabulary = vocabulary

    def conditions(self, wanted: FlowFilter) -> list[Condition]:
        """All of them must hold; the cheap ones that keep least come first in the struct's order."""
        found = [
            self._verdict(wanted.verdict),
            self._kind(wanted.event),
            self._type(wanted.type),
            self._direction(wanted.direction),
            self._reason(wanted.reason),
            self._protocol(wanted.protocol),
            self._observed_by(wanted.node),
            _times(wanted.since, wanted.until),
            self._slow("handshake", wanted.handshake),
            self._slow("rtt", wanted.rtt),
            self._sent_again(wanted.retransmissions),
        ]
        for prefix, sides in _SIDES.items():
            for name, compiled in (
                ("port", self._ports),
                ("identity", self._identities),
                ("ip", self._addresses),
                ("service", self._called),
                ("namespace", self._namespaces),
                ("pod", self._pods),
                ("workload", self._workloads),
                ("label", self._labels),
            ):
                values = getattr(wanted, prefix + name)
                if values:
                    found.append(compiled(prefix + name, values, sides))
        found.append(self._asked(wanted))  # the only one that looks at texts
        return [condition for condition in found if condition is not None]

    # ---- conditions on the flow --------------------------------------------------------------

    def _verdict(self, values: Sequence[str]) -> Condition | None:
        wanted = [_member("verdict", value, Verdict) for value in values]
        if not wanted:
            return None
        return lambda records: among(self._vocabulary.verdicts(records), wanted)

    def _kind(self, values: Sequence[str]) -> Condition | None:
        vocabulary = self._vocabulary
        reply = vocabulary.reply
        kinds = {
            "new": (vocabulary.new, 0),
            "end": (vocabulary.end, 0),
            "drop": (vocabulary.drop, 0),
            "request": (L7, 0),
            "response": (L7, reply),
        }
        wanted = [_look_up("event", value.lower(), kinds, value) for value in values]
        if not wanted:
            return None

        def condition(records: Records) -> Mask:
            kind, answer = records["kind"], records["flags"] & reply
            return either([(kind == a) & ((kind != L7) | (answer == b)) for a, b in wanted])

        return condition

    def _type(self, values: Sequence[str]) -> Condition | None:
        """Hubble's message types."""
        vocabulary = self._vocabulary

        def decided(records: Records) -> Mask:
            named = (records["egress_rule"] != 0) | (records["ingress_rule"] != 0)
            return cast(Mask, (records["kind"] == vocabulary.new) & named)

        types: dict[str, Condition] = {
            "l7": lambda records: among(records["kind"], [L7]),
            "drop": lambda records: among(records["kind"], [vocabulary.drop]),
            "policy-verdict": decided,
            "trace": lambda records: (
                (records["kind"] == vocabulary.end)
                | ((records["kind"] == vocabulary.new) & ~decided(records))
            ),
        }
        wanted = [_look_up("type", value.lower(), types, value) for value in values]
        return (lambda records: either([each(records) for each in wanted])) if wanted else None

    def _direction(self, values: Sequence[str]) -> Condition | None:
        wanted = [_member("direction", value, TrafficDirection) for value in values]
        if not wanted:
            return None
        return lambda records: among(self._vocabulary.directions(records), wanted)

    def _reason(self, values: Sequence[int | str]) -> Condition | None:
        known = {_plain(name): number for number, name in self._vocabulary.reasons.items()}
        wanted = [_number("reason", value, known, 255) for value in values]
        if not wanted:
            return None
        drop = self._vocabulary.drop
        return lambda records: (records["kind"] == drop) & among(records["reason"], wanted)

    def _protocol(self, values: Sequence[int | str]) -> Condition | None:
        wanted: list[int] = []
        kinds: list[str] = []
        for value in values:
            if isinstance(value, str) and value.lower() in KINDS:
                kinds.append(value.lower())
            elif isinstance(value, str) and value.lower() in _PROTOCOLS:
                wanted.extend(_PROTOCOLS[value.lower()])
            elif str(value).isdecimal() and int(value) < 256:
                wanted.append(int(value))
            else:
                raise FilterError("protocol", value, f"a number or one of {', '.join((*_PROTOCOLS, *KINDS))}")
        spoken = Asked(self._requests, [of_kind(kind) for kind in kinds], any) if kinds else None
        if not wanted:
            return spoken
        return lambda records: either(
            [among(records["protocol"], wanted), *([spoken(records)] if spoken else [])]
        )

    def _asked(self, wanted: FlowFilter) -> Condition | None:
        found = list(tests(wanted))
        return Asked(self._requests, found, all) if found else None

    def _observed_by(self, values: Sequence[str]) -> Condition | None:
        """All flows of a server are those of its node."""
        if not values or self._node in values:
            return None
        return lambda records: np.zeros(len(records), np.bool_)

    # ---- conditions on TCP -------------------------------------------------------------------

    def _slow(self, field: str, values: Sequence[int]) -> Condition | None:
        """Values in ns, columns in microseconds. What was not measured (0) was not slow."""
        if not values:
            return None
        end, least = self._vocabulary.end, max(1, -(-_least(field, values) // 1000))
        return lambda records: (records["kind"] == end) & (records[field] >= least)

    def _sent_again(self, values: Sequence[int]) -> Condition | None:
        if not values:
            return None
        end, least = self._vocabulary.end, _least("retransmissions", values)
        return lambda records: (
            (records["kind"] == end)
            & among(records["protocol"], _PROTOCOLS["tcp"])
            & (records["retransmissions"].sum(axis=1, dtype=np.uint32) >= least)
        )

    # ---- conditions on the ends --------------------------------------------------------------

    def _ports(self, field: str, values: Sequence[int], sides: Sequence[str]) -> Condition:
        for value in values:
            if not 0 <= value <= 65535:
                raise FilterError(field, value, "a port number")

        def condition(records: Records) -> Mask:
            return either([among(records[f"{side}_port"], values) for side in sides])

        return condition

    def _identities(self, field: str, values: Sequence[int | str], sides: Sequence[str]) -> Condition:
        known = {_plain(name): number for number, name in self._vocabulary.reserved.items()}
        wanted = [_number(field, value, known, 0xFFFFFFFF) for value in values]

        def condition(records: Records) -> Mask:
            return either([among(records[f"{side}_identity"], wanted) for side in sides])

        return condition

    def _addresses(self, field: str, values: Sequence[str], sides: Sequence[str]) -> Condition:
        ranges = [address_range(field, value) for value in values]

        def condition(records: Records) -> Mask:
            found: list[Mask] = []
            for side in sides:
                address = words(records, side)
                found += [inside(address, each) for each in ranges]
            return either(found)

        return condition

    def _ends(self, accepts: Callable[[End], bool], sides: Sequence[str]) -> Condition:
        rows = RowSet(self._names, accepts)

        def condition(records: Records) -> Mask:
            return either([rows(records[f"{side}_row"]) for side in sides])

        return condition

    def _namespaces(self, field: str, values: Sequence[str], sides: Sequence[str]) -> Condition:
        return self._ends(lambda end: end.namespace in values, sides)

    def _pods(self, field: str, values: Sequence[str], sides: Sequence[str]) -> Condition:
        wanted = [_named(field, value, "pod") for value in values]

        def accepts(end: End) -> bool:
            return end.pod != "" and _is_one_of(wanted, end.namespace, end.pod)

        return self._ends(accepts, sides)

    def _called(self, field: str, values: Sequence[str], sides: Sequence[str]) -> Condition:
        """The service is on the side that answers: the destination's, and of a reply the source's."""
        wanted = [_named(field, value, "service") for value in values]
        services = ServiceSet(self._services, lambda each: _is_one_of(wanted, *each.split))
        flags = {"source": self._vocabulary.reply, "destination": 0}

        def condition(records: Records) -> Mask:
            found = services(records["service"])
            if len(sides) == 1:
                found &= (records["flags"] & self._vocabulary.reply) == flags[sides[0]]
            return found

        return condition

    def _workloads(self, field: str, values: Sequence[str], sides: Sequence[str]) -> Condition:
        wanted = [value.rpartition("/") for value in values]

        def accepts(end: End) -> bool:
            return end.workload != "" and any(
                name == end.workload and kind.lower() in ("", end.workload_kind.lower())
                for kind, _, name in wanted
            )

        return self._ends(accepts, sides)

    def _labels(self, field: str, values: Sequence[str], sides: Sequence[str]) -> Condition:
        try:
            selectors = [parse_selector(value) for value in values]
        except ValueError as error:
            raise FilterError(field, values, f"a label selector: {error}") from None
        verdicts: dict[tuple[str, ...], bool] = {}

        def accepts(end: End) -> bool:
            if end.labels not in verdicts:
                labels = Labels.parse(end.labels)
                verdicts[end.labels] = any(selector.matches(labels) for selector in selectors)
            return verdicts[end.labels]

        return self._ends(accepts, sides)


# ---- parts ---------------------------------------------------------------------------------------


def among(column: npt.NDArray[np.unsignedinteger[Any]], values: Sequence[int]) -> Mask:
    """`numpy.isin` for the few values that a filter has."""
    if len(values) > 12:
        return np.isin(column, values)
    return either([cast(Mask, column == value) for value in values])


def either(masks: list[Mask]) -> Mask:
    found = masks[0]
    for mask in masks[1:]:
        found = found | mask
    return found


def _least(field: str, values: Sequence[int]) -> int:
    least = min(values)
    if least < 0:
        raise FilterError(field, least, "0 or more")
    return least


def _times(since: int | None, until: int | None) -> Condition | None:
    if since is None and until is None:
        return None
    bounds = np.iinfo(np.int64)
    first, last = bounds.min if since is None else since, bounds.max if until is None else until
    return lambda records: (records["wall"] >= first) & (records["wall"] <= last)


Words = npt.NDArray[np.uint64]


def _words(value: int) -> Words:
    return np.frombuffer(value.to_bytes(16, "big"), np.uint64)


#: Where records keep IPv4 addresses: ``::ffff:0:0/96`` (RFC 4291, section 2.5.5.2).
_MAPPED = 0xFFFF << 32
_MAPPED_MASK = _words(0xFFFFFFFF << 32)[1]


#: Network, mask, and what does not belong to it all the same.
Range = tuple[Words, Words, Words | None]


def address_range(field: str, value: str) -> Range:
    """Network and mask of a prefix; and what to leave out of one that holds IPv4's place by accident."""
    try:
        network = ipaddress.ip_network(value, strict=False)
        address = address_bytes(str(network.network_address))
    except ValueError:
        raise FilterError(field, value, "an IP address or prefix") from None
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    mask = (1 << 128) - (1 << 128 - bits)
    wide = network.version == 6 and bits < 96 and _MAPPED & mask == int(network.network_address)
    return np.frombuffer(address, np.uint64), _words(mask), _words(_MAPPED) if wide else None


def inside(address: Words, wanted: Range) -> Mask:
    """Of each address, as `words` has them."""
    high, low = address[:, 0], address[:, 1]
    net, mask, but = wanted
    found = (high & mask[0] == net[0]) & (low & mask[1] == net[1])
    if but is not None:
        found &= (high != but[0]) | (low & _MAPPED_MASK != but[1])
    return cast(Mask, found)


def _named(field: str, value: str, what: str) -> tuple[str | None, str]:
    """(namespace or None for any, start of the name)."""
    namespace, slash, name = value.rpartition("/")
    if "/" in namespace or not value.strip("/"):
        raise FilterError(field, value, f"a {what}: name, namespace/name, or namespace/")
    return (namespace if slash and namespace else None), name


def _is_one_of(wanted: Sequence[tuple[str | None, str]], namespace: str, name: str) -> bool:
    return any(where in (None, namespace) and name.startswith(start) for where, start in wanted)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")


def _member(field: str, value: str, numbers: type[Verdict] | type[TrafficDirection]) -> int:
    return _look_up(field, value.upper(), {each.name: int(each) for each in numbers}, value)


def _look_up(field: str, name: str, known: Mapping[str, T], shown: object) -> T:
    if name not in known:
        raise FilterError(field, shown, f"one of {', '.join(sorted(known))}")
    return known[name]


def _number(field: str, value: int | str, known: Mapping[str, int], highest: int) -> int:
    if str(value).isdecimal() and int(value) <= highest:
        return int(value)
    return _look_up(field, _plain(str(value)), known, value)
