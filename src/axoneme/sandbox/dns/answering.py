"""From the bytes of a query to those of its answer (RFC 1034, 1035, 2308, 6891, 6604)."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rrset
from dns.message import Message
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, AXFR, CNAME, IXFR, SOA, SRV, A, RdataType

#: What a name has, by type; empty for a name that is only above others.
Records = Mapping[RdataType, Sequence[dns.rdata.Rdata]]

#: Asks others: a query, and whether over TCP; None when nobody answers.
Ask = Callable[[bytes, bool], Awaitable[bytes | None]]

#: The largest datagram that is sent and asked for: it passes everywhere unfragmented (DNS flag day 2020).
LARGEST_DATAGRAM: Final = 1232
_SMALLEST_DATAGRAM: Final = 512
_LONGEST_CHAIN: Final = 8
_HEADER: Final = 12


class Zone(Protocol):
    """Names that are answered for here."""

    #: Seconds for which answers may be kept.
    ttl: int

    def not_ours(self, name: Name) -> bool:
        """Whether somebody else must be asked for it."""
        ...

    def records(self, name: Name) -> Records | None:
        """What one of our names has; None when there is no such name."""
        ...

    def authority(self, name: Name) -> tuple[Name, dns.rdata.Rdata]:
        """The zone in which a name is, and its SOA."""
        ...


@dataclass(slots=True)
class _Found:
    """`beyond`: the name at which a chain of aliases leaves the zone."""

    rcode: Rcode = dns.rcode.NOERROR
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    additional: list[dns.rrset.RRset] = field(default_factory=list)
    beyond: Name | None = None


async def respond(wire: bytes, tcp: bool, zone: Zone, ask: Ask) -> bytes | None:
    """The answer to a query that came over TCP or UDP; None for what must not be answered."""
    if len(wire) < _HEADER or wire[2] & 0x80:  # an answer, perhaps of somebody who was told a wrong sender
        return None
    if wire[2] >> 3 & 15 != dns.opcode.QUERY:
        return _header(wire, dns.rcode.NOTIMP)
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return _header(wire, dns.rcode.FORMERR)
    if len(query.question) != 1:
        return _header(wire, dns.rcode.FORMERR)
    size = 65535 if tcp else _SMALLEST_DATAGRAM
    if query.edns >= 0 and not tcp:
        size = min(max(query.payload, _SMALLEST_DATAGRAM), LARGEST_DATAGRAM)
    response = dns.message.make_response(query, recursion_available=True, our_payload=LARGEST_DATAGRAM)
    question = query.question[0]
    if query.edns > 0:
        response.use_edns(0, payload=LARGEST_DATAGRAM)
        response.set_rcode(dns.rcode.BADVERS)
    elif question.rdclass != IN or question.rdtype in (AXFR, IXFR):
        response.set_rcode(dns.rcode.REFUSED)
    elif zone.not_ours(question.name):
        answer = await ask(wire, tcp)
        if answer is not None:
            return answer
        response.set_rcode(dns.rcode.SERVFAIL)
    else:
        found = _look_up(zone, question.name, question.rdtype)
        if found.beyond is not None:
            await _follow(found, found.beyond, question.rdtype, ask)
        response.flags |= dns.flags.AA
        response.set_rcode(found.rcode)
        response.answer, response.authority, response.additional = (
            found.answer,
            found.authority,
            found.additional,
        )
    return response.to_wire(max_size=size, prefer_truncation=True)


def _look_up(zone: Zone, name: Name, kind: RdataType) -> _Found:
    """The name's records, and those to which its aliases lead within the zone."""
    found = _Found()
    for _ in range(_LONGEST_CHAIN):
        records = zone.records(name)
        if records is None:
            found.rcode = dns.rcode.NXDOMAIN
            break
        if kind == ANY:
            found.answer += [_set(zone, name, each, records) for each in records]
            break
        if kind in records:
            found.answer.append(_set(zone, name, kind, records))
            if kind == SRV:
                found.additional += _places(zone, records)
            return found
        if CNAME not in records:
            break
        found.answer.append(_set(zone, name, CNAME, records))
        name = _target(records[CNAME][0])
        if zone.not_ours(name):
            found.beyond = name
            return found
    if not found.answer or found.rcode != dns.rcode.NOERROR or found.answer[-1].rdtype == CNAME != kind:
        owner, authority = zone.authority(name)
        found.authority.append(dns.rrset.from_rdata(owner, zone.ttl, authority))
    return found


def _set(zone: Zone, name: Name, kind: RdataType, records: Records) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(name, zone.ttl, records[kind])


def _target(record: dns.rdata.Rdata) -> Name:
    """Of a CNAME or SRV record."""
    target: Name = record.target  # type: ignore[attr-defined]
    return target


def _places(zone: Zone, records: Records) -> list[dns.rrset.RRset]:
    """The addresses of the targets of SRV records, which saves whoever asked another question."""
    found = []
    for target in dict.fromkeys(map(_target, records[SRV])):
        there = None if zone.not_ours(target) else zone.records(target)
        found += [_set(zone, target, kind, there) for kind in (A, AAAA) if there and kind in there]
    return found


async def _follow(found: _Found, name: Name, kind: RdataType, ask: Ask) -> None:
    """Adds what others say of a name to which an alias has led: a client's libc does not ask again."""
    wire = await ask(dns.message.make_query(name, kind, use_edns=0).to_wire(), True)
    try:
        said: Message | None = dns.message.from_wire(wire) if wire is not None else None
    except (dns.exception.DNSException, ValueError):
        said = None
    if said is None:
        found.rcode = dns.rcode.SERVFAIL
        return
    found.rcode = said.rcode()
    found.answer += said.answer
    found.authority += [each for each in said.authority if each.rdtype == SOA]


def _header(wire: bytes, rcode: Rcode) -> bytes:
    """An answer that only says what is wrong, to a query that may be anything behind its header."""
    flags = struct.unpack_from("!H", wire, 2)[0]
    kept = flags & (0x7800 | dns.flags.RD)
    return wire[:2] + struct.pack("!H", dns.flags.QR | dns.flags.RA | kept | rcode) + bytes(8)
