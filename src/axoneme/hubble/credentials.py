"""Certificates, as TLS contexts of servers and clients.

Both ends show a certificate, and accept one of the authorities in their own files. Whether a name is the
right one, clients decide; a server serves everybody whom an authority of the cluster has certified.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import aclosing

from axoneme.certificates.files import CertificateError, Files

log = logging.getLogger(__name__)


def client_context(files: Files) -> ssl.SSLContext:
    """For one connection or several; made anew for later ones it follows the files. `CertificateError`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


class ServerCredentials:
    """``context`` is for the listener; each handshake uses the files as `follow` has read them last.

    Files that cannot be used leave those from before in use. `CertificateError` when there are none yet.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._current = _context(ssl.PROTOCOL_TLS_SERVER, files)
        self.context = _context(ssl.PROTOCOL_TLS_SERVER, files)
        # A context cannot forget an authority, but a connection can be given another one in time.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    async def follow(self) -> None:
        """Until cancelled."""
        async with aclosing(self._files.watch()) as news:
            async for found in news:
                try:
                    if isinstance(found, CertificateError):
                        raise found
                    self._current = _context(ssl.PROTOCOL_TLS_SERVER, self._files)
                except CertificateError as error:
                    log.error("%s; the certificate from before stays in use", error)


def _context(protocol: int, files: Files) -> ssl.SSLContext:
    files.load()  # says what is wrong
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = (
            0  # who resumes shows no certificate: he would outlive it, and who certified him
        )
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
    except OSError as error:  # replaced while they were read
        raise CertificateError(f"{files.certificate}: {error}: it is being replaced; try again") from error
    context.set_alpn_protocols(["h2"])
    return context
