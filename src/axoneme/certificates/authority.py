"""The cluster's authority: a directory that only its holder can read.

    authority.json   everything: the key, the certificates that are to be trusted, for how long it certifies
    ca.crt           those certificates, for who wants them as a file
    issued.json      to whom certificates were given, and by which keys nodes are known

One file holds what belongs together, so an interrupted rotation leaves the old state or the new.

Rotation: the new root is also certified by the one before, and this *cross certificate* goes along with every
certificate that the new root signs. Who has heard of the new root checks against it; who has not, against the
old one. So new certificates are good everywhere at once. The old root stays trusted until all that it has
signed has ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509

from axoneme.certificates import making, names
from axoneme.certificates.files import CertificateError, is_too_open, write
from axoneme.certificates.making import Key, Names, PublicKey, Root
from axoneme.certificates.state import AuthorityState

DAY = 86400.0
#: Days that a root holds, unless told otherwise; and what it signs.
ROOT_DAYS, CERTIFICATE_DAYS = 3650, 90
#: Seconds that an identity's certificate holds: it is renewed by itself, and what it has proved ends with it.
IDENTITY_LIFETIME = 3600.0

_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,62}")
_DOMAIN = re.compile(r"(\*\.)?[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?")
_STATE, _BUNDLE, _ISSUED, _LOCK = "authority.json", "ca.crt", "issued.json", ".lock"


class _Earlier(msgspec.Struct, frozen=True):
    """A root before the present one: trusted to ``until``; ``cross``: its successor, certified by it."""

    certificate: str
    cross: str
    until: float


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """``days``: for how long certificates of nodes hold."""

    cluster: str
    trust_domain: str
    days: float
    key: str
    certificate: str
    earlier: tuple[_Earlier, ...] = ()  # the newest first


class NodeRecord(msgspec.Struct, frozen=True):
    """``key``: the public key (PEM) by which it is known."""

    key: str
    serial: str
    ends: float


class HandedOut(msgspec.Struct, frozen=True):
    """A certificate that was made by hand."""

    name: str
    serial: str
    ends: float


class Journal(msgspec.Struct, frozen=True):
    nodes: dict[str, NodeRecord] = {}
    others: tuple[HandedOut, ...] = ()


class Authority:
    """An authority's directory. All methods read it anew: others may have changed it."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._now = now

    @property
    def exists(self) -> bool:
        return (self.folder / _STATE).exists()

    # ---- making and changing it ----------------------------------------------------------------

    def init(
        self,
        cluster: str,
        trust_domain: str = names.TRUST_DOMAIN,
        days: float = CERTIFICATE_DAYS,
        root: Root | None = None,
        root_days: float = ROOT_DAYS,
    ) -> None:
        """``root``: one that there is already. `CertificateError` where there is an authority."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if self.exists:
                raise CertificateError(
                    f"{self.folder}: there is an authority already: `axo ca rotate` makes it a new key"
                )
            root = root or self._new_root(cluster, root_days)
            self._save(
                _State(
                    cluster=cluster,
                    trust_domain=names.check_trust_domain(trust_domain),
                    days=days,
                    key=making.key_pem(root.key).decode(),
                    certificate=making.pem([root.certificate]).decode(),
                )
            )

    def rotate(self, *, at_once: bool = False, root_days: float = ROOT_DAYS) -> None:
        """A new key. Certificates of the one before stay good until they end, or, ``at_once``, are so no
        longer."""
        with self._locked():
            state = self._state()
            before = _root(state, self.folder)
            root = self._new_root(state.cluster, root_days)
            earlier: tuple[_Earlier, ...] = ()
            if not at_once:
                cross = making.pem([making.cross_signed(root.certificate, before)]).decode()
                # The last of what it has signed: it may be of a node, or made by hand to hold longer.
                last = max([self._now() + state.days * DAY, *(each.ends for each in self.journal().others)])
                until = min(last, before.certificate.not_valid_after_utc.timestamp())
                earlier = (_Earlier(state.certificate, cross, until), *self._trusted(state))
            self._save(
                msgspec.structs.replace(
                    state,
                    key=making.key_pem(root.key).decode(),
                    certificate=making.pem([root.certificate]).decode(),
                    earlier=earlier,
                )
            )

    def forget(self, node: str) -> bool:
        """The next key that asks in this node's name is believed; whether one was known."""
        with self._locked():
            journal = self.journal()
            nodes = {name: record for name, record in journal.nodes.items() if name != node}
            self._write(_ISSUED, msgspec.json.encode(Journal(nodes, journal.others)))
            return len(nodes) < len(journal.nodes)

    # ---- what it is ----------------------------------------------------------------------------

    def public(self) -> AuthorityState:
        """What everybody may know. `CertificateError` when the directory cannot be used."""
        state = self._state()
        bundle = self._bundle(state)
        current = making.fingerprint(making.read_certificates(bundle.encode(), str(self.folder))[0])
        return AuthorityState(state.cluster, state.trust_domain, bundle, current)

    def roots(self) -> Sequence[tuple[x509.Certificate, float]]:
        """Those that are trusted, the one that signs first, and until when each is."""
        state = self._state()
        own = _root(state, self.folder).certificate
        return [
            (own, own.not_valid_after_utc.timestamp()),
            *(
                (making.read_certificates(each.certificate.encode(), str(self.folder))[0], each.until)
                for each in self._trusted(state)
            ),
        ]

    @property
    def days(self) -> float:
        return self._state().days

    def journal(self) -> Journal:
        path = self.folder / _ISSUED
        try:
            return msgspec.json.decode(path.read_bytes(), type=Journal)
        except FileNotFoundError:
            return Journal()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CertificateError(
                f"{path}: not what was written there: {error}: nobody knows without it which node has "
                "which key; delete it to believe all nodes anew"
            ) from error

    def problems(self) -> list[str]:
        """What of the directory could be better."""
        return [
            f"{path}: mode: anybody on this machine can read the authority's key: chmod go= {path}"
            for path in (self.folder / _STATE, self.folder)
            if is_too_open(path)
        ]

    # ---- signing -------------------------------------------------------------------------------

    def certify_node(self, node: str, key: PublicKey, addresses: Sequence[str]) -> tuple[bytes, float]:
        """A chain (PEM) and when it ends. `CertificateError` when the node is known by another key, or its
        name is another's."""
        known = making.public_pem(key)
        with self._locked():
            state = self._state()
            journal = self.journal()
            try:
                names.check_node(node, journal.nodes)
            except ValueError as error:
                raise CertificateError(str(error)) from error
            record = journal.nodes.get(node)
            if record and record.key != known:
                raise CertificateError(
                    f"node {node}: it asks with another key than it is known by: if it was made anew, "
                    f"`axo ca forget {node}`; if not, somebody asks in its name"
                )
            domains = (names.hubble_name(node, state.cluster), names.node_name(node, state.cluster), node)
            found, chain = self._sign(state, key, Names(node, domains, tuple(addresses)), state.days * DAY)
            ends = found.not_valid_after_utc.timestamp()
            nodes = journal.nodes | {node: NodeRecord(known, f"{found.serial_number:x}", ends)}
            self._write(_ISSUED, msgspec.json.encode(Journal(nodes, journal.others)))
            return chain, ends

    def certify_identity(self, node: str, identity: int, key: PublicKey) -> tuple[bytes, float]:
        """For ``node`` to speak for the identity: a chain (PEM) and when it ends."""
        state = self._state()
        says = Names(
            f"identity {identity}",
            (names.node_name(node, state.cluster),),
            uri=names.spiffe_id(state.trust_domain, identity),
        )
        found, chain = self._sign(state, key, says, min(IDENTITY_LIFETIME, state.days * DAY))
        return chain, found.not_valid_after_utc.timestamp()

    def issue(
        self, name: str, dns: Sequence[str], addresses: Sequence[str], days: float
    ) -> tuple[bytes, bytes]:
        """A certificate by hand: chain and key (PEM). `CertificateError` for names that cannot be."""
        if not _NAME.fullmatch(name):
            raise CertificateError(
                f"name {name!r}: expected letters, digits, '.', '_' and '-', for files' names"
            )
        for address in addresses:
            try:
                ip_address(address)
            except ValueError as error:
                raise CertificateError(f"{name}: {error}: a DNS name goes with --dns") from error
        for domain in dns:
            if not _DOMAIN.fullmatch(domain):
                raise CertificateError(f"{name}: {domain!r} is no DNS name")
        key = making.new_key()
        with self._locked():
            says = Names(name, tuple(dns), tuple(addresses))
            found, chain = self._sign(self._state(), key.public_key(), says, days * DAY)
            journal = self.journal()
            ends = found.not_valid_after_utc.timestamp()
            others = (*journal.others, HandedOut(name, f"{found.serial_number:x}", ends))
            lasting = tuple(each for each in others if each.ends > self._now())
            self._write(_ISSUED, msgspec.json.encode(Journal(journal.nodes, lasting)))
        return chain, making.key_pem(key)

    def node_key(self, node: str) -> str:
        """The public key (PEM) that it is known by; empty when it is not."""
        record = self.journal().nodes.get(node)
        return record.key if record else ""

    def _sign(
        self, state: _State, key: PublicKey, says: Names, lifetime: float
    ) -> tuple[x509.Certificate, bytes]:
        now = self._now()
        root = _root(state, self.folder)
        if root.certificate.not_valid_after_utc.timestamp() <= now:
            raise CertificateError(
                f"{self.folder}: the authority's own certificate has ended: `axo ca rotate --now`"
            )
        found = making.certificate(root, key, says, now, now + lifetime)
        crosses = "".join(each.cross for each in self._trusted(state))
        return found, making.pem([found]) + crosses.encode()

    # ---- files ---------------------------------------------------------------------------------

    def _new_root(self, cluster: str, days: float) -> Root:
        key, now = making.new_key(), self._now()
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
        return Root(making.new_root(f"axoneme {cluster} {made}", key, now, now + days * DAY), key)

    def _trusted(self, state: _State) -> tuple[_Earlier, ...]:
        return tuple(each for each in state.earlier if each.until > self._now())

    def _bundle(self, state: _State) -> str:
        return state.certificate + "".join(each.certificate for each in self._trusted(state))

    def _state(self) -> _State:
        path = self.folder / _STATE
        try:
            return msgspec.json.decode(path.read_bytes(), type=_State)
        except FileNotFoundError as error:
            raise CertificateError(
                f"{self.folder}: there is no authority: `axo ca init` makes one"
            ) from error
        except OSError as error:
            raise CertificateError(
                f"{path}: {error.strerror}: only who holds the authority's key can do this"
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CertificateError(
                f"{path}: not what was written there: {error}: restore it from a backup, or make another "
                "authority with `axo ca init` in another directory"
            ) from error

    def _save(self, state: _State) -> None:
        self._write(_STATE, msgspec.json.encode(state))
        write(self.folder / _BUNDLE, self._bundle(state).encode(), 0o644)

    def _write(self, name: str, content: bytes) -> None:
        write(self.folder / name, content, 0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else writes meanwhile."""
        try:
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CertificateError(
                f"{self.folder}: {error.strerror}: `axo ca init` makes an authority; its holder can use it"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _root(state: _State, folder: Path) -> Root:
    where = str(folder / _STATE)
    return Root(
        making.read_certificates(state.certificate.encode(), where)[0],
        making.read_key(state.key.encode(), where),
    )


def read_root(certificate: Path, key: Path) -> Root:
    """One that somebody else has made. `CertificateError` when it cannot sign certificates."""
    try:
        found = making.read_certificates(certificate.read_bytes(), str(certificate))[0]
        secret: Key = making.read_key(key.read_bytes(), str(key))
    except OSError as error:
        raise CertificateError(f"{error.filename}: {error.strerror}") from error
    if making.public_pem(secret.public_key()) != making.public_pem(_public(found)):
        raise CertificateError(f"{key}: it is not the key of {certificate}")
    try:
        constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        raise CertificateError(
            f"{certificate}: basicConstraints: it may not sign others (CA:TRUE is missing)"
        )
    if found.issuer != found.subject:  # many TLS libraries trust only what signs itself
        raise CertificateError(
            f"{certificate}: issuer: it is an intermediate of {found.issuer.rfc4514_string()}: name a root; "
            "where another authority is to certify nodes, give them its files instead (docs/certificates.md)"
        )
    return Root(found, secret)


def _public(found: x509.Certificate) -> PublicKey:
    key = found.public_key()
    assert isinstance(key, PublicKey)
    return key
