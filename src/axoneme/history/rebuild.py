"""From columns back to flow records: what was recorded is filtered, counted and shown by the same code as
what happens now.

The numbers in the records are new ones: they mean what the texts in the columns say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from axoneme.flows.events import L7, Records, TrafficDirection, Verdict
from axoneme.flows.flow import Layer7, TCPFlags
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServicePort
from axoneme.flows.transfer import Layout
from axoneme.identity.prefixes import address_bytes
from axoneme.model.policy import PolicyRef

Codes = npt.NDArray[np.intp]

#: Between the texts of a list, when it is looked at as one.
_BETWEEN = "\n"
_NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMPv4": 1, "ICMPv6": 58}
_FLAGS = {",".join(TCPFlags.of(bits).names()): bits for bits in range(256)}
_decode = msgspec.json.Decoder(Layer7).decode


class Rebuilder:
    """For flows of one node with one layout; ``log`` says what the numbers in the records mean, of requests
    until so many more have come."""

    def __init__(self, layout: Layout, requests: int = 1 << 17, request_bytes: int = 1 << 28) -> None:
        self._rules: dict[int, tuple[PolicyRef, ...]] = {}
        self._numbers: dict[str, int] = {"": 0}
        self._services: dict[tuple[str, str, str], int] = {}
        self.log: FlowLog = layout.log(self._rules.get, Requests(requests, request_bytes))
        self._reasons = {name: number for number, name in self.log.vocabulary.reasons.items()}

    def records(self, batch: pa.RecordBatch) -> Records:
        """Of a batch with the columns of `axoneme.history.schema`, a record a row."""
        vocabulary = self.log.vocabulary
        made: Records = np.zeros(batch.num_rows, self.log.store.dtype)
        kinds = {
            "new": vocabulary.new,
            "end": vocabulary.end,
            "drop": vocabulary.drop,
            "request": L7,
            "response": L7,
        }
        made["kind"] = _mapped(batch, "event", kinds.__getitem__)
        request, dropped = made["kind"] == L7, made["kind"] == vocabulary.drop
        verdict = _mapped(batch, "verdict", lambda text: int(Verdict[text]))
        made["reason"] = np.where(dropped, _mapped(batch, "drop_reason", self._reason), 0)
        made["reason"][request] = verdict[request]
        made["wall"] = made["time"] = _numbers(batch, "time", pa.int64())
        made["started"] = made["time"] - _numbers(batch, "duration_ns").astype(np.uint64)
        made["protocol"] = _mapped(batch, "protocol", lambda text: _NUMBERS.get(text) or int(text))
        made["tcp_flags"] = _mapped(batch, "tcp_flags", _FLAGS.__getitem__)
        for column in ("icmp_type", "icmp_code", "frontend_port"):
            made[column] = _numbers(batch, column)
        made["hook"] = _numbers(batch, "interface")
        made["packets"] = np.stack([_numbers(batch, "packets"), _numbers(batch, "reply_packets")], 1)
        made["bytes"] = np.stack([_numbers(batch, "bytes"), _numbers(batch, "reply_bytes")], 1)
        for column in ("handshake", "rtt", "min_rtt"):
            made[column] = _numbers(batch, f"{column}_ns") // 1000
        again = [_numbers(batch, column) for column in ("retransmissions", "reply_retransmissions")]
        made["retransmissions"] = np.stack(again, 1)
        for side in ("source", "destination"):
            made[side] = _addresses(batch, side)
            for column in ("port", "identity", "endpoint"):
                made[f"{side}_{column}"] = _numbers(batch, f"{side}_{column}")
            made[f"{side}_row"] = self._ends(batch, side)
        made["service"] = self._called(batch)
        made["frontend"] = _addresses(batch, "frontend")
        masqueraded, proxied = _there(batch, "source_xlated"), _there(batch, "proxy_port")
        made["nat_address"] = _addresses(batch, "source_xlated")
        made["nat_port"] = np.where(
            proxied, _numbers(batch, "proxy_port"), _numbers(batch, "source_port_xlated")
        )
        made["zone"] = vocabulary.zone_client
        ingress = _mapped(batch, "direction", lambda text: int(TrafficDirection[text])) == 1
        tried = self._policies(batch, made, (verdict == Verdict.AUDIT) & ~dropped)
        unnamed = (verdict == Verdict.AUDIT) & ~tried["egress"] & ~tried["ingress"]
        for bit, which in (
            (vocabulary.reply, _numbers(batch, "reply", pa.uint8()) != 0),
            (vocabulary.ingress, ingress),
            (vocabulary.masqueraded, masqueraded),
            (vocabulary.served, made["service"] != 0),
            (vocabulary.proxied, proxied),
            (vocabulary.audited_egress, tried["egress"] | (unnamed & ~ingress)),
            (vocabulary.audited_ingress, tried["ingress"] | (unnamed & ingress)),
        ):
            made["flags"] |= np.where(which, np.uint8(bit), np.uint8(0))
        self._ask(batch, made, request, verdict)
        return made

    def _reason(self, text: str) -> int:
        if text in self._reasons:
            return self._reasons[text]
        number = text.removeprefix("REASON_")
        return int(number) if number.isdecimal() and int(number) < 256 else 0

    def _ends(self, batch: pa.RecordBatch, side: str) -> npt.NDArray[np.uint32]:
        parts = [
            _coded(batch.column(f"{side}_{name}"))
            for name in ("namespace", "pod", "workload_kind", "workload", "node")
        ]
        parts.append(_joined(batch, f"{side}_labels"))

        def end(texts: Sequence[str]) -> int:
            namespace, pod, kind, workload, node, labels = texts
            split = tuple(labels.split(_BETWEEN)) if labels else ()
            return self.log.names.add(End(split, namespace, pod, kind, workload, node))

        return _combined(parts, end).astype(np.uint32)

    def _called(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint32]:
        parts = [_coded(batch.column(name)) for name in ("service_namespace", "service", "service_port")]

        def number(texts: Sequence[str]) -> int:
            namespace, name, port = texts
            if not name:
                return 0
            key = (namespace, name, port)
            known = self._services.setdefault(key, len(self._services) + 1)
            whole = f"{namespace}/{name}" if namespace else name
            self.log.services.put(known, ServicePort(whole, port))
            return known

        return _combined(parts, number).astype(np.uint32)

    def _policies(
        self, batch: pa.RecordBatch, made: Records, audit: npt.NDArray[np.bool_]
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """Fills the columns of rules in; by direction, which flows only passed because it is only tried."""
        tried = {}
        for direction in ("egress", "ingress"):
            allowed, denied = (_joined(batch, f"{direction}_{verb}_by") for verb in ("allowed", "denied"))
            numbers = [
                np.array([self._rule(text) for text in texts], np.uint32)[codes]
                for codes, texts in (allowed, denied)
            ]
            made[f"{direction}_rule"] = np.maximum(*numbers)
            tried[direction] = (numbers[1] != 0) & audit
        return tried

    def _rule(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self._numbers))
        if number and number not in self._rules:
            self._rules[number] = tuple(map(_policy, text.split(_BETWEEN)))
        return number

    def _ask(
        self,
        batch: pa.RecordBatch,
        made: Records,
        which: npt.NDArray[np.bool_],
        verdict: npt.NDArray[np.int64],
    ) -> None:
        places = np.flatnonzero(which)
        if not len(places):
            return
        answered = _mapped(batch, "event", lambda text: int(text == "response")) != 0
        made["flags"] |= np.where(which & answered, np.uint8(self.log.vocabulary.reply), np.uint8(0))
        texts = batch.column("l7").take(pa.array(places)).to_pylist()
        made["request"][places] = [
            self.log.requests.put(_decode(text), refused) if text else 0
            for text, refused in zip(texts, (verdict[places] == Verdict.DROPPED).tolist(), strict=True)
        ]


def _policy(text: str) -> PolicyRef:
    kind, _, rest = text.partition(" ")
    if kind == "rule":  # of which nobody could tell what it was
        return PolicyRef("", "", text)
    owner, _, rule = rest.partition(" ")
    namespace, _, name = owner.rpartition("/")
    return PolicyRef(kind, namespace, name, rule)


def _coded(column: pa.Array) -> tuple[Codes, list[str]]:
    """Its texts, each once, and which of them each row has; null counts as the empty text, the last one."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = [*coded.dictionary.to_pylist(), ""]
    codes = coded.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False).astype(np.intp)
    return codes, texts


