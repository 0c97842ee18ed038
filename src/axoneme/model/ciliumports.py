"""The L4 part of a Cilium rule (``toPorts``, ``icmps``), and the place of what stands above it.

``toPorts`` or ``icmps`` that are absent or empty mean every packet; an entry of theirs that lists no port
or type covers none. A port without a protocol is TCP, UDP and SCTP, never ICMP; port "0", or a protocol
without a port, is every port.

L7 rules, TLS, server names and listeners hang on the entries of ``toPorts``. None of them can be enforced
yet, so `_above_l4` refuses them: taking a rule without them would let more pass than it says.
"""

from __future__ import annotations

from axoneme.model import checks
from axoneme.model.icmptypes import FAMILIES, IPV4, TYPES
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import Direction, NamedPort, Port, PortRange, Protocol

#: Entries of one ``ports`` or ``fields`` list.
MOST = 40

_ANY = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_PROTOCOLS = {"TCP": _ANY[:1], "UDP": _ANY[1:2], "SCTP": _ANY[2:], "ANY": _ANY}
_OTHER_PROTOCOLS = ("VRRP", "IGMP")
_L7 = {"http": "HTTP", "kafka": "Kafka", "dns": "DNS", "l7": "l7proto"}
_ABOVE_L4 = ("rules", "serverNames", "terminatingTLS", "originatingTLS", "listener")


def parse_ports(fields: Fields, direction: Direction, deny: bool) -> tuple[Port, ...] | None:
    """The ports and ICMP types of a rule; None when it has no L4 part."""
    port_entries, icmp_entries = fields.stated_items("toPorts"), fields.stated_items("icmps")
    if port_entries and icmp_entries:
        fields.place("icmps").refuse("icmps and toPorts cannot stand in one rule: make two rules")
    ports = [port for entry in port_entries for port in _port_rule(entry, direction, deny)]
    types = [type_ for entry in icmp_entries for type_ in _icmp_rule(entry)]
    return tuple(dict.fromkeys([*ports, *types])) if port_entries or icmp_entries else None


# ---- ports -------------------------------------------------------------------------------------


def _port_rule(place: Place, direction: Direction, deny: bool) -> list[Port]:
    fields = place.fields(("ports", *_ABOVE_L4))
    items = _items(fields, "ports")
    _above_l4(fields, direction, deny)
    return [port for item in items for port in _port(item)]


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


# ---- what hangs on the ports -------------------------------------------------------------------


def _above_l4(fields: Fields, direction: Direction, deny: bool) -> None:
    for name in _ABOVE_L4:
        place = fields.stated(name)
        if place is None:
            continue
        if deny:
            place.refuse("deny rules act on peers and ports only")
        if name == "rules":
            _l7_rules(place, direction)
        elif name == "serverNames":
            place.refuse("server names (TLS SNI) are not supported yet: the rule could not be enforced")
        elif name == "listener":
            place.refuse("listeners are not supported yet: the rule could not be enforced")
        else:
            place.refuse("TLS in the proxy is not supported yet: the rule could not be enforced")


def _l7_rules(place: Place, direction: Direction) -> None:
    """An empty list asks for no L7 enforcement: the port stays an L4 rule."""
    fields = place.fields((*_L7, "l7proto"))
    present = [(name, member) for name in _L7 if (member := fields.stated(name)) is not None]
    if len(present) > 1:
        present[1][1].refuse(f"a port has one kind of L7 rules: it has {present[0][0]} already")
    proto = fields.stated("l7proto")
    if proto is not None and proto.value != "":
        proto.refuse("L7 rules of other protocols are not supported yet: the rule could not be enforced")
    for name, member in present:
        if not member.items() and name != "l7":
            continue
        if name == "dns" and direction is Direction.INGRESS:
            member.refuse("DNS rules are for egress")
        member.refuse(f"L7 rules ({_L7[name]}) are not supported yet: the rule could not be enforced")


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
