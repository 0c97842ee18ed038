"""Where to listen: addresses of configurations, TLS for those that others can reach, unix sockets."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from axoneme.rpc.address import short_name
from axoneme.rpc.errors import CONFLICT, RpcError

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


def is_address(text: str) -> bool:
    """Of IPv4 or IPv6, and nothing else."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it; empty stands for all addresses."""
    return bool(address) and ip_address(address).is_loopback


def demand_certificates(context: ssl.SSLContext, authority: Path) -> None:
    """Of a server's clients, by an authority of these. OSError where the file is none.

    Who resumes a session shows no certificate: he would outlive it, and who certified him. With TLS 1.2 that
    cannot be kept from him.
    """
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0


class ChangingContext:
    """A server's TLS that `renew` changes: each handshake uses it as it is then."""

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        """Raises what ``make`` does."""
        self._make = make
        self._current = make()
        #: To listen with.
        self.context = make()
        # An authority that is trusted no longer cannot be taken out of a context, so there is a new one.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def renew(self) -> None:
        """Raises what ``make`` does; then what was stays."""
        self._current = self._make()


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
            demand_certificates(context, self.ca)
        return context

    def state(self) -> tuple[tuple[int, int], ...]:
        """Other than before when a file is another. OSError."""
        files = (self.certificate, self.key, *((self.ca,) if self.ca else ()))
        return tuple((found.st_mtime_ns, found.st_ino) for found in (file.stat() for file in files))


class CurrentTls(ChangingContext):
    """A server's TLS by files that change."""

    def __init__(self, files: TlsFiles) -> None:
        """OSError where they cannot be used."""
        self._files = files
        self._state = files.state()
        super().__init__(files.context)

    async def keep(self) -> None:
        """Until cancelled. Files that are not whole (a renewal is under way) leave what was."""
        problem = ""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                found = self._files.state()
                if found != self._state:
                    self.renew()
                    self._state = found
                    log.info("%s: read anew", self._files.certificate)
                problem = ""
            except OSError as error:
                if problem != str(error):
                    log.error("%s: %s; what was before stays in use", self._files.certificate, error)
                problem = str(error)


@contextmanager
def unix_listener(path: Path, mode: int, draft_folder: Path | None = None) -> Iterator[socket.socket]:
    """A listening socket that appears at ``path`` complete: with its mode, and accepting.

    It is bound in ``draft_folder`` (or beside it) and renamed onto it, which also replaces the file that a
    killed server left. The lock on the directory keeps two servers that start at once from both finding it
    stale. In a folder of others nobody is asked: they could hold the lock, or pretend to serve, for ever.

    RpcError(CONFLICT) when another process already serves on the path.
    """
    draft_folder = draft_folder or path.parent
    draft = draft_folder / f".{path.name}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with listener:
        directory = os.open(draft_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if draft_folder == path.parent and _answers(path):
                raise RpcError(CONFLICT, f"{path}: another process serves there already")
            draft.unlink(missing_ok=True)
            with short_name(draft) as name:
                listener.bind(name)
            draft.chmod(mode)
            listener.listen(128)
            ours = draft.stat().st_ino
            draft.rename(path)
        finally:
            os.close(directory)
        try:
            yield listener
        finally:
            with suppress(OSError):
                if path.stat(follow_symlinks=False).st_ino == ours:
                    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_name(path) as name:
        try:
            probe.connect(name)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True