def _joined(batch: pa.RecordBatch, name: str) -> tuple[Codes, list[str]]:
    return _coded(pc.binary_join(batch.column(name), _BETWEEN))


def _mapped(batch: pa.RecordBatch, name: str, number: Any) -> npt.NDArray[np.int64]:
    """What texts mean as numbers; 0 for none."""
    codes, texts = _coded(batch.column(name))
    return np.array([number(text) if text else 0 for text in texts], np.int64)[codes]


def _combined(parts: Sequence[tuple[Codes, list[str]]], number: Any) -> npt.NDArray[np.int64]:
    """A number for each row, by the texts that it has in several columns."""
    key = np.zeros(len(parts[0][0]), np.int64)
    for codes, texts in parts:
        key = key * len(texts) + codes
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    numbers = [number([texts[codes[row]] for codes, texts in parts]) for row in first.tolist()]
    return np.array(numbers, np.int64)[inverse]


def _numbers(batch: pa.RecordBatch, name: str, kind: pa.DataType | None = None) -> npt.NDArray[Any]:
    """0 for null."""
    column = batch.column(name)
    if kind is not None:
        column = column.cast(kind)
    found: npt.NDArray[Any] = column.fill_null(0).to_numpy(zero_copy_only=False)
    return found


def _there(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = batch.column(name).is_valid().to_numpy(zero_copy_only=False)
    return found


def _addresses(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.uint8]:
    codes, texts = _coded(batch.column(name))
    packed = b"".join(address_bytes(text) if text else bytes(16) for text in texts)
    return np.frombuffer(packed, np.uint8).reshape(-1, 16)[codes]
