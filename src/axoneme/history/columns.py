"""From flow records to Arrow, a batch at a time: `axoneme.history.schema` has the columns.

What repeats (names, labels, policies, addresses) is made once a batch, from the distinct numbers in it; the
rest is taken from the records' own columns. `axoneme.flows.encode` says the same of one flow at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from axoneme.flows.events import L7, Mask, Records, TrafficDirection, Verdict, Vocabulary
from axoneme.flows.flow import Layer7, TCPFlags
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.history.schema import SCHEMA, TIME, WORD, WORDS
from axoneme.identity.prefixes import address_text

_TCP, _UDP, _SCTP, _ICMP, _ICMPV6 = 6, 17, 132, 1, 58
_PROTOCOLS = {_TCP: "TCP", _UDP: "UDP", _SCTP: "SCTP", _ICMP: "ICMPv4", _ICMPV6: "ICMPv6"}
_VERDICTS = {int(each): each.name for each in Verdict}
_DIRECTIONS = {int(each): each.name for each in TrafficDirection}

_encode = msgspec.json.Encoder().encode


def batch(log: FlowLog, records: Records) -> pa.RecordBatch:
    """A row a record, in the same order."""
    columns = _Columns(log, records)
    return pa.RecordBatch.from_arrays([columns.made[name] for name in SCHEMA.names], schema=SCHEMA)


class _Columns:
    def __init__(self, log: FlowLog, records: Records) -> None:
        self._log = log
        self._records = records
        vocabulary = self._vocabulary = log.vocabulary
        kind, flags = records["kind"], records["flags"]
        self._drop: Mask = kind == vocabulary.drop
        self._end: Mask = kind == vocabulary.end
        self._request: Mask = kind == L7
        self._reply: Mask = (flags & vocabulary.reply) != 0
        self.made: dict[str, pa.Array] = {}
        self._what()
        for side in ("source", "destination"):
            self._side(side)
        self._service()
        self._policies()
        self._counts()
        self._health()
        self._asked()

    def _what(self) -> None:
        log, records, vocabulary = self._log, self._records, self._vocabulary
        verdicts, protocol = vocabulary.verdicts(records), records["protocol"]
        self.made |= {
            "time": pa.array(records["wall"]).view(TIME),
            "node": pa.DictionaryArray.from_arrays(np.zeros(len(records), np.int32), [log.node]),
            "verdict": _words(verdicts, lambda number: _VERDICTS.get(number, "VERDICT_UNKNOWN")),
            "drop_reason": _words(
                records["reason"],
                lambda number: vocabulary.reasons.get(number, f"REASON_{number}"),
                self._drop,
            ),
            "event": _words(
                np.where(self._request, L7 + self._reply, records["kind"]),
                {
                    vocabulary.new: "new",
                    vocabulary.end: "end",
                    vocabulary.drop: "drop",
                    L7: "request",
                    L7 + 1: "response",
                }.get,
            ),
            "direction": _words(vocabulary.directions(records), _DIRECTIONS.get),
            "reply": pa.array(self._reply),
            "protocol": _words(protocol, lambda number: _PROTOCOLS.get(number, str(number))),
            "tcp_flags": _words(
                records["tcp_flags"], lambda bits: ",".join(TCPFlags.of(bits).names()), protocol == _TCP
            ),
            "interface": _some(records["hook"] & vocabulary.hook_interface, records["hook"] != 0),
        }
        icmp = (protocol == _ICMP) | (protocol == _ICMPV6)
        for name in ("icmp_type", "icmp_code"):
            self.made[name] = _some(records[name], icmp)

    def _side(self, side: str) -> None:
        records = self._records
        ports = np.isin(records["protocol"], (_TCP, _UDP, _SCTP))
        endpoint = records[f"{side}_endpoint"]
        self.made |= {
            side: _addresses(records[side]),
            f"{side}_port": _some(records[f"{side}_port"].astype(np.uint16), ports),
            f"{side}_identity": pa.array(records[f"{side}_identity"]),
            f"{side}_endpoint": _some(endpoint, endpoint != 0),
        }
        rows, inverse = np.unique(records[f"{side}_row"], return_inverse=True)
        ends = [self._log.names[row] for row in rows.tolist()]
        for name in ("namespace", "pod", "workload_kind", "workload", "node"):
            self.made[f"{side}_{name}"] = _coded([_text(end, name) for end in ends], inverse)
        self.made[f"{side}_labels"] = _lists([end.labels for end in ends], inverse)

    def _service(self) -> None:
        records = self._records
        served = (records["flags"] & self._vocabulary.served) != 0
        numbers, inverse = np.unique(records["service"], return_inverse=True)
        found = [self._log.services.get(number) for number in numbers.tolist()]
        names = [
            ("", f"service {number}", "") if each is None else (*each.split, each.port)
            for number, each in zip(numbers.tolist(), found, strict=True)
        ]
        for place, name in enumerate(("service_namespace", "service", "service_port")):
            self.made[name] = _coded([each[place] for each in names], inverse, served)
        self.made["frontend"] = _addresses(records["frontend"], served)
        self.made["frontend_port"] = _some(records["frontend_port"].astype(np.uint16), served)
        masqueraded = (records["flags"] & self._vocabulary.masqueraded) != 0
        port = records["nat_port"].astype(np.uint16)
        self.made["source_xlated"] = _addresses(records["nat_address"], masqueraded)
        self.made["source_port_xlated"] = _some(port, masqueraded & (port != 0))
        to_proxy = (records["flags"] & self._vocabulary.proxied != 0) & (
            records["zone"] == self._vocabulary.zone_client
        )
        self.made["proxy_port"] = _some(port, to_proxy)

    def _policies(self) -> None:
        """A rule's number stands for what allowed, or denied: that depends on what became of the flow."""
        records = self._records
        for direction, denies in denied(records, self._vocabulary).items():
            numbers, inverse = np.unique(records[f"{direction}_rule"], return_inverse=True)
            texts = [self._rule(number) for number in numbers.tolist()]
            for name, which in (("allowed", ~denies), ("denied", denies)):
                self.made[f"{direction}_{name}_by"] = _lists(texts, inverse, which)

    def _rule(self, number: int) -> list[str]:
        if not number:
            return []
        refs = self._log.rules(number)
        return [f"rule {number}"] if refs is None else [str(ref).strip() for ref in refs]

    def _counts(self) -> None:
        records = self._records
        some = self._drop | self._end
        age = (records["time"] - records["started"]).astype(np.int64)
        self.made |= {
            "duration_ns": _some(age, self._end),
            "packets": _some(records["packets"][:, 0].astype(np.uint64), some),
            "bytes": _some(records["bytes"][:, 0], some),
            "reply_packets": _some(records["packets"][:, 1].astype(np.uint64), self._end),
            "reply_bytes": _some(records["bytes"][:, 1], self._end),
        }

    def _health(self) -> None:
        for name in ("handshake", "rtt", "min_rtt"):
            measured = self._records[name].astype(np.int64) * 1000
            self.made[f"{name}_ns"] = _some(measured, measured != 0)
        again = self._records["retransmissions"].astype(np.uint32)
        for place, name in enumerate(("retransmissions", "reply_retransmissions")):
            self.made[name] = _some(again[:, place], again[:, place] != 0)

    def _asked(self) -> None:
        records = self._records
        places = np.flatnonzero(self._request)
        asked: list[Layer7 | None] = [
            self._log.requests.get(number) for number in records["request"][places].tolist()
        ]
        for name, (kind, value) in _REQUEST.items():
            if not len(places):
                self.made[name] = pa.nulls(len(records), kind)
                continue
            values = [None if each is None else value(each) for each in asked]
            filled = np.full(len(records), -1, np.int64)
            filled[places] = np.arange(len(places))
            self.made[name] = pa.array(values, kind).take(pa.array(filled, mask=filled < 0))


