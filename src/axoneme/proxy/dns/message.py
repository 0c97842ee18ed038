"""DNS messages, as far as a proxy between a client and its server has to read them (RFC 1035, 6891, 8914).

Of a query all records are walked through, so that nothing is sent on which only looks like one; of an answer
the question and the answer section are read. What is sent on are the bytes that came, with another ID.

Names are compared in the form of the wire without compression, in lower case: a byte of length is at most 63,
and thus no letter.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

HEADER: Final = 12
A, CNAME, AAAA, OPT, TSIG, IXFR, AXFR = 1, 5, 28, 41, 250, 251, 252
IN: Final = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

_RESPONSE, _TRUNCATED, _DESIRED, _AVAILABLE, _CHECKING = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
_OPCODE, _RCODE = 0x7800, 0x000F
_LONGEST_NAME: Final = 255
#: Of an OPT record of ours: the largest datagram that passes everywhere unfragmented (DNS flag day 2020).
_PAYLOAD: Final = 1232
_PROHIBITED: Final = 18  # extended error

_header = struct.Struct("!HHHHHH").unpack_from
_two = struct.Struct("!HH").unpack_from
_fixed = struct.Struct("!HHIH").unpack_from  # of a record: type, class, TTL, length
_PLAIN: Final = re.compile(rb"[-a-z0-9_]*\Z").match


class Malformed(ValueError):
    """No message. `rcode` is what its sender is told; None: nothing."""

    def __init__(self, what: str, rcode: int | None = None) -> None:
        super().__init__(what)
        self.rcode = rcode


class Query(NamedTuple):
    wire: bytes
    name: bytes  # in the form above
    qtype: int
    qclass: int
    question_end: int
    edns: bool
    dnssec: bool  # the DO bit
    operation: int = 0  # of RFC 1035 and 2136: 0 asks

    @property
    def transfer(self) -> bool:
        """Whether it asks for a zone, which comes in several messages and names more than was asked for."""
        return self.qtype in (AXFR, IXFR)


@dataclass(slots=True)
class Answer:
    """``addresses``: those at the end of the chain of aliases that begins at the name asked for, with the
    least TTL on the way, in seconds."""

    rcode: int
    addresses: dict[str, int]
    cnames: tuple[bytes, ...] = ()
    rrtypes: tuple[int, ...] = ()


@lru_cache(maxsize=8192)
def text(name: bytes) -> str:
    """A name as rules have it: without trailing dot, the root empty, other bytes than those of host names
    escaped (RFC 4343, section 2.1)."""
    labels, at = [], 0
    while length := name[at]:
        label = name[at + 1 : at + 1 + length]
        labels.append(label.decode("ascii") if _PLAIN(label) else _escaped(label))
        at += 1 + length
    return ".".join(labels)


def _escaped(label: bytes) -> str:
    return "".join(
        chr(each) if _PLAIN(bytes((each,))) else f"\\{chr(each)}" if 32 < each < 127 else f"\\{each:03}"
        for each in label
    )


# ---- queries -----------------------------------------------------------------------------------------


def read_query(wire: bytes, *, operations: bool = False) -> Query:
    """Raises `Malformed`. ``operations``: not only what asks, also what changes and announces (its question
    is the zone)."""
    if len(wire) < HEADER:
        raise Malformed("shorter than a header")
    _, flags, questions, answers, authorities, more = _header(wire)
    if flags & _RESPONSE:
        raise Malformed("an answer, not a query")
    if flags & _OPCODE and not operations:
        raise Malformed(f"operation {(flags & _OPCODE) >> 11}", NOTIMP)
    if questions != 1:
        raise Malformed(f"{questions} questions", FORMERR)
    try:
        name, end = _question(wire)
        edns = dnssec = False
        at = end
        for _ in range(answers + authorities + more):
            at = _skip_name(wire, at)
            kind, _, ttl, length = _fixed(wire, at)
            if kind == OPT:
                if edns:
                    raise Malformed("two OPT records", FORMERR)
                edns, dnssec = True, bool(ttl & 0x8000)
            at += 10 + length
        if at != len(wire):
            raise Malformed("it does not end where its records do", FORMERR)
    except (IndexError, struct.error):
        raise Malformed("it ends in the middle", FORMERR) from None
    qtype, qclass = _two(wire, end - 4)
    return Query(wire, name, qtype, qclass, end, edns, dnssec, (flags & _OPCODE) >> 11)


def _question(wire: bytes) -> tuple[bytes, int]:
    """The name, and where the question ends. There is nothing before it that it could point to."""
    at = HEADER
    while length := wire[at]:
        if length > 63:
            raise Malformed("a label of the name asked for is none", FORMERR)
        at += 1 + length
    name, end = wire[HEADER : at + 1].lower(), at + 5
    if len(name) > _LONGEST_NAME:
        raise Malformed(f"a name of over {_LONGEST_NAME} bytes", FORMERR)
    if end > len(wire):
        raise Malformed("it ends in the middle", FORMERR)
    return name, end


def _skip_name(wire: bytes, at: int) -> int:
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise Malformed("a label of a record's name is none", FORMERR)
        at += 1 + length
    return at + 1


# ---- answers of others ---------------------------------------------------------------------------------


def belongs(wire: bytes, query: Query) -> bool:
    """Whether it is an answer to the query: somebody who forges one has to know the question. Servers that
    understood nothing of it may leave it out, and those that say yes to a change, or go on with a zone."""
    if len(wire) < HEADER or not wire[2] & 0x80:
        return False
    questions = wire[4] << 8 | wire[5]
    if questions == 0:
        if query.transfer or query.operation:
            return True
        return wire[3] & _RCODE != NOERROR and wire[6:8] == b"\0\0"
    asked = query.wire[HEADER : query.question_end]
    return questions == 1 and wire[HEADER : query.question_end].lower() == asked.lower()


def read_answer(wire: bytes, query: Query) -> Answer:
    """Of an answer that `belongs` to the query. Raises `Malformed`.

    One that is cut short, and says so, may end within a record.
    """
    _, flags, questions, count, _, _ = _header(wire)
    rcode = flags & _RCODE
    if not count or not questions or query.operation:
        return Answer(rcode, {})
    found: list[tuple[bytes, int, str]] = []
    aliases: dict[bytes, tuple[bytes, int]] = {}
    kinds: dict[int, None] = {}
    names: dict[int, bytes] = {HEADER: query.name}
    at = query.question_end
    try:
        for _ in range(count):
            start, at = at, _skip_name(wire, at)
            kind, rdclass, ttl, length = _fixed(wire, at)
            at += 10
            if at + length > len(wire):
                raise IndexError
            kinds[kind] = None
            if rdclass == IN and kind in (A, AAAA, CNAME):
                ttl = 0 if ttl >> 31 else ttl
                # Most owners are pointers to a name that has been read.
                owner = _name(wire, start, names)
                if kind == CNAME:
                    aliases.setdefault(owner, (_name(wire, at, names), ttl))
                elif kind == A:
                    if length != 4:
                        raise Malformed("an A record that has no address")
                    found.append((owner, ttl, socket.inet_ntop(socket.AF_INET, wire[at : at + 4])))
                elif length != 16:
                    raise Malformed("an AAAA record that has no address")
                else:
                    found.append((owner, ttl, socket.inet_ntop(socket.AF_INET6, wire[at : at + 16])))
            at += length
    except (IndexError, struct.error):
        if not flags & _TRUNCATED:
            raise Malformed("it ends in the middle") from None
    chain = _chain(query.name, aliases)
    addresses: dict[str, int] = {}
    for owner, ttl, address in found:
        if (limit := chain.get(owner)) is not None:
            addresses[address] = min(ttl, limit, addresses.get(address, ttl))
    return Answer(rcode, addresses, tuple(chain)[1:], tuple(kinds))


def _chain(name: bytes, aliases: dict[bytes, tuple[bytes, int]]) -> dict[bytes, int]:
    """The names that stand for the one asked for, itself the first, with the least TTL on the way."""
    chain, ttl = {name: 0x7FFFFFFF}, 0x7FFFFFFF
    while alias := aliases.get(name):
        name, ttl = alias[0], min(ttl, alias[1])
        if name in chain:
            break
        chain[name] = ttl
    return chain


def _name(wire: bytes, at: int, known: dict[int, bytes]) -> bytes:
    """The name at a place, which may end with a pointer to what stands before it."""
    if wire[at] >= 0xC0:
        at = (wire[at] & 0x3F) << 8 | wire[at + 1]
    if (found := known.get(at)) is not None:
        return found
    first, parts, size, before = at, [], 1, at
    while length := wire[at]:
        if length >= 0xC0:
            at = (length & 0x3F) << 8 | wire[at + 1]
            if at >= before:
                raise Malformed("a name that points forward")
            before = at
            continue
        if length > 63:
            raise Malformed("a label that is none")
        size += 1 + length
        if size > _LONGEST_NAME:
            raise Malformed(f"a name of over {_LONGEST_NAME} bytes")
        parts.append(wire[at : at + 1 + length])
        at += 1 + length
    name = known[first] = b"".join(parts).lower() + b"\0"
    return name


# ---- answers of ours -----------------------------------------------------------------------------------


def refusal(query: Query, rcode: int, *, prohibited: bool = False) -> bytes:
    """An answer with the question alone; with EDNS where the query has it, as RFC 6891 (section 6.1.1) asks.

    ``prohibited`` says there that the client was not allowed to ask (RFC 8914).
    """
    said = (_flags(query.wire) & (_DESIRED | _CHECKING)) | _RESPONSE | _AVAILABLE | rcode
    head = query.wire[:2] + struct.pack("!HHHHH", said, 1, 0, 0, 1 if query.edns else 0)
    question = query.wire[HEADER : query.question_end]
    if not query.edns:
        return head + question
    option = struct.pack("!HHH", 15, 2, _PROHIBITED) if prohibited else b""
    opt = struct.pack("!BHHIH", 0, OPT, _PAYLOAD, 0x8000 if query.dnssec else 0, len(option))
    return head + question + opt + option


def complaint(wire: bytes, rcode: int) -> bytes:
    """An answer to what may be anything behind its header."""
    said = _flags(wire) & (_OPCODE | _DESIRED) | _RESPONSE | _AVAILABLE | rcode
    return wire[:2] + struct.pack("!HHHHH", said, 0, 0, 0, 0)


def with_id(wire: bytes, number: int) -> bytes:
    return number.to_bytes(2) + wire[2:]


def id_of(wire: bytes) -> int:
    return wire[0] << 8 | wire[1]


def _flags(wire: bytes) -> int:
    return wire[2] << 8 | wire[3]
