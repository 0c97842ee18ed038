"""What the echo server says: who it is, who asked, and the request it saw.

Over HTTP, UDP and as the first line over plain TCP it is one JSON object, an `Answer`. The client helper
reads the same struct back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

import msgspec

#: How much of a body or datagram an answer repeats.
REPEATED: Final = 1024


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a listening socket speaks for; the world has no namespace."""

    pod: str
    namespace: str
    node: str
    addresses: tuple[str, ...] = ()


class Endpoint(msgspec.Struct, frozen=True):
    address: str
    port: int


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``protocol`` is tcp, udp, sctp, http/1.1, h2 or grpc; ``length`` counts the bytes of the body, of
    which ``body`` repeats the beginning, as text."""

    protocol: str
    method: str = ""
    path: str = ""
    headers: dict[str, str] = {}
    length: int = 0
    body: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """``server`` is the address that was asked, ``peer`` the one that the server saw asking."""

    pod: str
    namespace: str
    node: str
    addresses: tuple[str, ...]
    server: Endpoint
    peer: Endpoint
    request: Request


def compose(identity: Identity, server: Endpoint, peer: Endpoint, request: Request) -> bytes:
    """The answer as one line of JSON, with its newline."""
    answer = Answer(
        pod=identity.pod,
        namespace=identity.namespace,
        node=identity.node,
        addresses=identity.addresses,
        server=server,
        peer=peer,
        request=request,
    )
    return msgspec.json.encode(answer) + b"\n"


def endpoint(name: tuple[str, int, int, int] | tuple[str, int]) -> Endpoint:
    """A socket's address as people write it: IPv4 seen through an IPv6 socket is IPv4 again."""
    address = ipaddress.ip_address(name[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Endpoint(str(address), name[1])


def text(beginning: bytes) -> str:
    """Bytes as text for JSON, what is no UTF-8 replaced."""
    return beginning[:REPEATED].decode("utf-8", "replace")


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; repeated ones joined by commas (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found