_REQUEST: dict[str, tuple[pa.DataType, Callable[[Layer7], Any]]] = {
    "latency_ns": (pa.int64(), lambda each: each.latency_ns or None),
    "http_method": (WORD, lambda each: each.http.method if each.http else None),
    "http_url": (pa.string(), lambda each: each.http.url if each.http else None),
    "http_protocol": (WORD, lambda each: each.http.protocol if each.http else None),
    "http_status": (pa.uint16(), lambda each: each.http.code or None if each.http else None),
    "grpc_status": (pa.int32(), lambda each: each.http.grpc_status if each.http else None),
    "dns_query": (pa.string(), lambda each: each.dns.query if each.dns else None),
    "dns_rcode": (
        pa.uint16(),
        lambda each: each.dns.rcode if each.dns and each.type == "RESPONSE" else None,
    ),
    "dns_ips": (WORDS, lambda each: each.dns.ips if each.dns else None),
    "kafka_api": (WORD, lambda each: each.kafka.api_key if each.kafka else None),
    "kafka_topic": (WORD, lambda each: each.kafka.topic or None if each.kafka else None),
    "l7": (pa.string(), lambda each: _encode(each).decode()),
}


def denied(records: Records, vocabulary: Vocabulary) -> dict[str, Mask]:
    """For which records the rule of a direction denied (or would have, where it is only tried)."""
    flags = records["flags"]
    policy = np.isin(records["reason"], (vocabulary.policy_default, vocabulary.policy_deny))
    refused = (records["kind"] == vocabulary.drop) & policy
    refused |= (records["kind"] == L7) & (records["reason"] == Verdict.DROPPED)
    ingress = (flags & vocabulary.ingress) != 0
    return {
        "egress": (refused & ~ingress) | (flags & vocabulary.audited_egress != 0),
        "ingress": (refused & ingress) | (flags & vocabulary.audited_ingress != 0),
    }


