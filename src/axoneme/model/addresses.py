"""IP addresses in manifests."""

from __future__ import annotations

import ipaddress

from axoneme.model.paths import Place

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What ``ipFamilies`` and ``addressType`` call the versions of IP.
FAMILIES = {"IPv4": 4, "IPv6": 6}

_IPV4_IN_IPV6 = ipaddress.IPv6Network("::ffff:0:0/96")


def address(place: Place) -> Address:
    """One address, without prefix or zone."""
    try:
        found = ipaddress.ip_address(place.text())
    except ValueError:
        place.refuse("an IP address belongs here")
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id or found in _IPV4_IN_IPV6):
        place.refuse("an IP address belongs here: without a zone, and an IPv4 address written as one")
    return found


def unicast(place: Place) -> Address:
    """An address to which packets can be sent from another machine.

    The Kubernetes API refuses the others as endpoints and external addresses: through them whoever may write
    a Service could reach what listens on a node's loopback, or a cloud's metadata.
    """
    found = routable(place)
    if found.is_link_local:
        place.refuse("an address of another machine belongs here: this one is link-local")
    return found


def routable(place: Place) -> Address:
    """The same, or one of the link, such as the 169.254.169.254 under which clouds serve metadata."""
    found = address(place)
    for name, special in (
        ("unspecified", found.is_unspecified),
        ("loopback", found.is_loopback),
        ("multicast", found.is_multicast),
    ):
        if special:
            place.refuse(f"an address of another machine belongs here: this one is {name}")
    return found
