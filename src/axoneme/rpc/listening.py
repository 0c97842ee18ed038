"""Addresses to listen at, as configuration files give them, and TLS for those that others can reach."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

log = logging.getLogger(__name__)

#: Seconds between two looks whether certificates have been renewed.
_LOOK_EVERY = 2.0


def listening_at(text: str, field: str) -> tuple[str, int]:
    """The address (empty: all of them) and port in ``address:port``. ValueError, which names the ``field``
    of the configuration, for what is none."""
    address, colon, port = text.rpartition(":")
    bare = address.removeprefix("[").removesuffix("]")
    if bare:
        try:
            ip_address(bare)
        except ValueError as error:
            raise ValueError(f"{field}: {error}; it is address:port, or :port") from None
    if not (colon and port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise ValueError(f"{field}: {text!r} has no port; it is address:port, or :port")
    return bare, int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it; empty stands for all addresses."""
    return bool(address) and ip_address(address).is_loopback


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """``ca``: who signs the certificates that clients must have; None: they need none."""

    certificate: Path
    key: Path
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Of a server. OSError (of which ssl.SSLError is one) where a file is missing or is none of these."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.ca:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def state(self) -> tuple[tuple[int, int], ...]:
        """Other than before when a file is another. OSError."""
        files = (self.certificate, self.key, *((self.ca,) if self.ca else ()))
        return tuple((found.st_mtime_ns, found.st_ino) for found in (file.stat() for file in files))


async def keep_current(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Until cancelled: handshakes to come use the files as they are then. Files that are not whole (a renewal
    is under way) leave what was."""
    known, problem = files.state(), ""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            found = files.state()
            if found != known:
                files.context()  # whether they belong together
                context.load_cert_chain(files.certificate, files.key)
                if files.ca:
                    context.load_verify_locations(files.ca)
                known = found
                log.info("%s: read anew", files.certificate)
            problem = ""
        except OSError as error:
            if problem != str(error):
                log.error("%s: %s; the certificate from before stays in use", files.certificate, error)
            problem = str(error)
