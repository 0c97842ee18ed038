"""The L4 part of a Cilium rule: ``toPorts``, ``icmps``.

``toPorts`` or ``icmps`` that are absent or empty mean every packet; an entry of theirs that lists no port
or type covers none. A port without a protocol is TCP, UDP and SCTP, never ICMP; port "0", or a protocol
without a port, is every port.

What hangs on the ports of an entry (`axoneme.model.ciliuml7`) makes it a rule of its own, and says more of
its ports: they have numbers or names, and are of the protocols that its proxy speaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from axoneme.model import checks
from axoneme.model.ciliuml7 import FIELDS as ABOVE_L4
from axoneme.model.ciliuml7 import parse_l7
from axoneme.model.icmptypes import FAMILIES, IPV4, TYPES
from axoneme.model.l7 import L7, L7Kind
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import Direction, NamedPort, Port, PortRange, Protocol

#: Entries of one ``ports`` or ``fields`` list.
MOST = 40

_ANY = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_PROTOCOLS = {"TCP": _ANY[:1], "UDP": _ANY[1:2], "SCTP": _ANY[2:], "ANY": _ANY}
_OTHER_PROTOCOLS = ("VRRP", "IGMP")


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports with what stands above them. ``path``: of the entry that is a rule of its own; else empty."""

    ports: tuple[Port, ...]
    l7: L7 | None = None
    path: str = ""


def parse_ports(
    fields: Fields, direction: Direction, deny: bool, namespace: str | None
) -> tuple[Ports, ...] | None:
    """The ports and ICMP types of a rule, those without anything above them in one; None when it has no L4
    part. ``namespace`` is that of the policy, if it has one."""
    port_entries, icmp_entries = fields.stated_items("toPorts"), fields.stated_items("icmps")
    if port_entries and icmp_entries:
        fields.place("icmps").refuse("icmps and toPorts cannot stand in one rule: make two rules")
    if not port_entries and not icmp_entries:
        return None
    entries = [_port_rule(entry, direction, deny, namespace) for entry in port_entries]
    plain = [port for entry in entries if entry.l7 is None for port in entry.ports]
    plain += [type_ for entry in icmp_entries for type_ in _icmp_rule(entry)]
    above = tuple(entry for entry in entries if entry.l7)
    return above if above and not plain else (Ports(tuple(dict.fromkeys(plain))), *above)


# ---- ports -------------------------------------------------------------------------------------


def _port_rule(place: Place, direction: Direction, deny: bool, namespace: str | None) -> Ports:
    fields = place.fields(("ports", *ABOVE_L4))
    items = _items(fields, "ports")
    l7 = parse_l7(fields, direction, deny, namespace)
    if l7 is None:
        return Ports(tuple(port for item in items for port in _port(item)))
    if not items:
        fields.place("ports").refuse("what stands above ports needs some")
    ports = dict.fromkeys(port for item in items for port in _proxied(item, l7.kind))
    return Ports(tuple(ports), l7, place.path)


def _proxied(place: Place, kind: L7Kind) -> list[Port]:
    """The same for ports that a proxy of some kind looks at."""
    ports, fields = _port(place), place.fields()
    protocol = fields.place("protocol")
    spoken = (Protocol.TCP, Protocol.UDP) if kind is L7Kind.DNS else (Protocol.TCP,)
    if protocol.value in (None, "", "ANY"):
        # Rules for HTTP and Kafka are about TCP alone, and have to say so; what looks for server names in any
        # protocol finds them in TCP.
        wrong = kind in (L7Kind.HTTP, L7Kind.KAFKA)
    else:
        wrong = ports[0].protocol not in spoken
    if wrong:
        protocol.refuse(f"with {kind.name} it must be {' or '.join(each.name for each in spoken)}")
    for port in ports:
        if isinstance(port, PortRange) and (port.first == 0 or not fields.get("port")):
            fields.place("port").refuse("what stands above ports needs their numbers or names")
    if kind is L7Kind.DNS and (end := fields.get("endPort")) is not None:
        end.refuse("DNS rules are for single ports")
    return [
        PortRange(protocol, port.first, port.last)
        if isinstance(port, PortRange)
        else NamedPort(protocol, port.name)
        for protocol in spoken
        for port in ports
        if port.protocol in (protocol, Protocol.ANY)
    ]


def _port(place: Place) -> tuple[Port, ...]:
    fields = place.fields(("port", "endPort", "protocol"))
    protocols = _protocols(fields)
    port = fields.stated("port")
    end = fields.stated("endPort")
    last = 0 if end is None else end.number(0, checks.LAST_PORT)
    if port is None and end is not None:
        end.refuse("endPort needs a port where the range begins")
    if port is None:
        return tuple(map(PortRange, protocols))
    text = port.text()
    if checks.is_port_name(text):
        # A range cannot begin at a name: the API passes over endPort then.
        protocol = protocols[0] if len(protocols) == 1 else Protocol.ANY
        return (NamedPort(protocol, text.lower()),)
    first = _number(port, text)
    if first == 0:
        if end is not None and last not in (0, checks.LAST_PORT):
            end.refuse('port "0" means every port already')
        return tuple(map(PortRange, protocols))
    return tuple(PortRange(protocol, first, max(first, last)) for protocol in protocols)


def _number(place: Place, text: str) -> int:
    right = 'a port from "0" to "65535", or the name of a container\'s port, belongs here'
    if not text.isascii() or not text.isdigit() or len(text) > 5 or (text[0] == "0" and text != "0"):
        place.refuse(right)
    number = int(text)
    if number > checks.LAST_PORT:
        place.refuse(right)
    return number


def _protocols(fields: Fields) -> tuple[Protocol, ...]:
    place = fields.stated("protocol")
    if place is None or place.value == "":
        return _ANY
    if place.value in _OTHER_PROTOCOLS:
        place.refuse("policy for this protocol is not supported yet")
    if place.value in ("ICMP", "ICMPv6", "ICMPV6"):
        place.refuse("ICMP has types instead of ports: write them under icmps")
    return _PROTOCOLS[place.one_of(_PROTOCOLS)]


# ---- ICMP --------------------------------------------------------------------------------------


def _icmp_rule(place: Place) -> list[Port]:
    return [_icmp_type(item) for item in _items(place.fields(("fields",)), "fields")]


def _icmp_type(place: Place) -> Port:
    fields = place.fields(("family", "type"))
    stated = fields.stated("family")
    family = stated.one_of(FAMILIES) if stated else IPV4
    type_ = fields.need("type", "an ICMP type belongs here, by number or name")
    value = type_.value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 3:
        value = int(value)
    if isinstance(value, str):
        number = TYPES[family][type_.one_of(TYPES[family])]
    else:
        number = Place(value, type_.path).number(0, 255)
    return PortRange(FAMILIES[family], number, number)


def _items(fields: Fields, name: str) -> list[Place]:
    items = fields.stated_items(name)
    if len(items) > MOST:
        fields.place(name).refuse(f"at most {MOST} items are allowed: make it several entries")
    return items
