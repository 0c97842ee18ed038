"""Keeps a node's certificates: asks for them, puts them into their files, and renews them in time.

As soon as the shared state names an authority. Keys are made here and never leave the node; the node's own
stays the same, for it is what the node is known by. Files change as a whole, and only when they have to.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from axoneme.certificates.files import AUTHORITY as AUTHORITY_FILE
from axoneme.certificates.files import DIRECTORY, certificate_file, key_file, request_file, write
from axoneme.certificates.state import (
    AUTHORITY,
    ISSUED,
    NODE,
    AuthorityState,
    Issued,
    Request,
    identity_subject,
    request_key,
)
from axoneme.model.state import decode, encode
from axoneme.sources.follow import Sync, follow
from axoneme.sources.store import Store, Unavailable

log = logging.getLogger(__name__)

#: Seconds between two looks; after which an unanswered request is made again, from and to; and for which an
#: answer may take before that is a problem.
_LOOK_EVERY, _FIRST_PAUSE, _LONGEST_PAUSE, _PATIENCE = 60.0, 1.0, 60.0, 15.0


@dataclass(slots=True)
class _Asked:
    """When, and how long to wait before the next time; ``since``: when it began."""

    at: float = 0.0
    pause: float = 0.0
    since: float = 0.0


class Keeper:
    """`run` until cancelled; ``problems`` gets what is wrong, under ``certificates``. ``changed`` is called
    when a certificate, or whom to trust, has changed."""

    def __init__(
        self,
        node: str,
        state: Path,
        store: Store,
        problems: dict[str, str],
        changed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = state / DIRECTORY
        self._node = node
        self._store = store
        self._problems = problems
        self._changed = changed
        self._now = now
        #: What the shared state says; None: there is no authority.
        self.authority: AuthorityState | None = None
        self._issued: dict[str, Issued] = {}
        self._asked: dict[str, _Asked] = {}
        self._subjects = {NODE}
        self._heard = asyncio.Event()

    def need(self, identities: Collection[int]) -> None:
        """From now on, certificates to speak for these too, and for no others."""
        subjects = {NODE, *map(identity_subject, identities)}
        if subjects != self._subjects:
            self._subjects = subjects
            self._heard.set()

    def held(self, identity: int) -> Issued | None:
        """The certificate to speak for it, if there is one that holds; its files are there then."""
        issued = self._issued.get(identity_subject(identity))
        good = issued and issued.chain and self._now() < issued.ends
        return (
            issued if good and (self.folder / certificate_file(identity_subject(identity))).exists() else None
        )

    async def run(self) -> None:
        synced = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for key, event in zip((AUTHORITY, f"{ISSUED}{self._node}/"), synced, strict=True):
                tasks.create_task(self._follow(key, event))
            for event in synced:
                await event.wait()
            while True:
                self._heard.clear()
                pause = _FIRST_PAUSE
                try:
                    pause = await self._settle()
                except (Unavailable, OSError, ValueError) as error:
                    self._problem(f"{self.folder}: {error}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._heard.wait()

    async def _follow(self, prefix: str, synced: asyncio.Event) -> None:
        async with aclosing(follow(self._store, prefix)) as news:
            async for changes in news:
                if isinstance(changes, Sync):
                    synced.set()
                    continue
                for change in changes:
                    try:
                        self._hear(change.key, change.value)
                    except ValueError as error:
                        self._problem(str(error))
                self._heard.set()

    def _hear(self, key: str, value: bytes | None) -> None:
        if key == AUTHORITY:
            self.authority = None if value is None else decode(value, AuthorityState, key)
            self._asked.clear()
        elif key.startswith(ISSUED):
            subject = key.rpartition("/")[2]
            if value is None:
                self._issued.pop(subject, None)
            else:
                self._issued[subject] = decode(value, Issued, key)

    async def _settle(self) -> float:
        """Seconds after which to look again."""
        authority, now = self.authority, self._now()
        if authority is None:
            self._problem("")
            return _LOOK_EVERY
        await self._prepare()
        self._put(AUTHORITY_FILE, authority.bundle)
        for subject, paths in self._left_over().items():
            await self._store.delete(request_key(self._node, subject))
            for path in paths:
                path.unlink(missing_ok=True)
        pause = _LOOK_EVERY
        problems: dict[str, list[str]] = {}  # by what is wrong: with which certificates
        # The node's first: with its key the others are asked for.
        for subject in (NODE, *sorted(self._subjects - {NODE})):
            request = decode((self.folder / request_file(subject)).read_bytes(), Request, subject)
            issued = self._issued.get(subject)
            if issued and issued.request != request.digest:
                issued = None
            if issued and issued.chain:
                self._put(certificate_file(subject), issued.chain)
            asked = self._asked.setdefault(subject, _Asked(since=now))
            if issued and issued.chain and issued.authority == authority.current and now < issued.due:
                del self._asked[subject]
                pause = min(pause, issued.due - now)
                continue
            if now >= asked.at + asked.pause:
                asked.at, asked.pause = now, min(max(2 * asked.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                await self._store.put(request_key(self._node, subject), encode(request))
            pause = min(pause, asked.at + asked.pause - now)
            if problem := self._waiting(subject, issued, asked, now):
                problems.setdefault(problem, []).append(subject)
            if subject == NODE and not (issued and issued.chain):
                break
        self._problem("; ".join(f"{', '.join(of)}: {what}" for what, of in problems.items()))
        return max(pause, 0.1)

    def _waiting(self, subject: str, issued: Issued | None, asked: _Asked, now: float) -> str:
        """What is wrong by now with a certificate that is due; empty when nothing is."""
        refused = issued.refused if issued else ""
        # Others may have to hear of a pod first, before they believe that it is here.
        if now < asked.since + _PATIENCE and not (refused and subject == NODE):
            return ""
        if refused:
            return f"the certificate was refused: {refused}"
        ended = " and has ended" if issued and issued.ends <= now else ""
        return (
            f"the certificate is due{ended}, and nobody answers its request: who holds the authority's key "
            "does not run (`axo operator` with `authority`, docs/certificates.md)"
        )

    async def _prepare(self) -> None:
        """Keys and requests that are missing, made by a process of its own."""
        missing = [subject for subject in sorted(self._subjects) if not self._is_prepared(subject)]
        if not missing:
            return
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "axoneme.certificates.asking", str(self.folder), self._node),
            *(subject for subject in missing if subject != NODE),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            raise ValueError(said.decode(errors="replace").strip().rpartition("\n")[2])

    def _is_prepared(self, subject: str) -> bool:
        return all((self.folder / name(subject)).exists() for name in (key_file, request_file))

    def _left_over(self) -> dict[str, list[Path]]:
        """By subject, files of identities that nobody here has any more."""
        found: dict[str, list[Path]] = {}
        for path in self.folder.glob("identity-*"):
            subject = path.name.partition(".")[0]
            if subject not in self._subjects:
                found.setdefault(subject, []).append(path)
        return found

    def _put(self, name: str, content: str) -> None:
        path = self.folder / name
        if not path.exists() or path.read_text() != content:
            write(path, content.encode(), 0o644)
            log.info("%s is new", path)
            self._changed()

    def _problem(self, text: str) -> None:
        if text and text != self._problems.get(DIRECTORY):
            log.warning("%s", text)
        if text:
            self._problems[DIRECTORY] = text
        else:
            self._problems.pop(DIRECTORY, None)
