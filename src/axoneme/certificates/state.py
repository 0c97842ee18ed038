"""What stands in the shared state about certificates. Keys never do."""

from __future__ import annotations

import hashlib

import msgspec

PREFIX = "state/certificates/"
#: Whom all nodes trust: one key.
AUTHORITY = f"{PREFIX}authority"
REQUESTS = f"{PREFIX}requests/"
ISSUED = f"{PREFIX}issued/"

#: The subject of a node's own certificate; of an identity's it is `identity_subject`.
NODE = "node"
_IDENTITY = "identity-"


class AuthorityState(msgspec.Struct, frozen=True):
    """``bundle``: the certificates (PEM) that are to be trusted, the one that signs first. ``current``:
    SHA-256 of that one. Who has been certified by an earlier one asks anew."""

    cluster: str
    trust_domain: str
    bundle: str
    current: str


class Request(msgspec.Struct, frozen=True):
    """``csr``: PEM, of which only the public key counts: what a certificate says is up to the authority.
    For an identity, ``proof`` is the signature (base64) by the node's own key under the DER form of that."""

    csr: str
    proof: str = ""

    @property
    def digest(self) -> str:
        """By which the answer names it."""
        return hashlib.sha256(self.csr.encode()).hexdigest()


class Issued(msgspec.Struct, frozen=True):
    """The answer to the request whose SHA-256 is ``request``: a chain (PEM), the certificate first, which
    holds from ``begins`` to ``ends`` (seconds since 1970) and comes from the authority ``authority``; or, in
    ``refused``, why there is none."""

    request: str
    chain: str = ""
    begins: float = 0.0
    ends: float = 0.0
    authority: str = ""
    refused: str = ""

    @property
    def due(self) -> float:
        """When it is time for the next one: a third of its time is left then."""
        return self.begins + (self.ends - self.begins) * 2 / 3


def identity_subject(number: int) -> str:
    return f"{_IDENTITY}{number}"


def request_key(node: str, subject: str) -> str:
    return f"{REQUESTS}{node}/{subject}"


def issued_key(node: str, subject: str) -> str:
    return f"{ISSUED}{node}/{subject}"


def parse_subject(subject: str) -> int | None:
    """The identity; None for the node itself. ValueError for what is neither."""
    if subject == NODE:
        return None
    number = subject.removeprefix(_IDENTITY)
    if number == subject or not (number.isascii() and number.isdecimal() and len(number) <= 8):
        raise ValueError(f"certificates are for a node, or for {_IDENTITY}NUMBER, not for {subject!r}")
    return int(number)
