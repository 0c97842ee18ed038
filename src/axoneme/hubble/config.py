"""Where Hubble's API is served: a part of a node's configuration."""

from __future__ import annotations

import msgspec

from axoneme.certificates.files import CertificateFiles
from axoneme.hubble.address import Address


class HubbleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``listen``: an address as ``:4244``, besides the unix socket; empty: none. ``tls``: certificates to use
    where it can be reached from other machines; without, those that the agent keeps."""

    listen: str = ""
    tls: CertificateFiles = CertificateFiles()

    @property
    def address(self) -> Address | None:
        """Raises `axoneme.hubble.address.AddressError`."""
        return Address.parse(self.listen) if self.listen else None

    def check(self) -> None:
        """ValueError, which names the field."""
        try:
            address = self.address
        except ValueError as error:
            raise ValueError(f"hubble.listen: {error}") from error
        if address and address.path is not None:
            raise ValueError("hubble.listen: the unix socket is there in any case; give HOST:PORT or :PORT")
        self.tls.check("hubble.tls")
