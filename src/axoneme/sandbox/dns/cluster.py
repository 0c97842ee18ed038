"""Names of the cluster: what the specification of DNS-based service discovery, 1.1.0, has of them.

Pure: services, slices and namespaces in, records of a name out. There is no table of all names; what a name
has follows from its labels and from the few objects that these name.
Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md; where that is silent, CoreDNS as
kubeadm sets it up (``pods insecure``: the address of a pod's name is in the name itself).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.reversename
from dns.name import Name
from dns.rdataclass import IN
from dns.rdatatype import AAAA, CNAME, NS, PTR, SOA, SRV, TXT, A, RdataType

from axoneme.sandbox.dns.answering import Records
from axoneme.sandbox.dns.domain import DOMAIN
from axoneme.sandbox.objects import Service
from axoneme.sandbox.services.slices import Endpoint, EndpointSlice

#: Of the specification that is served, under ``dns-version``.
VERSION: Final = "1.1.0"
#: Seconds for which answers may be kept, also that there is no such name.
TTL: Final = 5

#: Namespace and name of a service.
Key = tuple[str, str]

_NOTHING: Final[Records] = {}


@dataclass(slots=True)
class _Served:
    """A service as names need it, and the slices of a headless one."""

    service: Service
    slices: dict[str, EndpointSlice] = field(default_factory=dict)

    def endpoints(self) -> Iterator[tuple[EndpointSlice, Endpoint]]:
        """Those that are ready; an endpoint that does not say counts as ready."""
        for found in self.slices.values():
            for each in found.endpoints:
                if each.conditions.ready is not False:
                    yield found, each


class ClusterNames:
    """Told of objects, it knows the records of names."""

    ttl = TTL

    def __init__(self, server: Sequence[str] = ()) -> None:
        """`server`: the addresses of the cluster's DNS itself."""
        self.zone = dns.name.from_text(DOMAIN)
        #: Counts what it was told, as a zone's serial number does.
        self.serial = 1
        self._server = tuple(server)
        self._name_server = f"ns.dns.{DOMAIN}."
        self._served: dict[Key, _Served] = {}
        #: Slices of services that have not been heard of, or have no use for them now.
        self._spare: dict[Key, dict[str, EndpointSlice]] = {}
        self._slice_of: dict[tuple[str, str], Key] = {}
        self._namespaces: set[str] = set()
        self._pointers: dict[str, dict[Name, None]] = {}
        self._pointing: dict[Key, list[tuple[str, Name]]] = {}

    # ---- being told --------------------------------------------------------------------------------

    def set_namespace(self, name: str, there: bool) -> None:
        self._count()
        self._namespaces.add(name) if there else self._namespaces.discard(name)

    def set_service(self, namespace: str, name: str, service: Service | None) -> None:
        self._count()
        key = (namespace, name)
        before = self._served.pop(key, None)
        if before is not None and before.slices:
            self._spare[key] = before.slices
        if service is not None and (service.spec.cluster_ip or service.spec.type == "ExternalName"):
            slices = self._spare.pop(key, {}) if service.spec.headless else {}
            self._served[key] = _Served(service, slices)
        self._point(key)

    def set_slice(self, namespace: str, name: str, found: EndpointSlice | None) -> None:
        self._count()
        former = self._slice_of.pop((namespace, name), None)
        if former is not None:
            self._slices(former).pop(name, None)
            self._point(former)
        if found is not None and found.service:
            key = (namespace, found.service)
            self._slice_of[namespace, name] = key
            self._slices(key)[name] = found
            self._point(key)

    def _slices(self, key: Key) -> dict[str, EndpointSlice]:
        served = self._served.get(key)
        if served is not None and served.service.spec.headless:
            return served.slices
        return self._spare.setdefault(key, {})

    def _count(self) -> None:
        self.serial = self.serial % 0xFFFFFFFF + 1

    def _point(self, key: Key) -> None:
        """Keeps the names of addresses."""
        for address, name in self._pointing.pop(key, ()):
            names = self._pointers[address]
            names.pop(name, None)
            if not names:
                del self._pointers[address]
        pointing = list(self._pointers_of(key))
        if pointing:
            self._pointing[key] = pointing
        for address, name in pointing:
            self._pointers.setdefault(address, {})[name] = None

    def _pointers_of(self, key: Key) -> Iterator[tuple[str, Name]]:
        served = self._served.get(key)
        if served is None:
            return
        if not served.service.spec.headless:
            for address in served.service.spec.cluster_ips:
                yield _plain(address), self._name(key)
        for _, endpoint in served.endpoints():
            for address in endpoint.addresses:
                if plain := _address(address):
                    yield str(plain), self._name(key, _host(endpoint, address))

    # ---- being asked -------------------------------------------------------------------------------

    def records(self, name: Name) -> Records | None:
        """What the name has; None when there is no such name here."""
        if not name.is_subdomain(self.zone):
            names = self._pointers.get(_pointed(name), ())
            return {PTR: [_record(PTR, str(each)) for each in names]} if names else None
        labels = [label.decode("latin-1").lower() for label in name.relativize(self.zone).labels]
        match labels:
            case []:
                return {SOA: [self.authority(name)[1]], NS: [_record(NS, self._name_server)]}
            case ["dns-version"]:
                return {TXT: [_record(TXT, f'"{VERSION}"')]}
            case ["dns"]:
                return _NOTHING
            case ["ns", "dns"]:
                return _addresses(self._server)
            case ["svc"] | ["pod"]:
                return _NOTHING
            case [namespace, "svc" | "pod"]:
                return _NOTHING if namespace in self._namespaces else None
            case [address, namespace, "pod"]:
                return self._pod(address, namespace)
            case [*above, service, namespace, "svc"]:
                return self._service((namespace, service), above)
        return None

    def not_ours(self, name: Name) -> bool:
        """Whether somebody else must be asked for it."""
        return not name.is_subdomain(self.zone) and _pointed(name) not in self._pointers

    def authority(self, _: Name) -> tuple[Name, dns.rdata.Rdata]:
        """The cluster's domain and its start of authority."""
        times = f"{self.serial} 7200 1800 86400 {TTL}"
        return self.zone, _record(SOA, f"{self._name_server} hostmaster.{DOMAIN}. {times}")

    def _pod(self, text: str, namespace: str) -> Records | None:
        if namespace not in self._namespaces:
            return None
        address = _address(text.replace("-", ".")) or _address(text.replace("-", ":"))
        return _addresses([str(address)]) if address else None

    def _service(self, key: Key, above: Sequence[str]) -> Records | None:
        served = self._served.get(key)
        if served is None:
            return None
        spec = served.service.spec
        if spec.type == "ExternalName":
            target = spec.external_name.removesuffix(".")
            return None if above else {CNAME: [_record(CNAME, f"{target}.")]}
        match above:
            case []:
                if not spec.headless:
                    return _addresses(spec.cluster_ips)
                addresses = [address for _, each in served.endpoints() for address in each.addresses]
                return _addresses(addresses) if addresses else None
            case [protocol] if protocol.startswith("_"):
                known = {f"_{each.protocol.lower()}" for each in spec.ports if each.name}
                return _NOTHING if protocol in known else None
            case [port, protocol] if port.startswith("_"):
                found = list(self._ports(key, served, port[1:], protocol[1:]))
                weight = max(1, 100 // len(found)) if found else 0
                places = [_record(SRV, f"0 {weight} {number} {target}") for number, target in found]
                return {SRV: places} if places else None
            case [host] if spec.headless:
                addresses = [
                    address
                    for _, each in served.endpoints()
                    for address in each.addresses
                    if _host(each, address) == host
                ]
                return _addresses(addresses) if addresses else None
        return None

    def _ports(self, key: Key, served: _Served, name: str, protocol: str) -> Iterator[tuple[int, Name]]:
        """Numbers and names of where the port is: of the service, or of each endpoint of a headless one."""
        spec = served.service.spec
        if not spec.headless:
            for each in spec.ports:
                if (each.name, each.protocol.lower()) == (name, protocol):
                    yield each.port, self._name(key)
            return
        seen = set()
        for found, endpoint in served.endpoints():
            for port in found.ports:
                if not name or (port.name, port.protocol.lower()) != (name, protocol) or port.port is None:
                    continue
                for address in endpoint.addresses:
                    place = (port.port, self._name(key, _host(endpoint, address)))
                    if place not in seen:
                        seen.add(place)
                        yield place

    def _name(self, key: Key, host: str = "") -> Name:
        namespace, name = key
        return dns.name.from_text(".".join(filter(None, (host, name, namespace, "svc"))), self.zone)


def _host(endpoint: Endpoint, address: str) -> str:
    """The first label of an endpoint's name: its hostname, or the address where it has none."""
    return endpoint.hostname.lower() or address.replace(".", "-").replace(":", "-")


@lru_cache(4096)
def _record(kind: RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(IN, kind, text)


def _addresses(texts: Sequence[str]) -> Records:
    records: dict[RdataType, list[dns.rdata.Rdata]] = {}
    for text in dict.fromkeys(texts):
        match _address(text):
            case ipaddress.IPv4Address():
                records.setdefault(A, []).append(_record(A, text))
            case ipaddress.IPv6Address():
                records.setdefault(AAAA, []).append(_record(AAAA, text))
            case None:  # a slice of addressType FQDN: such names are nobody's addresses
                pass
    return records


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _plain(text: str) -> str:
    return str(_address(text) or text)


def _pointed(name: Name) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa is about; empty for any other name."""
    try:
        return _plain(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return ""
