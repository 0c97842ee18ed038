"""Hubble's filters (``flow.FlowFilter``) as masks over columns.

What has the same meaning becomes an `axoneme.flows.flowfilter.FlowFilter`; the rest are conditions of their
own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from axoneme.flows.events import Mask, Records, TrafficDirection, Verdict, words
from axoneme.flows.filters import Condition, RowSet, address_range, among, either, inside
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.requestfilters import Asked
from axoneme.hubble.eventtypes import event_types
from axoneme.hubble.interfaces import name_of
from axoneme.hubble.parts import Site, is_inside
from axoneme.hubble.requests import trace_id
from axoneme.hubble.uuids import Uuids, parse
from axoneme.model.labels import Labels
from axoneme.model.regexes import matches
from axoneme.model.selectortext import parse_selector

#: Fields whose values mean the same in `FlowFilter`, by the names that they have there.
_SAME: Final = {
    "source_ip": "from_ip",
    "destination_ip": "to_ip",
    "source_label": "from_label",
    "destination_label": "to_label",
    "source_identity": "from_identity",
    "destination_identity": "to_identity",
    "drop_reason_desc": "reason",
    "http_status_code": "http_status",
    "http_method": "http_method",
    "http_path": "http_path",
    "http_url": "http_url",
    "dns_query": "dns_query",
}
#: The same for names, which may begin with a slash.
_NAMES: Final = {
    "source_pod": "from_pod",
    "destination_pod": "to_pod",
    "source_service": "from_service",
    "destination_service": "to_service",
}
_WITH_PORTS: Final = (6, 17, 132)
_PROTOCOLS: Final = {"vrrp": 112, "igmp": 2}
_IPV4, _IPV6 = 1, 2
_MAPPED: Final = address_range("", "::ffff:0:0/96")
#: Filters of a request and values in them, together: all are tried for every record, while others wait.
_MOST: Final = 1000

Conditions = list[Condition]


class Filters:
    """White and black list of a request. Raises `FilterError`."""

    def __init__(
        self, log: FlowLog, site: Site, whitelist: Sequence[Any] = (), blacklist: Sequence[Any] = ()
    ) -> None:
        count = sum(map(_size, (*whitelist, *blacklist)))
        if count > _MOST:
            raise FilterError("count", count, f"at most {_MOST} filters, and values in them")
        compiler = _Compiler(log, site)
        self._wanted = [compiler.conditions(each) for each in whitelist]
        self._unwanted = [compiler.conditions(each) for each in blacklist]

    def mask(self, records: Records) -> Mask:
        """True for each record that is to be sent."""
        chosen = np.ones(len(records), np.bool_)
        if self._wanted:
            chosen = either([_all(records, each) for each in self._wanted])
        for each in self._unwanted:
            chosen &= ~_all(records, each)
        return chosen


def _all(records: Records, conditions: Conditions) -> Mask:
    mask = np.ones(len(records), np.bool_)
    for condition in conditions:
        mask &= condition(records)
    return mask


class _Compiler:
    def __init__(self, log: FlowLog, site: Site) -> None:
        self._log = log
        self._site = site

    def conditions(self, wanted: Any) -> Conditions:
        common = _common(wanted)
        found: Conditions = [self._log.matcher([common]).mask] if common != FlowFilter() else []
        given = {field.name: value for field, value in wanted.ListFields()}
        if common.from_port or common.to_port:
            found.append(_has_ports)
        found += [make(self, given[name]) for name, make in _OWN.items() if name in given]
        return found

    # ---- of the flow -----------------------------------------------------------------------------

    def _uuid(self, values: Sequence[str]) -> Condition:
        uuids, known = Uuids(self._log.node), []
        for value in values:
            try:
                known.append(parse(value))
            except ValueError:
                raise FilterError("uuid", value, "an identifier of a flow") from None

        def condition(records: Records) -> Mask:
            found = uuids.words(records)
            return either([(found[:, 0] == high) & (found[:, 1] == low) for high, low in known])

        return condition

    def _event_type(self, values: Sequence[Any]) -> Condition:
        vocabulary = self._log.vocabulary

        def condition(records: Records) -> Mask:
            types, subs = event_types(vocabulary, records)
            return either(
                [
                    ((types == value.type) | (value.type == 0))
                    & ((subs == value.sub_type) | (not value.match_sub_type))
                    for value in values
                ]
            )

        return condition

    def _reply(self, values: Sequence[bool]) -> Condition:
        flag = self._log.vocabulary.reply
        return lambda records: either([(records["flags"] & flag != 0) == value for value in values])

    def _tcp_flags(self, values: Sequence[Any]) -> Condition:
        wanted = [
            sum(1 << bit for bit, name in enumerate(_FLAGS) if getattr(value, name)) for value in values
        ]
        # One more bit, which no header of ours has room for, can only be asked for in vain.
        return lambda records: (
            (records["protocol"] == 6)
            & (records["tcp_flags"] != 0)
            & either([(records["tcp_flags"].astype(np.uint16) & each) == each for each in wanted])
        )

    def _ip_version(self, values: Sequence[int]) -> Condition:
        def condition(records: Records) -> Mask:
            ipv4 = inside(words(records, "source"), _MAPPED)
            known = {_IPV4: ipv4, _IPV6: ~ipv4}
            return either([known.get(value, np.zeros(len(records), np.bool_)) for value in values])

        return condition

    def _source_ip_xlated(self, values: Sequence[str]) -> Condition:
        ranges = [address_range("source_ip_xlated", value) for value in values]
        flag = self._log.vocabulary.masqueraded
        return lambda records: (
            (records["flags"] & flag != 0)
            & either([inside(words(records, "nat_address"), each) for each in ranges])
        )

    def _interface(self, values: Sequence[Any]) -> Condition:
        mask = np.uint32(self._log.vocabulary.hook_interface)

        def condition(records: Records) -> Mask:
            found = records["hook"] & mask
            there = np.unique(found[found != 0]).tolist()
            chosen = [
                index
                for index in there
                if any(
                    value.index in (0, index) and (not value.name or value.name == name_of(index))
                    for value in values
                )
            ]
            return np.isin(found, chosen)

        return condition

    def _trace_id(self, values: Sequence[str]) -> Condition:
        return Asked(self._log.requests, [lambda request: trace_id(request) in values], all)

    def _http_header(self, values: Sequence[Any]) -> Condition:
        wanted = {(value.key.lower(), value.value) for value in values}
        return Asked(
            self._log.requests,
            [
                lambda request: (
                    request.http is not None
                    and any((header.key.lower(), header.value) in wanted for header in request.http.headers)
                )
            ],
            all,
        )

    # ---- of the ends -----------------------------------------------------------------------------

    def _ends(self, side: str, accepts: Callable[[End], bool]) -> Condition:
        rows = RowSet(self._log.names, accepts)
        return lambda records: rows(records[f"{side}_row"])

    def _workload(self, side: str, values: Sequence[Any]) -> Condition:
        return self._ends(
            side,
            lambda end: (
                bool(end.workload)
                and any(
                    value.name in ("", end.workload) and value.kind in ("", end.workload_kind)
                    for value in values
                )
            ),
        )

    def _cluster(self, side: str, values: Sequence[str]) -> Condition:
        ours = self._site.cluster in values
        return self._ends(side, lambda end: ours and is_inside(end))

    # ---- of the node, which all flows here have in common ----------------------------------------

    def _node_name(self, values: Sequence[str]) -> Condition:
        cluster, _, node = self._site.name.rpartition("/")
        name = f"{cluster or self._site.cluster}/{node}"
        patterns = [_node_pattern(value) for value in values]
        return _always(any(matches(pattern, name) for pattern in patterns))

    def _node_labels(self, values: Sequence[str]) -> Condition:
        labels = Labels.parse(f"k8s:{label}" for label in self._site.labels)
        try:
            return _always(any(parse_selector(value).matches(labels) for value in values))
        except ValueError as error:
            raise FilterError("node_labels", values, f"a label selector: {error}") from None

    # ---- of what there is nothing of -------------------------------------------------------------

    def _nothing(self, values: Sequence[Any]) -> Condition:
        return _always(False)

    def _encrypted(self, values: Sequence[bool]) -> Condition:
        """No flow is encrypted by the datapath (yet)."""
        return _always(False in values)

    def _experimental(self, value: Any) -> Condition:
        raise FilterError("experimental", list(value.cel_expression), "supported: there is no CEL here")


_FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_OWN: Final[dict[str, Callable[[_Compiler, Any], Condition]]] = {
    "uuid": _Compiler._uuid,
    "event_type": _Compiler._event_type,
    "reply": _Compiler._reply,
    "tcp_flags": _Compiler._tcp_flags,
    "ip_version": _Compiler._ip_version,
    "source_ip_xlated": _Compiler._source_ip_xlated,
    "interface": _Compiler._interface,
    "trace_id": _Compiler._trace_id,
    "http_header": _Compiler._http_header,
    "source_workload": lambda self, values: self._workload("source", values),
    "destination_workload": lambda self, values: self._workload("destination", values),
    "source_cluster_name": lambda self, values: self._cluster("source", values),
    "destination_cluster_name": lambda self, values: self._cluster("destination", values),
    "node_name": _Compiler._node_name,
    "node_labels": _Compiler._node_labels,
    "source_fqdn": _Compiler._nothing,
    "destination_fqdn": _Compiler._nothing,
    "ip_trace_id": _Compiler._nothing,
    "encrypted": _Compiler._encrypted,
    "experimental": _Compiler._experimental,
}


def _size(wanted: Any) -> int:
    """1 for the filter, and 1 for each value in it."""
    return 1 + sum(len(value) if field.is_repeated else 1 for field, value in wanted.ListFields())


def _common(wanted: Any) -> FlowFilter:
    fields: dict[str, Any] = {ours: tuple(getattr(wanted, theirs)) for theirs, ours in _SAME.items()}
    for theirs, ours in _NAMES.items():
        fields[ours] = tuple(value.removeprefix("/") for value in getattr(wanted, theirs))
    for theirs, ours in (("source_port", "from_port"), ("destination_port", "to_port")):
        fields[ours] = tuple(_port(theirs, value) for value in getattr(wanted, theirs))
    fields["protocol"] = tuple(_PROTOCOLS.get(value.lower(), value) for value in wanted.protocol)
    fields["verdict"] = tuple(_name("verdict", value, Verdict) for value in wanted.verdict)
    fields["direction"] = tuple(
        _name("traffic_direction", value, TrafficDirection) for value in wanted.traffic_direction
    )
    return FlowFilter(**fields)


def _port(field: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and int(value) < 65536):
        raise FilterError(field, value, "a port number")
    return int(value)


def _name(field: str, value: int, numbers: type[Verdict] | type[TrafficDirection]) -> str:
    try:
        return numbers(value).name
    except ValueError:
        raise FilterError(field, value, f"one of {', '.join(each.name for each in numbers)}") from None


def _has_ports(records: Records) -> Mask:
    return among(records["protocol"], _WITH_PORTS)


def _always(chosen: bool) -> Condition:
    return lambda records: np.full(len(records), chosen)


def _node_pattern(text: str) -> str:
    """``cluster/node``, where each may have ``*``, and one that is missing stands for all of them; for RE2,
    which many ``*`` do not make slow."""
    cluster, _, node = text.rpartition("/")
    if not text or "/" in cluster:
        raise FilterError("node_name", text, "a pattern: node*, cluster/node* or cluster/")
    return f"{_glob(cluster)}/{_glob(node)}"


def _glob(text: str) -> str:
    if not text:
        return "[^/]*"
    plain = text.strip().removesuffix(".").lower()
    if not re.fullmatch(r"[-.*_0-9a-z]+", plain):
        raise FilterError("node_name", text, "a pattern of letters, digits, '-', '_', '.' and '*'")
    return re.escape(plain).replace(r"\*", "[-.0-9a-z]*")
