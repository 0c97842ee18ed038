"""What is wrong with certificates' files, for people: each says object, field, reason and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from axoneme.certificates import making
from axoneme.certificates.files import CertificateError, Files, is_too_open

_KEPT = "the agent renews it once the authority's holder runs (`axo operator` with `authority`)"


@dataclass(frozen=True, slots=True)
class Problem:
    """``what``: the file, and the field where there is one; why it is none; what to do."""

    what: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}: {self.remedy}"


def problems(files: Files, name: str, now: float, *, kept: bool = True) -> Iterator[Problem]:
    """``name``: the DNS name that the certificate has to have, empty for any. ``kept``: the agent keeps the
    files; else somebody else must put them right."""
    remedy = _KEPT if kept else "put a new one in its place; it is taken up without a restart"
    try:
        found = files.load()
    except CertificateError as error:
        what, reason, advice = str(error).split(": ", 2)
        yield Problem(what, reason, advice)
        return
    if is_too_open(files.key):
        yield Problem(
            f"{files.key}: mode", "anybody on this machine can read the key", f"chmod 0600 {files.key}"
        )
    chain = making.read_certificates(found.certificate, str(files.certificate))
    roots = making.read_certificates(found.authority, str(files.authority))
    leaf = chain[0]
    time = datetime.fromtimestamp(now, UTC)
    if leaf.not_valid_after_utc <= time:
        reason = f"it has ended on {_said(leaf.not_valid_after_utc)}"
        yield Problem(f"{files.certificate}: notAfter", reason, remedy)
    elif leaf.not_valid_before_utc > time:
        yield Problem(
            f"{files.certificate}: notBefore",
            f"it begins only on {_said(leaf.not_valid_before_utc)}",
            "look at this machine's clock, and at the authority's",
        )
    elif text := _untrusted(chain, roots, time):
        issuer = leaf.issuer.rfc4514_string()
        reason = f"{issuer} is not among the authorities of {files.authority} ({text})"
        yield Problem(f"{files.certificate}: issuer", reason, remedy)
    has = sorted(dns_names(leaf))
    if name and name not in has:
        yield Problem(
            f"{files.certificate}: subjectAltName",
            f"{', '.join(has) or 'no DNS name'} instead of {name}, by which clients ask for this node",
            remedy,
        )
    for root in roots:
        if root.not_valid_after_utc <= time:
            said = f"{root.subject.rfc4514_string()} has ended on {_said(root.not_valid_after_utc)}"
            yield Problem(f"{files.authority}: notAfter", said, "`axo ca rotate`, or name another authority")


def dns_names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return set(found.get_values_for_type(x509.DNSName))


def _untrusted(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], time: datetime) -> str:
    """Why the chain leads to none of the roots; empty when it does."""
    verifier = PolicyBuilder().store(Store(list(roots))).time(time).build_client_verifier()
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except VerificationError as error:
        return str(error)
    return ""


def _said(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