def _text(end: End, name: str) -> str:
    text: str = getattr(end, name)
    return text


def _words(
    column: npt.NDArray[Any], text: Callable[[int], str | None], which: Mask | None = None
) -> pa.DictionaryArray:
    """The texts of numbers, of which there are few."""
    numbers, inverse = np.unique(column, return_inverse=True)
    return _coded([text(number) or "" for number in numbers.tolist()], inverse, which)


def _coded(
    texts: Sequence[str], places: npt.NDArray[np.intp], which: Mask | None = None
) -> pa.DictionaryArray:
    """``texts[places]``, each text once; empty ones, and those that are not ``which``, are null."""
    distinct = {text: code for code, text in enumerate(dict.fromkeys(filter(None, texts)))}
    codes = np.array([distinct.get(text, -1) for text in texts], np.int32)[places]
    absent = codes < 0
    if which is not None:
        absent |= ~which
    indices = pa.array(codes, mask=absent)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(distinct), pa.string()))


def _lists(
    texts: Sequence[Iterable[str]], places: npt.NDArray[np.intp], which: Mask | None = None
) -> pa.ListArray:
    """``texts[places]``; what is not ``which`` is an empty list."""
    lists = pa.array([[], *map(list, texts)], WORDS)
    taken = places + 1 if which is None else np.where(which, places + 1, 0)
    return lists.take(pa.array(taken))


def _some(column: npt.NDArray[Any], which: Mask) -> pa.Array:
    """The rest is null."""
    return pa.array(column, mask=~which)


def _addresses(column: npt.NDArray[np.uint8], which: Mask | None = None) -> pa.DictionaryArray:
    raw = np.ascontiguousarray(column)
    valid = None if which is None else pa.array(which).buffers()[1]
    packed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(raw), [valid, pa.py_buffer(raw)])
    coded = packed.dictionary_encode()
    texts = pa.array([address_text(each) for each in coded.dictionary.to_pylist()], pa.string())
    return pa.DictionaryArray.from_arrays(coded.indices, texts)
