"""Answers requests for certificates that stand in the shared state, with the authority's key.

Who can write into the shared state can ask for anything, so who asks is checked as far as that shows:

- a node must be one of the cluster, and is known by the key with which it first asked: the authority keeps
  which that was, and the shared state does not;
- who asks to speak for an identity must prove that it has the key of the node, on which a pod of that
  identity must be.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path

from axoneme.certificates import making
from axoneme.certificates.authority import Authority
from axoneme.certificates.files import CertificateError
from axoneme.certificates.state import (
    AUTHORITY,
    REQUESTS,
    Issued,
    Request,
    issued_key,
    parse_subject,
)
from axoneme.model.state import ENDPOINTS, EndpointState, NodeState, decode, encode, node_key
from axoneme.sources.follow import Sync, follow
from axoneme.sources.inotify import Folders
from axoneme.sources.store import Change, Conflict, Delete, Put, Store, Unavailable

log = logging.getLogger(__name__)

#: Seconds between two looks at the authority's directory, apart from news: earlier roots end in time.
_LOOK_EVERY = 60.0
_PAUSE = 1.0


class Signer:
    """One at a time for an authority; others would answer the same."""

    def __init__(self, store: Store, authority: Authority, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._authority = authority
        self._now = now

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish())
            tasks.create_task(self._answer_all())

    async def _publish(self) -> None:
        """Tells all nodes whom to trust, as soon as that changes."""
        said = ""
        while True:
            folders = Folders([self._authority.folder])
            try:
                state = self._authority.public()
                entry = await self._store.get(AUTHORITY)
                if entry is None or entry.value != encode(state):
                    await self._store.put(AUTHORITY, encode(state))
                    log.info("the cluster trusts %d authorities", state.bundle.count("BEGIN"))
                said = ""
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY):
                        await folders.changed()
            except (CertificateError, Unavailable) as error:
                if str(error) != said:
                    log.error("whom to trust is not told: %s", error)
                said = str(error)
                await asyncio.sleep(_PAUSE)
            finally:
                folders.close()

    async def _answer_all(self) -> None:
        async with aclosing(follow(self._store, REQUESTS)) as news:
            async for changes in news:
                for change in () if isinstance(changes, Sync) else changes:
                    await self._patiently(change)

    async def _patiently(self, change: Change) -> None:
        while True:
            try:
                await self._answer(change)
                return
            except (Unavailable, CertificateError) as error:  # the authority cannot be read
                log.error("%s is not answered: %s; trying again", change.key, error)
                await asyncio.sleep(_PAUSE)

    async def _answer(self, change: Change) -> None:
        node, _, subject = change.key.removeprefix(REQUESTS).partition("/")
        answer_key = issued_key(node, subject)
        if change.value is None:
            with suppress(Conflict):
                await self._store.transact({change.key: 0}, [Delete(answer_key)])
            return
        try:
            request = decode(change.value, Request, change.key)
        except ValueError as error:
            log.warning("%s", error)
            return
        digest = request.digest
        current = self._authority.public().current
        entry = await self._store.get(answer_key)
        if entry is not None:
            with suppress(ValueError):
                given = decode(entry.value, Issued, answer_key)
                # After a start all requests are told again; the answer is there.
                good = not given.refused and given.authority == current and self._now() < given.due
                if good and given.request == digest:
                    return
        try:
            answer = await self._judge(node, subject, request, digest, current)
        except (CertificateError, ValueError) as error:
            log.warning("%s is refused: %s", change.key, error)
            answer = Issued(digest, refused=str(error))
        with suppress(Conflict):  # it asks for something else by now
            await self._store.transact({change.key: change.revision}, [Put(answer_key, encode(answer))])

    async def _judge(self, node: str, subject: str, request: Request, digest: str, current: str) -> Issued:
        csr = request.csr.encode()
        key = making.requested(csr)
        identity = parse_subject(subject)
        entry = await self._store.get(node_key(node))
        if entry is None:
            raise CertificateError(f"node {node}: it is none of this cluster ({node_key(node)} is not there)")
        begins = self._now()
        if identity is None:
            addresses = decode(entry.value, NodeState, entry.key).internal_addresses
            chain, ends = await asyncio.to_thread(self._authority.certify_node, node, key, addresses)
            log.info("node %s has a certificate", node)
        else:
            self._check_proof(node, request)
            await self._check_pod(node, identity)
            chain, ends = self._authority.certify_identity(node, identity, key)
            log.info("node %s may speak for identity %d", node, identity)
        return Issued(digest, chain.decode(), begins, ends, current)

    def _check_proof(self, node: str, request: Request) -> None:
        known = self._authority.node_key(node)
        if not known:
            raise CertificateError(f"node {node}: it has no certificate of its own yet")
        if not making.is_proved(request.csr.encode(), request.proof, making.read_public(known.encode())):
            raise CertificateError(
                f"node {node}: proof: it is not made with the key that the node is known by"
            )

    async def _check_pod(self, node: str, identity: int) -> None:
        for entry in (await self._store.list(f"{ENDPOINTS}{node}/")).entries:
            with suppress(ValueError):
                if decode(entry.value, EndpointState, entry.key).identity == identity:
                    return
        raise CertificateError(
            f"node {node}: it has no pod of identity {identity}, so it may not speak for it"
        )


def serve(authority: Path, store: Path) -> None:
    """The process that answers in a sandbox, whose shared state is in the file ``store``: until SIGTERM."""
    from axoneme.rpc.daemon import until_told
    from axoneme.sources.sqlite import SqliteStore

    async def main() -> None:
        opened = SqliteStore(store)
        try:
            await until_told(Signer(opened, Authority(authority)).run())
        finally:
            await opened.close()

    asyncio.run(main())
