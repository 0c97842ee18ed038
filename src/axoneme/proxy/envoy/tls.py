"""TLS that is ended and begun by the proxy: contexts, and the parts of Secrets that they need.

Keys and certificates travel as resources of their own (SDS), so that a renewed one takes effect without the
listener being made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from axoneme.model.l7 import SecretRef, TLSContext
from axoneme.proxy.envoy.protos import Message, from_parent, packed

#: Whom the machine trusts, where a Secret for calls onwards has no authority of its own.
SYSTEM_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")

_TLS = "envoy.transport_sockets.tls"

Secrets = Mapping[SecretRef, Mapping[str, bytes]]


class UnusableSecret(ValueError):
    """A Secret is not there, or lacks a part; the text says which."""


def terminating(context: TLSContext) -> Message:
    """The transport socket towards clients."""
    return _socket(
        tls_pb2.DownstreamTlsContext(
            common_tls_context=tls_pb2.CommonTlsContext(
                alpn_protocols=["h2", "http/1.1"],
                tls_certificate_sds_secret_configs=[_reference(certificate_name(context))],
            )
        )
    )


def originating(context: TLSContext, secrets: Secrets) -> Message:
    """The transport socket towards servers, whose certificates must have the name that was asked for."""
    common = tls_pb2.CommonTlsContext()
    if _has_certificate(context, secrets):
        common.tls_certificate_sds_secret_configs.append(_reference(certificate_name(context)))
    common.validation_context_sds_secret_config.CopyFrom(_reference(authority_name(context)))
    return _socket(tls_pb2.UpstreamTlsContext(common_tls_context=common))


def for_clients(context: TLSContext, secrets: Secrets) -> Iterator[Message]:
    """The resources that `terminating` refers to. Raises `UnusableSecret`."""
    yield _certificate(context, secrets)


def for_servers(context: TLSContext, secrets: Secrets) -> Iterator[Message]:
    """Those of `originating`. Raises `UnusableSecret`."""
    if _has_certificate(context, secrets):
        yield _certificate(context, secrets)
    data = _data(context, secrets)
    if context.trusted_ca in data:
        trusted = base_pb2.DataSource(inline_bytes=data[context.trusted_ca])
    elif SYSTEM_AUTHORITIES.exists():
        trusted = base_pb2.DataSource(filename=str(SYSTEM_AUTHORITIES))
    else:
        raise UnusableSecret(
            f"{_called(context)} has no key {context.trusted_ca!r}, and this machine no {SYSTEM_AUTHORITIES} "
            "either: servers' certificates could not be checked"
        )
    yield secret_pb2.Secret(
        name=authority_name(context),
        validation_context=common_pb2.CertificateValidationContext(trusted_ca=trusted),
    )


def certificate_name(context: TLSContext) -> str:
    return f"certificate/{_place(context)}/{context.certificate}/{context.private_key}"


def authority_name(context: TLSContext) -> str:
    return f"authority/{_place(context)}/{context.trusted_ca}"


def _certificate(context: TLSContext, secrets: Secrets) -> Message:
    data = _data(context, secrets)
    for key in (context.certificate, context.private_key):
        if key not in data:
            raise UnusableSecret(f"{_called(context)} has no key {key!r}")
    return secret_pb2.Secret(
        name=certificate_name(context),
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=data[context.certificate]),
            private_key=base_pb2.DataSource(inline_bytes=data[context.private_key]),
        ),
    )


def _has_certificate(context: TLSContext, secrets: Secrets) -> bool:
    data = secrets.get(context.secret, {})
    return context.certificate in data and context.private_key in data


def _data(context: TLSContext, secrets: Secrets) -> Mapping[str, bytes]:
    try:
        return secrets[context.secret]
    except KeyError:
        raise UnusableSecret(f"{_called(context)} is not there") from None


def _place(context: TLSContext) -> str:
    return f"{context.secret.namespace}/{context.secret.name}"


def _called(context: TLSContext) -> str:
    return f"Secret {_place(context)}"


def _reference(name: str) -> Message:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=from_parent())


def _socket(context: Message) -> Message:
    return base_pb2.TransportSocket(name=_TLS, typed_config=packed(context))
