"""Three files: a certificate with what leads to its authority, its key, and the authorities to be trusted.

Either those that the agent keeps in the node's state directory, or such as somebody else makes
(cert-manager). Who serves with them reads them anew when they change: `watch`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from axoneme.sources.inotify import Folders

#: Below a node's state directory.
DIRECTORY = "certificates"
CERTIFICATE, KEY, AUTHORITY = "node.crt", "node.key", "ca.crt"

#: Seconds: files are looked at so often at least, for there are file systems that tell nothing; and where
#: there is no folder yet.
_LOOK_EVERY, _LOOK_FOR = 30.0, 1.0
#: Of several files that are replaced together, the others follow within so many seconds.
_GATHER = 0.05


def request_file(subject: str) -> str:
    """Beside the key: the request that is made with it, as it goes into the shared state."""
    return f"{subject}.request"


def key_file(subject: str) -> str:
    """Of a subject of `state`."""
    return f"{subject}.key"


def certificate_file(subject: str) -> str:
    return f"{subject}.crt"


class CertificateError(ValueError):
    """Certificates cannot be used; the text names the object, the field, the reason and the remedy."""


class CertificateFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of configurations: all three, or none for those of the node."""

    certificate: str = ""
    key: str = ""
    ca: str = ""

    @property
    def given(self) -> bool:
        return bool(self.certificate or self.key or self.ca)

    def check(self, field: str) -> None:
        """ValueError when some are given and others are not; ``field`` is where they stand."""
        lacking = [name for name in self.__struct_fields__ if not getattr(self, name)]
        if self.given and lacking:
            raise ValueError(
                f"{field}: {' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing: "
                "name all three files, or none of them for those that the agent keeps"
            )

    def files(self, state: Path) -> Files:
        """``state``: the node's state directory, for those that are not given."""
        if self.given:
            return Files(Path(self.certificate), Path(self.key), Path(self.ca))
        return Files.of_node(state)


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM. ``certificate`` is a chain, ``authority`` one certificate or several."""

    certificate: bytes
    key: bytes
    authority: bytes


@dataclass(frozen=True, slots=True)
class Files:
    certificate: Path
    key: Path
    authority: Path

    @classmethod
    def of_node(cls, state: Path) -> Files:
        """Those that the agent keeps."""
        return cls.in_directory(state / DIRECTORY)

    @classmethod
    def in_directory(cls, folder: Path) -> Files:
        return cls(folder / CERTIFICATE, folder / KEY, folder / AUTHORITY)

    def load(self) -> Credentials:
        """`CertificateError` when one cannot be read, or key and certificate do not belong together."""
        found = Credentials(_read(self.certificate), _read(self.key), _read(self.authority))
        self._try()
        return found

    async def watch(self) -> AsyncGenerator[Credentials | CertificateError, None]:
        """As they are now, and whenever they have changed; an error where they cannot be used, of which each
        is told once. Never ends; leave it under ``contextlib.aclosing``."""
        last: Credentials | str | None = None
        while True:
            folders = Folders([folder for folder in self._folders() if folder.is_dir()])
            try:
                found = await asyncio.to_thread(self._look)
                text = str(found) if isinstance(found, CertificateError) else found
                if text != last:
                    last = text
                    yield found
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY if self._complete() else _LOOK_FOR):
                        await folders.changed()
                await asyncio.sleep(_GATHER)
            finally:
                folders.close()

    def _look(self) -> Credentials | CertificateError:
        try:
            return self.load()
        except CertificateError as error:
            return error

    def _folders(self) -> set[Path]:
        """Where something happens when one is replaced."""
        return {path.absolute().parent for path in (self.certificate, self.key, self.authority)}

    def _complete(self) -> bool:
        return all(folder.is_dir() for folder in self._folders())

    def _try(self) -> None:
        """Has the TLS library put them to use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            if "KEY_VALUES_MISMATCH" in str(error):
                raise CertificateError(
                    f"{self.key}: it is not the key of {self.certificate}: replace both, or make both anew"
                ) from error
            raise CertificateError(
                f"{self.certificate}, {self.key}: not a certificate and its key in PEM form: {error}"
            ) from error
        try:
            context.load_verify_locations(self.authority)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(
                f"{self.authority}: no certificates of authorities in PEM form: {error}"
            ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = (
            "`axo ca init` makes an authority, whose holder then certifies nodes (docs/certificates.md)"
            if isinstance(error, FileNotFoundError)
            else "whoever runs this must be able to read it"
        )
        raise CertificateError(f"{path}: {error.strerror}: {remedy}") from error


def write(path: Path, content: bytes, mode: int) -> None:
    """Puts it there as a whole, never readable by more than ``mode`` says. OSError; then what was there
    stays."""
    draft = path.with_name(f".{path.name}.partial")
    draft.unlink(missing_ok=True)
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def is_too_open(path: Path) -> bool:
    """Whether anybody on this machine can read or change it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o007)
