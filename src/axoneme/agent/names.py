"""DNS names on a node: learnt from the DNS proxy, kept as long as they count, told to who asks.

The proxy holds an answer back until `Names.learn` returns: by then its addresses are in the kernel. What was
learnt, the proxy keeps in a file, for the next agent; and what the kernel's address table says of names is
taken up even where the file has forgotten it.

    DNS proxy ─ names.learn ─> NameCache ─> Outside (identities) ─> Control.settle ─> kernel
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np

from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointTable
from axoneme.datapath.bpf import BpfError
from axoneme.datapath.maps import Table
from axoneme.datapath.plane import Datapath, unpacked
from axoneme.flows.expiry import FlowTable
from axoneme.flows.kernel import lifetimes
from axoneme.identity.names import NameCache
from axoneme.identity.nameview import NameLine, NamesSummary
from axoneme.identity.numbers import Reserved
from axoneme.identity.prefixes import address_bytes, address_text
from axoneme.model.names import canonical
from axoneme.proxy import names as proxied
from axoneme.proxy.names import Answer, Learn, NameIdentity, read_journal
from axoneme.rpc import INTERNAL, UNAVAILABLE, RpcError, Server

log = logging.getLogger(__name__)

#: Seconds between two looks for answers that hold no longer; for which one counts on while it is used.
SWEEP_EVERY: Final = 5.0
KEEP: Final = 60.0
#: Share of a core for looking who uses an address, and flows that are looked at in one step.
_SHARE, _CHUNK = 0.05, 1024
#: Tables that the DNS proxy writes to while no agent is there.
_LENT: Final = ("addresses", "epochs")


class Names:
    """What is known of names, and how it gets into the kernel. ``clock`` is the wall clock."""

    def __init__(
        self,
        control: Control,
        endpoints: EndpointTable,
        cache: NameCache,
        folder: Path,
        families: tuple[int, ...],
        used: Callable[[frozenset[bytes]], Iterable[frozenset[bytes]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``folder`` is the DNS proxy's. ``used`` says in steps which of some addresses have connections."""
        self._control = control
        self._endpoints = endpoints
        self._cache = cache
        self._folder = folder
        self._families = families
        self._used = used
        self._clock = clock
        self._restored = False
        #: `plan`, and the revision of what it was made of.
        self._planned: tuple[tuple[int, int], proxied.Names] | None = None

    def restore(self) -> None:
        """Takes up what an earlier agent knew. To be followed by `Control.start`, with no pause in between
        in which the proxy could learn what neither knows."""
        outside, now = self._control.outside, self._clock()
        for address, selectors in outside.inherited.items():
            self._cache.inherit(address, selectors, now + KEEP)
        outside.touch(outside.inherited)
        for answer in read_journal(self._folder / proxied.JOURNAL):
            self._take(answer)
        # What the earlier agent had given up is not taken up again.
        outside.touch(self._cache.sweep(now, outside.inherited.keys(), now + KEEP))
        self._restored = True

    # ---- learning ------------------------------------------------------------------------------

    def register(self, server: Server) -> None:
        server.method(proxied.LEARN, Learn, self.learn)

    async def learn(self, learnt: Learn) -> dict[str, str]:
        """Returns when the kernel has it. RpcError: UNAVAILABLE when it is to be told again."""
        if not self._restored:
            raise RpcError(UNAVAILABLE, "the agent is starting")
        for answer in learnt.answers:
            self._take(answer)
        if self._control.outside.unplaced:  # by these, or by others that wait yet
            try:
                await self._settle()
            except BpfError as error:
                raise RpcError(UNAVAILABLE, f"{error}; the tables will be compared and mended") from error
        if self._control.broken:  # what was told before may be what the kernel lacks
            raise RpcError(UNAVAILABLE, "the kernel's tables are about to be compared and mended")
        if self._control.outside.problem:
            raise RpcError(INTERNAL, self._control.outside.problem)
        return {}

    async def _settle(self) -> None:
        await self._control.released()
        self._control.settle(hold=True)

    def _take(self, answer: Answer) -> None:
        addresses: dict[bytes, float] = {}
        for text, ttl in answer.addresses.items():
            try:
                address = address_bytes(text)
            except ValueError:
                log.warning("%s: %r is no address; passed over", answer.name, text)
                continue
            if _is_elsewhere(address):
                addresses[address] = ttl
        # A clock that was ahead must not let an answer count for ever.
        told = min(answer.time, self._clock())
        changed = self._cache.learn(self._who(answer.client), canonical(answer.name), addresses, told)
        self._control.outside.touch(changed)

    def _who(self, client: str) -> str:
        """A pod of this node by its name: it may have several addresses."""
        for record in self._endpoints.records.values():
            if client in record.state.addresses and record.state.pod:
                return f"{record.state.namespace}/{record.state.pod}"
        return client

    # ---- forgetting ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            try:
                await self.sweep()
            except BpfError as error:
                log.error("%s; the tables will be compared and mended", error)
            except (OSError, ValueError) as error:  # of the flow table, which is looked at again
                log.error("addresses of DNS names stay for now: %s", error)

    async def sweep(self) -> None:
        """Forgets addresses whose answers hold no longer and that no connection uses."""
        now = self._clock()
        due = frozenset(self._cache.due(now))
        if not due:
            return
        used: set[bytes] = set()
        steps = iter(self._used(due))
        while True:
            before = time.thread_time()
            if (found := next(steps, None)) is None:
                break
            used |= found
            await asyncio.sleep((time.thread_time() - before) / _SHARE)
        changed = self._cache.sweep(now, used, self._clock() + KEEP)
        if changed or self._control.outside.problem:
            self._control.outside.touch(changed)
            await self._settle()

    # ---- telling -------------------------------------------------------------------------------

    def plan(self) -> proxied.Names:
        """What the DNS proxy has to know, also while no agent is there: the same object until it changes."""
        revision = self._control.outside.revision
        if self._planned is None or self._planned[0] != revision:
            self._planned = revision, self._made_plan()
        return self._planned[1]

    def _made_plan(self) -> proxied.Names:
        outside = self._control.outside
        selectors = tuple(sorted(outside.selectors))
        places = {match.text: place for place, match in enumerate(selectors)}
        worlds = self._worlds()
        identities = []
        for named, number in outside.named():
            world = worlds[named.around.version == 6]
            around = outside.number(named.around) if named.around.prefixlen else world
            if around is not None and named.selectors <= places.keys():
                found = tuple(sorted(places[text] for text in named.selectors))
                identities.append(NameIdentity(number, around, found))
        identities.sort(key=lambda each: each.identity)
        return proxied.Names(selectors, tuple(identities), worlds)

    def _worlds(self) -> tuple[int, int]:
        if len(self._families) == 1:
            return Reserved.WORLD.value, Reserved.WORLD.value
        return Reserved.WORLD_IPV4.value, Reserved.WORLD_IPV6.value

    def means(self, name: str) -> list[bytes]:
        """The addresses that a name has here."""
        asked = canonical(name)
        return sorted(self._cache.having(lambda known: known == asked))

    def foreseen(self, name: str) -> int:
        """The identity that its addresses will have, outside all ranges that policies name."""
        return (
            self._control.outside.foreseen(canonical(name), self._families[0])
            or self._worlds()[self._families[0] == 6]
        )

    def summary(self) -> NamesSummary | None:
        outside = self._control.outside
        if not outside.selectors and not self._cache:
            return None
        return NamesSummary(
            selectors=len(outside.selectors),
            identities=sum(1 for _ in outside.named()),
            names=len({known.name for known in self._cache}),
            addresses=len(self._cache),
            problem=outside.problem,
        )

    def lines(self) -> list[NameLine]:
        outside, now = self._control.outside, self._clock()
        found: dict[tuple[str, bytes], tuple[float, list[str]]] = {}
        for name, address, expires, endpoint in self._cache:
            until, endpoints = found.get((name, address), (expires, []))
            found[name, address] = max(until, expires), [*endpoints, endpoint]
        return [
            NameLine(
                name,
                address_text(address),
                max(0, round(until - now)),
                sorted(endpoints),
                sorted(match.text for match in outside.selectors.matching(name)),
                outside.identity_of(address),
            )
            for (name, address), (until, endpoints) in sorted(found.items())
        ]


