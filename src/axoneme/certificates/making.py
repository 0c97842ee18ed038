"""Certificates, keys and requests for them, made and taken apart (X.509, RFC 5280). Pure but for chance."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from axoneme.certificates.files import CertificateError

#: What signs here, and is signed.
Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

#: Clocks of two machines may differ by so much.
_SKEW = timedelta(minutes=5)
_DIGEST = hashes.SHA256()
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Names:
    """What a certificate is to say of its holder. ``common`` is for people."""

    common: str
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Root:
    """An authority that signs."""

    certificate: x509.Certificate
    key: Key


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def new_root(common: str, key: Key, begins: float, ends: float) -> x509.Certificate:
    """Signed by itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    return _authority(name, key.public_key(), begins, ends, name, key)


def cross_signed(root: x509.Certificate, by: Root) -> x509.Certificate:
    """The root as an intermediate of an earlier one, so that who trusts only that trusts this one too."""
    ends = min(root.not_valid_after_utc, by.certificate.not_valid_after_utc).timestamp()
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    begins = root.not_valid_before_utc.timestamp() + _SKEW.total_seconds()
    return _authority(root.subject, key, begins, ends, by.certificate.subject, by.key)


def _authority(
    name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: float,
    ends: float,
    issuer: x509.Name,
    signer: Key,
) -> x509.Certificate:
    return (
        _begun(name, key, begins, ends, issuer, signer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(signer, _DIGEST)
    )


def certificate(root: Root, key: PublicKey, names: Names, begins: float, ends: float) -> x509.Certificate:
    """For a server and client of TLS; it ends with the root at the latest."""
    ends = min(ends, root.certificate.not_valid_after_utc.timestamp())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names.common[:64])])
    alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in names.dns]
    alternatives += [x509.IPAddress(ip_address(each)) for each in names.addresses]
    if names.uri:
        alternatives.append(x509.UniformResourceIdentifier(names.uri))
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _begun(subject, key, begins, ends, root.certificate.subject, root.key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(root.key, _DIGEST)
    )


def _begun(
    subject: x509.Name, key: PublicKey, begins: float, ends: float, issuer: x509.Name, signer: Key
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(begins, UTC) - _SKEW)
        .not_valid_after(datetime.fromtimestamp(ends, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


# ---- requests -----------------------------------------------------------------------------------


def request_for(key: Key, common: str) -> bytes:
    """A request for a certificate, PEM; only its key matters."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, _DIGEST).public_bytes(_PEM)


def requested(csr: bytes) -> PublicKey:
    """The public key that a certificate is asked for by who has its private half. `CertificateError`."""
    request = _parsed(csr)
    try:
        key, good = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"the key of the request is none that is known here: {error}") from error
    if not good:
        raise CertificateError("the request is not signed by the key that it is for")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= 256:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    raise CertificateError(
        "the key of the request is too weak: ECDSA from P-256 on, or RSA from 2048 bits on"
    )


def proof(csr: bytes, key: Key) -> str:
    """That who has ``key`` makes the request."""
    return base64.b64encode(key.sign(_der(csr), ec.ECDSA(_DIGEST))).decode()


def is_proved(csr: bytes, text: str, key: PublicKey) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(base64.b64decode(text), _der(csr), ec.ECDSA(_DIGEST))
    except (InvalidSignature, ValueError):
        return False
    return True


def _parsed(csr: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(csr)
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateError(f"not a request for a certificate in PEM form: {error}") from error


def _der(csr: bytes) -> bytes:
    return _parsed(csr).public_bytes(serialization.Encoding.DER)


# ---- texts --------------------------------------------------------------------------------------


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(_PEM) for each in certificates)


def key_pem(key: Key) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def read_certificates(text: bytes, where: str) -> list[x509.Certificate]:
    """At least one. `CertificateError` that names ``where``."""
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise CertificateError(f"{where}: no certificate in PEM form: {error}") from error


def read_key(text: bytes, where: str) -> Key:
    """`CertificateError` that names ``where``."""
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{where}: no private key without password in PEM form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{where}: an ECDSA key is needed, such as `axo ca init` makes")
    return key


def fingerprint(found: x509.Certificate) -> str:
    """SHA-256, hexadecimal."""
    return found.fingerprint(_DIGEST).hex()


def public_pem(key: PublicKey) -> str:
    return key.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def read_public(text: bytes) -> PublicKey:
    """What `public_pem` has written."""
    key = serialization.load_pem_public_key(text)
    assert isinstance(key, PublicKey)
    return key
