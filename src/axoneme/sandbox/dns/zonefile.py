"""Names of the world outside, from a master file (RFC 1035, section 5).

The file speaks for everything outside: a name that it does not have does not exist. It may hold names of many
domains; a start of authority is only needed by who wants a certain one.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import dns.exception
import dns.name
import dns.rdata
import dns.tokenizer
import dns.zonefile
from dns.name import Name
from dns.rdataclass import IN
from dns.rdatatype import SOA, RdataType

from axoneme.sandbox.dns.answering import Records

log = logging.getLogger(__name__)

TTL: Final = 5

_AUTHORITY: Final = f"ns.world. hostmaster.world. 1 7200 1800 86400 {TTL}"
_WILDCARD: Final = dns.name.Name((b"*",))


class BadZone(ValueError):
    """A file that is no master file; says where."""


class ZoneNames:
    """The names of one file."""

    ttl = TTL

    def __init__(self, text: str, origin: str = "zone file") -> None:
        """Raises `BadZone`; `origin` is what it calls the text."""
        manager = dns.zonefile.RRSetsReaderManager()
        reading = _Reading(manager)
        try:
            tokens = dns.tokenizer.Tokenizer(text, filename=origin)
            dns.zonefile.Reader(tokens, IN, reading, default_ttl=TTL).read()
        except (dns.exception.DNSException, ValueError) as failure:
            raise BadZone(str(failure)) from None
        reading.commit()
        self._authorities = reading.authorities
        self._records: dict[Name, dict[RdataType, Sequence[dns.rdata.Rdata]]] = {}
        for each in manager.rrsets:
            self._records.setdefault(each.name.canonicalize(), {})[each.rdtype] = tuple(each)
        for name, authority in self._authorities.items():
            self._records.setdefault(name, {})[SOA] = (authority,)
        for name in (dns.name.root, *self._records):
            for depth in range(len(name)):  # a name that is only above others exists, and has nothing
                self._records.setdefault(name.split(len(name) - depth)[1], {})

    def not_ours(self, name: Name) -> bool:
        return False

    def records(self, name: Name) -> Records | None:
        """With wildcards as RFC 4592 has them: they stand in for what is below the closest name there is."""
        name = name.canonicalize()
        found = self._records.get(name)
        while found is None and name != dns.name.root:
            name = name.parent()
            if name in self._records:
                return self._records.get(_WILDCARD.concatenate(name))
        return found

    def authority(self, name: Name) -> tuple[Name, dns.rdata.Rdata]:
        """The closest one above the name; one of ours where the file has none."""
        while name not in self._authorities and name != dns.name.root:
            name = name.parent()
        own = self._authorities.get(name.canonicalize())
        return name, own or dns.rdata.from_text(IN, SOA, _AUTHORITY)


class _Reading(dns.zonefile.RRsetsReaderTransaction):
    """Takes starts of authority wherever they stand: the file may hold several domains."""

    def __init__(self, manager: dns.zonefile.RRSetsReaderManager) -> None:
        super().__init__(manager, replacement=True, read_only=False)  # type: ignore[no-untyped-call]
        self.authorities: dict[Name, dns.rdata.Rdata] = {}

    def add(self, *found: Any) -> None:
        match found:
            case [Name() as name, int(), dns.rdata.Rdata() as authority] if authority.rdtype == SOA:
                self.authorities[name.canonicalize()] = authority
            case _:
                super().add(*found)


class WatchedZone:
    """The names of a file as it stands; when it cannot be read, as it stood before."""

    ttl = TTL

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._names = ZoneNames("")

    def not_ours(self, name: Name) -> bool:
        return False

    def records(self, name: Name) -> Records | None:
        self._look()
        return self._names.records(name)

    def authority(self, name: Name) -> tuple[Name, dns.rdata.Rdata]:
        return self._names.authority(name)

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._seen:
                self._seen = (stat.st_mtime_ns, stat.st_ino)
                self._names = ZoneNames(self._path.read_text("utf-8"), str(self._path))
        except (OSError, ValueError) as failure:
            log.warning("%s; the names that it had before stay", failure)


def world(addresses: Sequence[str]) -> str:
    """A zone with names for the addresses of the world."""
    four = [each for each in addresses if ":" not in each]
    six = [each for each in addresses if ":" in each]
    lines = ["$ORIGIN ."]
    for name, places in (("example.com.", (0,)), ("api.example.com.", (1,)), ("example.org.", (2,))):
        lines += _named(name, [of[place] for of in (four, six) for place in places if place < len(of)])
    lines += [f"www.{each} CNAME {each}" for each in ("example.com.", "example.org.")]
    return "\n".join(lines) + "\n"


def _named(name: str, addresses: Iterable[str]) -> list[str]:
    lines = []
    for each in addresses:
        address = ipaddress.ip_address(each)
        lines.append(f"{name} {'A' if address.version == 4 else 'AAAA'} {address}")
        lines.append(f"{address.reverse_pointer}. PTR {name}")
    return lines
