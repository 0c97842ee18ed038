"""Certificates, as TLS contexts of servers and clients.

Both ends show a certificate, and accept one of the authorities in their own files. Whether a name is the
right one, clients decide; a server serves everybody whom an authority of the cluster has certified.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import aclosing

from axoneme.certificates.files import CertificateError, Files
from axoneme.rpc.listening import ChangingContext, demand_certificates

log = logging.getLogger(__name__)


def client_context(files: Files) -> ssl.SSLContext:
    """For one connection or several; made anew for later ones it follows the files. `CertificateError`."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


class ServerCredentials(ChangingContext):
    """Each handshake uses the files as `follow` has read them last.

    Files that cannot be used leave those from before in use. `CertificateError` when there are none yet.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        super().__init__(lambda: _context(ssl.PROTOCOL_TLS_SERVER, files))

    async def follow(self) -> None:
        """Until cancelled."""
        async with aclosing(self._files.watch()) as news:
            async for found in news:
                try:
                    if isinstance(found, CertificateError):
                        raise found
                    self.renew()
                except CertificateError as error:
                    log.error("%s; the certificate from before stays in use", error)


def _context(protocol: int, files: Files) -> ssl.SSLContext:
    files.load()  # says what is wrong
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files.certificate, files.key)
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            demand_certificates(context, files.authority)
        else:
            context.load_verify_locations(files.authority)
    except OSError as error:  # replaced while they were read
        raise CertificateError(f"{files.certificate}: {error}: it is being replaced; try again") from error
    context.set_alpn_protocols(["h2"])
    return context
