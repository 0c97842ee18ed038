"""The handshake by which two identities prove to each other who they are: TLS 1.3, both with certificates.

Who begins speaks for an identity of its node, and names the one that it wants to hear in the server name
(SNI). Each side looks whether the other's certificate comes from the cluster's authority, holds now, names an
identity, for who begins the one that it asked for, and the node. One byte of the server says that it has
found all in order: in TLS 1.3 the client has finished before its own certificate is looked at.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axoneme.certificates.files import AUTHORITY, certificate_file, key_file
from axoneme.certificates.names import node_name, parse_spiffe_id
from axoneme.certificates.state import AuthorityState, identity_subject
from axoneme.rpc.listening import demand_certificates

log = logging.getLogger(__name__)

#: Seconds for one handshake, and until the next one where files are out, or in place of one that has failed.
PATIENCE, _PAUSE = 5.0, 1.0
#: How many strangers may be at it at a time; how many from one address: another agent is at 16 at most.
_AT_ONCE, _OF_ONE = 512, 32
_REFUSED, _FINE = b"\x00", b"\x01"


class HandshakeError(Exception):
    """Nothing is proved; the text says why."""


class Refused(HandshakeError):
    """The other end is not who it should be, or does not believe us: nothing that it proved before counts."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Who the other end has proved to be, and until when (seconds since 1970)."""

    identity: int
    node: str  # as `names.node_name` writes it
    until: float


