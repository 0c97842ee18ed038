"""What names, labels, ports and address ranges may look like, as the Kubernetes API has it.

Each check takes a `Place` and gives its value, typed, or refuses it.
Sources: RFC 1123, RFC 1035, RFC 6335 section 5.1, and the Kubernetes documentation on names and labels.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from axoneme.model.paths import Place
from axoneme.model.policy import Network

_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL_TEXT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_SERVICE_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]+(-[A-Za-z0-9]+)*\Z")
_PREFIX = re.compile(r"(?P<address>[0-9A-Fa-f:.]+)(?:/(?P<bits>0|[1-9][0-9]{0,2}))?\Z")

_IPV4_IN_IPV6 = ipaddress.IPv6Network("::ffff:0:0/96")

LAST_PORT = 65535


def dns_label(place: Place) -> str:
    """A name of one part, such as a namespace's or a container's."""
    name = place.name()
    if len(name) > 63 or not _LABEL_1123.match(name):
        place.refuse("a name of at most 63 lower-case letters, digits and '-' belongs here (RFC 1123 label)")
    return name


def dns_1035_label(place: Place) -> str:
    """A service's name: it starts with a letter."""
    name = place.name()
    if len(name) > 63 or not _LABEL_1035.match(name):
        place.refuse(
            "a name of at most 63 lower-case letters, digits and '-', starting with a letter, belongs here"
        )
    return name


def dns_subdomain(place: Place) -> str:
    """The name of most objects."""
    name = place.name()
    if len(name) > 253 or not _SUBDOMAIN.match(name):
        place.refuse(
            "a name of at most 253 lower-case letters, digits, '-' and '.' belongs here (RFC 1123 subdomain)"
        )
    return name


def is_label_key(key: str) -> bool:
    """Whether it is ``name`` or ``prefix/name``: a name of at most 63 characters, a DNS subdomain."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.match(prefix)):
        return False
    return len(name) <= 63 and bool(_LABEL_TEXT.match(name))


def label_key(place: Place) -> str:
    key = place.text()
    if not is_label_key(key):
        place.refuse(
            "a label's key is [prefix/]name: at most 63 letters, digits, '-', '_' and '.', which begins and "
            "ends with a letter or digit; the prefix is a DNS name",
            f"the key {key!r}",
        )
    return key


def is_label_value(value: str) -> bool:
    """Whether it is empty, or at most 63 characters of a label's."""
    return not value or (len(value) <= 63 and bool(_LABEL_TEXT.match(value)))


def label_value(place: Place) -> str:
    value = place.text()
    if not is_label_value(value):
        place.refuse(
            "a label's value has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a "
            "letter or digit"
        )
    return value


def labels(place: Place | None) -> Mapping[str, str]:
    """Labels of an object."""
    if place is None:
        return {}
    return {label_key(key): label_value(value) for key, value in place.fields().entries()}


def texts(place: Place | None) -> Mapping[str, str]:
    """A mapping from strings to strings, such as annotations."""
    if place is None:
        return {}
    return {key.text(): value.text() for key, value in place.fields().entries()}


def port_number(place: Place) -> int:
    """A port from 1 on."""
    return place.number(1, LAST_PORT)


def is_port_name(name: str) -> bool:
    """Whether it has the form of a service name (RFC 6335): at least one letter, no two '-' in a row."""
    return len(name) <= 15 and bool(_SERVICE_NAME.match(name))


def port_name(place: Place) -> str:
    """The name of a container's or a service's port: lower case."""
    name = place.name()
    if not is_port_name(name) or name != name.lower():
        place.refuse(
            "a port's name has at most 15 lower-case letters, digits and single '-', at least one a letter"
        )
    return name


def network(place: Place, *, bare: bool = False) -> Network:
    """An address range, ``address/bits``; bits of the host part are cleared. A ``bare`` address may pass."""
    text = place.text()
    match = _PREFIX.match(text)
    if match is None or (match["bits"] is None and not bare):
        place.refuse(f"an address range like 10.0.0.0/8 or 2001:db8::/32{_or_bare(bare)} belongs here")
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        place.refuse(f"an address range like 10.0.0.0/8 or 2001:db8::/32{_or_bare(bare)} belongs here")
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_IPV4_IN_IPV6):
        place.refuse("an IPv4 range must be written as one: this form would never match a packet")
    return found


def inside(inner: Network, outer: Network) -> bool:
    """Whether every address of ``inner`` lies in ``outer``."""
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _or_bare(bare: bool) -> str:
    return ", or a single address," if bare else ""
