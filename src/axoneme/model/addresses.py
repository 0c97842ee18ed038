"""IP addresses in manifests."""

from __future__ import annotations

import ipaddress

from axoneme.model.paths import Place

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What ``ipFamilies`` and ``addressType`` call the versions of IP.
FAMILIES = {"IPv4": 4, "IPv6": 6}


def address(place: Place) -> Address:
    """One address, without prefix or zone."""
    try:
        found = ipaddress.ip_address(place.text())
    except ValueError:
        place.refuse("an IP address belongs here")
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id or int(found) >> 32 == 0xFFFF):
        place.refuse("an IP address belongs here: without a zone, and an IPv4 address written as one")
    return found


def unicast(place: Place) -> Address:
    """An address to which packets can be sent from another machine.

    The Kubernetes API refuses the others as endpoints and external addresses: through them whoever may write
    a Service could reach what listens on a node's loopback, or a cloud's metadata.
    """
    return _other_than(place, "unspecified", "loopback", "multicast", "link-local")


def routable(place: Place) -> Address:
    """The same, or one of the link, such as the 169.254.169.254 under which clouds serve metadata."""
    return _other_than(place, "unspecified", "loopback", "multicast")


def special(found: Address) -> str:
    """What an address is that no single machine elsewhere has; empty for one that can be anybody's.

    As `ipaddress` says it, in a tenth of the time: there are a hundred thousand endpoints.
    """
    number = int(found)
    if number == 0:
        return "unspecified"
    top = number >> 24 if found.version == 4 else number >> 120
    if found.version == 4:
        if top == 127:
            return "loopback"
        return "multicast" if top >> 4 == 0xE else "link-local" if number >> 16 == 0xA9FE else ""
    if number == 1:
        return "loopback"
    return "multicast" if top == 0xFF else "link-local" if number >> 118 == 0x3FA else ""


def _other_than(place: Place, *unwanted: str) -> Address:
    found = address(place)
    if (what := special(found)) in unwanted:
        place.refuse(f"an address of another machine belongs here: this one is {what}")
    return found
