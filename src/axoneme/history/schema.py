"""The columns of flows: of the files, of the table ``flows`` in SQL, and of Arrow tables. docs/history.md has
them for users; names and texts are Hubble's where it has the same."""

from __future__ import annotations

from typing import Final, NamedTuple

import pyarrow as pa

#: Raised when a column changes what it means; new ones do not.
VERSION: Final = 1

WORD: Final = pa.dictionary(pa.int32(), pa.string())
WORDS: Final = pa.list_(pa.string())
TIME: Final = pa.timestamp("ns", "UTC")


class Column(NamedTuple):
    name: str
    type: pa.DataType
    meaning: str

    @property
    def sql(self) -> str:
        """Its type in DuckDB."""
        return _SQL[self.type]


_SQL: Final = {
    WORD: "VARCHAR",
    pa.string(): "VARCHAR",
    WORDS: "VARCHAR[]",
    TIME: "TIMESTAMPTZ_NS",
    pa.bool_(): "BOOLEAN",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
}


def _end(side: str, who: str) -> tuple[Column, ...]:
    return (
        Column(side, WORD, f"address of {who}"),
        Column(f"{side}_port", pa.uint16(), "its port; null for protocols without"),
        Column(f"{side}_identity", pa.uint32(), "its security identity"),
        Column(f"{side}_endpoint", pa.uint16(), "the endpoint's number on this node; null elsewhere"),
        Column(f"{side}_namespace", WORD, "of its pod"),
        Column(f"{side}_pod", WORD, "its name"),
        Column(f"{side}_workload_kind", WORD, "what the pod belongs to: Deployment, …"),
        Column(f"{side}_workload", WORD, "its name"),
        Column(f"{side}_node", WORD, "where the pod runs, or the node that it is"),
        Column(f"{side}_labels", WORDS, "k8s:app=web, reserved:world, …"),
    )


COLUMNS: Final = (
    Column("time", TIME, "when it was seen"),
    Column("node", WORD, "who saw it"),
    Column("verdict", WORD, "FORWARDED, DROPPED, REDIRECTED, AUDIT, …"),
    Column("drop_reason", WORD, "POLICY_DENIED, …; null for what was not dropped"),
    Column("event", WORD, "new, end, drop, request, response"),
    Column("direction", WORD, "INGRESS or EGRESS, as the node's pod sees it"),
    Column("reply", pa.bool_(), "whether it goes from who answers to who asked"),
    Column("protocol", WORD, "TCP, UDP, SCTP, ICMPv4, ICMPv6, or a number"),
    *_end("source", "the sender"),
    *_end("destination", "the receiver"),
    Column("service_namespace", WORD, "of the service that was called"),
    Column("service", WORD, "its name; null where none was called"),
    Column("service_port", WORD, "its port's name, or 80/TCP"),
    Column("frontend", WORD, "the address by which it was called"),
    Column("frontend_port", pa.uint16(), "and the port"),
    Column("tcp_flags", WORD, "SYN,ACK, … of the packet that was seen"),
    Column("icmp_type", pa.uint8(), "null for others than ICMP"),
    Column("icmp_code", pa.uint8(), ""),
    Column("egress_allowed_by", WORDS, "policies: NetworkPolicy shop/web spec.egress[0]"),
    Column("egress_denied_by", WORDS, ""),
    Column("ingress_allowed_by", WORDS, ""),
    Column("ingress_denied_by", WORDS, ""),
    Column("interface", pa.uint32(), "where it was seen: the interface's index"),
    Column("proxy_port", pa.uint16(), "of the proxy that it was sent to"),
    Column("source_xlated", WORD, "as whom a masqueraded connection goes on"),
    Column("source_port_xlated", pa.uint16(), ""),
    Column("duration_ns", pa.int64(), "of a connection, at its end"),
    Column("packets", pa.uint64(), "from who began it; at its end, and of a drop"),
    Column("bytes", pa.uint64(), ""),
    Column("reply_packets", pa.uint64(), "to who began it; at its end"),
    Column("reply_bytes", pa.uint64(), ""),
    Column("handshake_ns", pa.int64(), "of a TCP connection, at its end; null: not measured"),
    Column("rtt_ns", pa.int64(), "its round trip time, smoothed"),
    Column("min_rtt_ns", pa.int64(), ""),
    Column("retransmissions", pa.uint32(), "segments sent again by who began it; null for none"),
    Column("reply_retransmissions", pa.uint32(), "by the other end"),
    Column("latency_ns", pa.int64(), "between request and response"),
    Column("http_method", WORD, ""),
    Column("http_url", pa.string(), ""),
    Column("http_protocol", WORD, "HTTP/1.1, …"),
    Column("http_status", pa.uint16(), ""),
    Column("grpc_status", pa.int32(), ""),
    Column("dns_query", pa.string(), "the name that was asked for"),
    Column("dns_rcode", pa.uint16(), "of an answer"),
    Column("dns_ips", WORDS, "of an answer"),
    Column("kafka_api", WORD, "produce, fetch, …"),
    Column("kafka_topic", WORD, ""),
    Column("l7", pa.string(), "all of the request, as JSON, in Hubble's fields"),
)

SCHEMA: Final = pa.schema(
    [pa.field(each.name, each.type, metadata={"meaning": each.meaning}) for each in COLUMNS],
    metadata={"axoneme.flows": str(VERSION)},
)