class Contexts:
    """TLS with the files in ``folder`` that a `Keeper` keeps, read when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[int, bool], ssl.SSLContext] = {}

    def forget(self) -> None:
        """The files have changed."""
        self._made.clear()

    def of(self, identity: int, *, server: bool) -> ssl.SSLContext:
        """To speak for it. OSError when its files are not there, or none."""
        made = self._made.get((identity, server))
        if made is None:
            made = self._made[identity, server] = self._make(identity, server)
        return made

    def _make(self, identity: int, server: bool) -> ssl.SSLContext:
        subject = identity_subject(identity)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # it is the identity that is checked: `_proved`
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._folder / certificate_file(subject), self._folder / key_file(subject))
        if server:
            demand_certificates(context, self._folder / AUTHORITY)
        else:
            context.load_verify_locations(self._folder / AUTHORITY)
        return context


async def prove(
    contexts: Contexts,
    authority: AuthorityState,
    identity: int,
    peer: int,
    node: str,
    address: str,
    port: int,
) -> Proof:
    """Has ``identity`` and the ``peer`` on ``node``, which is at ``address``, prove who they are.

    `Refused` when the other end is another one, or does not believe this one; `HandshakeError` when it cannot
    be reached or does not know, or OSError when there is no certificate here.
    """
    context = contexts.of(identity, server=False)
    where = f"identity {peer} on {node} ({address})"
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                address, port, ssl=context, server_hostname=server_name(peer, authority)
            )
            found = _proved(_certificate(writer), authority)
            if found.identity != peer:
                raise Refused(f"{where}: the certificate is for identity {found.identity}")
            if found.node != node_name(node, authority.cluster):
                raise Refused(f"{where}: the certificate is that of another node, {found.node}")
            answer = await reader.read(1)
            if answer == _REFUSED:
                raise Refused(f"{where}: it does not believe that this is identity {identity}")
            if answer != _FINE:
                raise HandshakeError(f"{where}: it has hung up")
            return found
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"{where}: {error.verify_message}") from error
    except ssl.SSLError as error:
        kind = Refused if _blames_certificate(error) else HandshakeError
        raise kind(f"{where}: {error.reason or error}") from error
    except (OSError, TimeoutError, ValueError) as error:  # ValueError: the trust domain is no server's name
        raise HandshakeError(f"{where}: {str(error) or 'no answer'}") from error
    finally:
        if writer is not None:
            writer.transport.abort()


def server_name(identity: int, authority: AuthorityState) -> str:
    return f"{identity}.{authority.trust_domain}"


class Answerer:
    """Answers others' handshakes. ``heard`` is told what was proved: for which identity of this node, and by
    whom; ``authority`` and ``speaks_for`` say what holds now."""

    def __init__(
        self,
        contexts: Contexts,
        authority: Callable[[], AuthorityState | None],
        speaks_for: Callable[[int], bool],
        heard: Callable[[int, Proof], None],
    ) -> None:
        self._contexts = contexts
        self._authority = authority
        self._speaks_for = speaks_for
        self._heard = heard
        #: By address, connections that are at it.
        self._busy: Counter[str] = Counter()

    async def serve(self, port: int) -> None:
        """Until cancelled. OSError when the port is another's."""
        first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        first.minimum_version = ssl.TLSVersion.TLSv1_3
        first.verify_mode = ssl.CERT_REQUIRED  # against the authorities of the context that is chosen
        first.sni_callback = self._choose
        with ExitStack() as opened:
            listeners = [opened.enter_context(each) for each in _listeners(port)]
            async with asyncio.TaskGroup() as tasks:
                for each in listeners:
                    tasks.create_task(self._accept(each, first, tasks))

    async def _accept(self, listener: socket.socket, first: ssl.SSLContext, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, (address, *_) = await loop.sock_accept(listener)
            except OSError as error:  # too many files are open
                log.warning("handshakes have to wait: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            if self._busy[address] >= _OF_ONE or self._busy.total() >= _AT_ONCE:
                connection.close()
                continue
            self._busy[address] += 1
            tasks.create_task(self._meet(connection, address, first))

    async def _meet(self, connection: socket.socket, address: str, first: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        proved = False
        try:
            with connection:
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, connection, ssl=first, ssl_handshake_timeout=PATIENCE
                )
                try:
                    proved = await self._answer(asyncio.StreamWriter(transport, protocol, reader, loop))
                finally:
                    transport.abort()
        except (OSError, TimeoutError) as error:
            log.info("%s: %s", address, error)
        except Exception:  # whatever a stranger has said: others are answered
            log.exception("%s: its handshake went wrong", address)
        finally:
            # Who proves nothing keeps his place for a while: handshakes cost the agent more than him.
            loop.call_later(0 if proved else _PAUSE, self._leave, address)

    def _leave(self, address: str) -> None:
        self._busy -= Counter([address])

    def _choose(self, tls: Any, name: str | None, _first: ssl.SSLContext) -> int | None:
        """Which identity the other end wants to hear."""
        authority = self._authority()
        number, _, domain = (name or "").partition(".")
        if authority is None or domain != authority.trust_domain or not number.isdecimal():
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        identity = int(number)
        if not self._speaks_for(identity):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        try:
            tls.context = self._contexts.of(identity, server=True)
        except OSError as error:
            log.warning("identity %d cannot be spoken for: %s", identity, error)
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        tls.spoken_for = identity
        return None

    async def _answer(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the other end has proved something."""
        authority = self._authority()
        identity = getattr(writer.get_extra_info("ssl_object"), "spoken_for", None)
        if authority is None or identity is None:
            return False
        proof = None
        try:
            proof = _proved(_certificate(writer), authority)
        except Refused as error:
            log.warning("%s: %s", writer.get_extra_info("peername"), error)
        writer.write(_FINE if proof else _REFUSED)
        async with asyncio.timeout(PATIENCE):
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        if proof:
            self._heard(identity, proof)
        return proof is not None


def _listeners(port: int) -> Iterator[socket.socket]:
    """At all addresses of this machine. OSError."""
    for family, address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        try:
            made = socket.create_server((address, port), family=family, backlog=_AT_ONCE)
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # it has none of the family
                continue
            raise
        made.setblocking(False)
        yield made


def _certificate(writer: asyncio.StreamWriter) -> dict[str, Any]:
    """As the `ssl` module tells it, of the other end."""
    found: dict[str, Any] = writer.get_extra_info("ssl_object").getpeercert() or {}
    return found


def _proved(certificate: dict[str, Any], authority: AuthorityState) -> Proof:
    """What a certificate says that TLS has found good. `Refused` when that is no identity of this cluster."""
    names = certificate.get("subjectAltName", ())
    ids = [value for kind, value in names if kind == "URI"]
    nodes = [value for kind, value in names if kind == "DNS"]
    if len(ids) != 1 or len(nodes) != 1:
        raise Refused("the certificate speaks for no identity: it needs one URI, and its node's name")
    try:
        domain, identity = parse_spiffe_id(ids[0])
    except ValueError as error:
        raise Refused(f"the certificate speaks for no identity: {error}") from error
    if domain != authority.trust_domain:
        raise Refused(f"the certificate is of trust domain {domain}, not {authority.trust_domain}")
    until = float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
    return Proof(identity, nodes[0], until)


def _blames_certificate(error: ssl.SSLError) -> bool:
    """Whether the other end does not believe ours (alerts of RFC 8446, section 6.2)."""
    reason = error.reason or ""
    return "CERTIFICATE" in reason or "UNKNOWN_CA" in reason
