"""What is kept of requests beside their records: texts have no fixed size, so they stand on a shelf.

A record's column ``request`` has the number under which its text stands; 0: it is no request. Refused ones
have a shelf of their own, as they have a ring: no load of requests that passed displaces them. Where a shelf
is full, in number or in bytes, the oldest goes; its record stays, and says who and when, but not what.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from axoneme.flows.flow import DNS, HTTP, HTTPHeader, Kafka, Layer7
from axoneme.model.l7event import HTTPEvent, L7Event

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Layer7).decode


class _Shelf:
    def __init__(self, most: int, size: int) -> None:
        self._most, self._size = most, size
        self._texts: deque[bytes] = deque()
        self._first = 1
        self._bytes = 0

    def put(self, text: bytes) -> int:
        self._texts.append(text)
        self._bytes += len(text)
        while len(self._texts) > self._most or (self._bytes > self._size and len(self._texts) > 1):
            self._bytes -= len(self._texts.popleft())
            self._first += 1
        return self._first + len(self._texts) - 1

    def get(self, number: int) -> bytes | None:
        place = number - self._first
        return self._texts[place] if 0 <= place < len(self._texts) else None


class Requests:
    """``most`` of them, and ``size`` bytes, of those that passed; of those that did not, a quarter."""

    def __init__(self, most: int = 16384, size: int = 1 << 23) -> None:
        self._passed = _Shelf(most, size)
        self._refused = _Shelf(max(1, most // 4), size // 4)

    def put(self, request: Layer7, refused: bool) -> int:
        """Its number."""
        shelf = self._refused if refused else self._passed
        return shelf.put(_encode(request)) << 1 | refused

    def get(self, number: int) -> Layer7 | None:
        text = (self._refused if number & 1 else self._passed).get(number >> 1)
        return None if text is None else _decode(text)


def layer7(event: L7Event) -> Layer7:
    """In Hubble's terms."""
    http, dns, kafka = event.http, event.dns, event.kafka
    return Layer7(
        event.type,
        event.latency_ns,
        http=_http(http) if http else None,
        dns=DNS(dns.query, dns.ips, dns.ttl, dns.cnames, "proxy", dns.rcode, dns.qtypes, dns.rrtypes)
        if dns
        else None,
        kafka=Kafka(
            kafka.error_code,
            kafka.api_version,
            kafka.api_key,
            kafka.correlation_id,
            kafka.topic,
            kafka.client_id,
        )
        if kafka
        else None,
        server_name=event.server_name,
        reason=event.reason,
    )


def _http(event: HTTPEvent) -> HTTP:
    headers = tuple(HTTPHeader(name, value) for name, value in event.headers)
    return HTTP(event.code, event.method, event.url, event.protocol, headers, event.grpc_status)


#: RFC 1035, 2136, by the names that Go's packet library, and so Hubble, has for them.
RCODES: Final = {
    1: "Format Error",
    2: "Server Failure",
    3: "Non-Existent Domain",
    4: "Not Implemented",
    5: "Query Refused",
}


def summary(request: Layer7) -> str:
    """One line, as Hubble writes it."""
    answered = request.type == "RESPONSE"
    if http := request.http:
        if answered:
            asked = f"{http.method} {http.url}"
            text = f"{http.protocol} {http.code} {_milliseconds(request)} ({asked})"
        else:
            text = f"{http.protocol} {http.method} {http.url}" + (f" {http.code}" if http.code else "")
        return text if http.grpc_status is None else f"{text} grpc-status {http.grpc_status}"
    if dns := request.dns:
        asked = f"{dns.query} {','.join(dns.qtypes)}".rstrip()
        if not answered:
            return f"DNS Query {asked}"
        words = ["DNS Answer"]
        if dns.rcode:
            words.append(f"RCode: {RCODES.get(dns.rcode, dns.rcode)}")
        if dns.ips:
            words.append(f'"{",".join(dns.ips)}"')
        if dns.cnames:
            words.append(f'CNAMEs: "{",".join(dns.cnames)}"')
        return " ".join((*words, f"TTL: {dns.ttl} (Proxy {asked})"))
    if kafka := request.kafka:
        text = f"Kafka {kafka.api_key} correlation id {kafka.correlation_id}"
        if kafka.topic:
            text += f" topic '{kafka.topic}'"
        if kafka.error_code:
            text += f" error {kafka.error_code}"
        return f"{text} {_milliseconds(request)}" if answered else text
    return f"TLS {request.server_name}" if request.server_name else "L7"


def _milliseconds(request: Layer7) -> str:
    return f"{request.latency_ns / 1e6:.0f}ms"