def _is_elsewhere(address: bytes) -> bool:
    """Whether it can be of another machine, and of one only."""
    found = unpacked(address)
    return not (found.is_unspecified or found.is_loopback or found.is_multicast)


def connections(plane: Callable[[], Datapath]) -> Callable[[frozenset[bytes]], Iterable[frozenset[bytes]]]:
    """Which of some addresses have a connection that lives, by the flow table, in steps of a few hundred
    microseconds."""
    lives = lifetimes().tolist()

    def used(addresses: frozenset[bytes]) -> Iterable[frozenset[bytes]]:
        schema, flows = plane().schema, plane().flows
        meaning = FlowTable.read(schema.enums, lives)
        wanted = np.array(sorted(addresses), "S16")
        with Table(flows.fd, flows.key, flows.value) as table:  # the plane's may be closed while we walk
            for keys, entries in table.batches(_CHUNK):
                alive = ~meaning.due(entries, time.monotonic_ns()) & (entries["state"] != meaning.closed)
                ends = np.concatenate([keys["low"][alive], keys["high"][alive]]).view("S16").reshape(-1)
                found = ends[np.isin(ends, wanted)].tolist()
                yield frozenset(each.ljust(16, b"\0") for each in found)

    return used


def lend(maps: Path, user: str) -> None:
    """Lets processes of this user's group write to the tables that the DNS proxy needs while no agent is
    there. They cannot enter the folders above ``maps``: whoever started them as root has to have opened it.
    """
    group = pwd.getpwnam(user).pw_gid
    maps.chmod(0o711)
    for name in _LENT:
        path = maps / name
        if path.stat().st_gid != group:
            os.chown(path, -1, group)
            path.chmod(0o660)
