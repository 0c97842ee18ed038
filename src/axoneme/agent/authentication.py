"""Mutual authentication: identities prove to each other who they are before policies let packets pass between
them that ask for it.

The datapath looks into ``authenticated``: by (an identity of this node whose policy asks, its peer, the
peer's node) until when that is proved. A pair that it misses it adds with time zero, and drops the packet,
which the sender repeats. Here the table is looked at again and again; for each such pair the agents of both
nodes shake hands (`axoneme.agent.handshake`), and the entry gets the time at which the first of both
certificates ends. What nears that is proved again before. So what stands in the table needs no agent: while
there is none, what is proved holds, to its end.

Both ends of a handshake may write an entry: where both have policies that ask, one does for both.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from axoneme.agent.control import Control
from axoneme.agent.handshake import Answerer, Contexts, HandshakeError, Proof, Refused, prove
from axoneme.certificates.files import AUTHORITY
from axoneme.certificates.keeper import Keeper
from axoneme.certificates.names import node_name
from axoneme.datapath.elements import Array
from axoneme.datapath.plane import Datapath, unpacked

log = logging.getLogger(__name__)

#: Seconds between two looks at the table, while policies ask for proofs and while none do; between two looks
#: whether entries are still needed.
_LOOK_EVERY, _IDLE, _TIDY_EVERY = 0.02, 0.5, 1.0
#: Seconds after which what could not be renewed is tried again; for which a failure stays a problem; how many
#: failures are none, unless the other end is refused: certificates of new pods take a moment.
_RENEW_AGAIN, _REMEMBERED, _BEARABLE = 10.0, 60.0, 2
#: Share of a core for looks.
_SHARE = 0.1
#: Handshakes at a time.
_AT_ONCE = 16
#: Of a certificate's time so much is left when what it has proved is proved anew.
_LEFT = 1 / 4
_HERE = bytes(16)
#: How keys of problems begin.
AUTHENTICATION = "authentication"
_PROBLEM = f"{AUTHENTICATION} of identities "


class Pair(NamedTuple):
    """A key of the table: 16 bytes for the node, zero for this one."""

    subject: int
    peer: int
    node: bytes


def _authorities(bundle: str) -> frozenset[str]:
    return frozenset(each for each in bundle.split("-----BEGIN CERTIFICATE-----") if each.strip())


def _pair(key: Any) -> Pair:
    """Of a row of the table's keys."""
    return Pair(int(key["subject"]), int(key["peer"]), bytes(key["node"]))


@dataclass(slots=True)
class _Failures:
    """Of a pair, in a row: how many, and when the last one was (the loop's clock)."""

    count: int = 0
    last: float = 0.0


class Authentication:
    """`run` until cancelled. ``problems`` gets what keeps pairs from being proved, by pair."""

    def __init__(
        self,
        node: str,
        control: Control,
        plane: Callable[[], Datapath],
        keeper: Keeper,
        identities: Callable[[], Iterable[int]],
        port: int,
        problems: dict[str, str],
    ) -> None:
        """``identities``: those of this node's pods."""
        self._node = node
        self._control = control
        self._plane = plane
        self._keeper = keeper
        self._identities = identities
        self._port = port
        self._problems = problems
        self._contexts = Contexts(keeper.folder)
        self._answerer = Answerer(
            self._contexts, lambda: keeper.authority, lambda each: keeper.held(each) is not None, self._hear
        )
        #: Until when each is proved, by CLOCK_BOOTTIME in ns; 0: it is not.
        self._pairs: dict[Pair, int] = {}
        self._working: set[Pair] = set()
        self._failures: dict[Pair, _Failures] = {}
        #: Pairs that could not be proved: their entries are about to go, and the next packet asks anew.
        self._given_up: set[Pair] = set()
        #: Seconds of the loop's clock before which what is proved is not proved anew.
        self._rests: dict[Pair, float] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        #: Certificates, or whom to trust, have changed: everything is proved anew.
        self._stale: set[Pair] = set()
        #: Somebody is trusted no longer who may have vouched for these: what cannot be proved anew goes.
        self._doubted: set[Pair] = set()
        bundle = keeper.folder / AUTHORITY
        #: Also what an earlier agent has trusted.
        self._trusted = _authorities(bundle.read_text() if bundle.exists() else "")

    def certificates_changed(self) -> None:
        self._contexts.forget()
        self._stale = {pair for pair, until in self._pairs.items() if until}
        trusted = _authorities(self._keeper.authority.bundle if self._keeper.authority else "")
        if not self._trusted <= trusted:
            self._doubted |= self._stale
        self._trusted = trusted

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            listening: asyncio.Task[None] | None = None
            tidied = 0.0
            while True:
                began = time.monotonic()
                asked = self._control.engine.authenticates
                self._keeper.need(set(self._identities()) if asked else ())
                if asked and listening is None:
                    listening = tasks.create_task(self._listen())
                elif not asked and listening is not None:
                    listening.cancel()
                    listening = None
                if began - tidied >= _TIDY_EVERY:
                    self._look(everything=True)
                    self._tidy()
                    tidied = time.monotonic()
                    due = [*self._missing(), *self._ending()]
                else:
                    self._look()
                    due = self._missing()
                for pair in due:
                    self._working.add(pair)
                    tasks.create_task(self._prove(pair))
                took = time.monotonic() - began
                await asyncio.sleep(max(_LOOK_EVERY if asked else _IDLE, took / _SHARE))

    async def _listen(self) -> None:
        """Where others' handshakes come in, as long as any policy asks for one."""
        key = f"{AUTHENTICATION} port {self._port}"
        while True:
            try:
                self._problems.pop(key, None)
                await self._answerer.serve(self._port)
            except OSError as error:
                self._problems[key] = f"handshakes of other nodes cannot be answered: {error}"
                log.error("%s", self._problems[key])
                await asyncio.sleep(_RENEW_AGAIN)

    # ---- the table -----------------------------------------------------------------------------

    def _look(self, *, everything: bool = False) -> None:
        """What the kernel has missed since the last look; or all that stands in its table."""
        keys, values = self._plane().authenticated.read_all()
        if everything:
            self._pairs = {_pair(key): int(until) for key, until in zip(keys, values["until"], strict=True)}
        else:
            for key in keys[values["until"] == 0]:
                self._pairs.setdefault(_pair(key), 0)

    def _tidy(self) -> None:
        """Entries go whose time is over, or that no policy and no pod needs any more."""
        now, here = time.clock_gettime_ns(time.CLOCK_BOOTTIME), set(self._identities())
        gone = []
        for pair, until in self._pairs.items():
            ended = until and until <= now
            if ended or (pair in self._given_up and not until) or not self._is_needed(pair, here):
                gone.append(pair)
                if ended:
                    log.warning("%s: what was proved has ended", self._called(pair))
        self._given_up.clear()
        self._remove(gone)
        for pair in self._rests.keys() - self._pairs.keys():
            del self._rests[pair]
        for pair, failures in list(self._failures.items()):
            if time.monotonic() - failures.last > _REMEMBERED:
                self._recovered(pair)

    def _is_needed(self, pair: Pair, here: set[int]) -> bool:
        if pair.subject not in here or not self._control.engine.asks_proof(pair.subject, pair.peer):
            return False
        return pair.peer in here if pair.node == _HERE else self._control.is_on(pair.peer, pair.node)

    def _remove(self, pairs: list[Pair]) -> None:
        """What passed by them is decided anew."""
        if not pairs:
            return
        self._plane().authenticated.delete(self._keys(pairs))
        self._plane().raise_subjects({pair.subject for pair in pairs if self._pairs.get(pair)})
        for pair in pairs:
            self._pairs.pop(pair, None)
            self._stale.discard(pair)
            self._doubted.discard(pair)

    def _write(self, pair: Pair, until: float) -> None:
        """``until``: seconds since 1970."""
        offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.time_ns()
        table = self._plane().authenticated
        value = np.zeros(1, table.value)
        value["until"] = self._pairs[pair] = int(until * 1e9) + offset
        table.write(self._keys([pair]), value)
        self._recovered(pair)

    def _keys(self, pairs: list[Pair]) -> Array:
        keys = np.zeros(len(pairs), self._plane().authenticated.key)
        for key, pair in zip(keys, pairs, strict=True):
            key["subject"], key["peer"] = pair.subject, pair.peer
            key["node"] = np.frombuffer(pair.node, np.uint8)
        return keys

    # ---- proving -------------------------------------------------------------------------------

    def _missing(self) -> list[Pair]:
        return [
            pair
            for pair, until in self._pairs.items()
            if not until and pair not in self._working and pair not in self._given_up
        ]

    def _ending(self) -> list[Pair]:
        """Pairs that will be missing soon, or are to be proved anew."""
        now, boot = time.monotonic(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reserves = {subject: self._reserve(subject) for subject in {pair.subject for pair in self._pairs}}
        return [
            pair
            for pair, until in self._pairs.items()
            if until
            and pair not in self._working
            and self._rests.get(pair, 0.0) <= now
            and (pair in self._stale or until - boot < reserves[pair.subject])
        ]

    def _reserve(self, identity: int) -> float:
        """ns"""
        held = self._keeper.held(identity)
        return 0.0 if held is None else (held.ends - held.begins) * _LEFT * 1e9

    async def _prove(self, pair: Pair) -> None:
        known = self._pairs.get(pair, 0)
        self._stale.discard(pair)
        try:
            async with self._slots:
                until = await self._shake_hands(pair)
        except (HandshakeError, OSError) as error:
            self._failed(pair, error)
            if known and (isinstance(error, Refused) or pair in self._doubted):
                self._remove([pair])
        else:
            if pair not in self._stale:  # by now, again
                self._doubted.discard(pair)
            if pair in self._pairs:
                self._write(pair, until)
            # The other end's certificate may be the one that ends first: it will have another in a while.
            self._rests[pair] = time.monotonic() + _RENEW_AGAIN
        finally:
            self._working.discard(pair)

    async def _shake_hands(self, pair: Pair) -> float:
        """Until when the pair is proved. `HandshakeError`, OSError."""
        authority, held = self._keeper.authority, self._keeper.held(pair.subject)
        if authority is None:
            raise HandshakeError("there is no authority: `axo ca init` makes one (docs/certificates.md)")
        if held is None:
            raise HandshakeError(f"there is no certificate yet to speak for identity {pair.subject}")
        if pair.node == _HERE:  # both are ours, if the authority says so
            other = self._keeper.held(pair.peer)
            if other is None:
                raise HandshakeError(f"there is no certificate yet to speak for identity {pair.peer}")
            return min(held.ends, other.ends)
        node = self._control.node_at(pair.node)
        if node is None:
            raise HandshakeError(f"no node is known at {unpacked(pair.node)}")
        address = str(unpacked(pair.node))
        proof = await prove(self._contexts, authority, pair.subject, pair.peer, node, address, self._port)
        return min(held.ends, proof.until)

    def _failed(self, pair: Pair, error: Exception) -> None:
        if self._pairs.get(pair):
            self._rests[pair] = time.monotonic() + _RENEW_AGAIN
        else:
            self._given_up.add(pair)
        failures = self._failures.setdefault(pair, _Failures())
        failures.count += 1
        failures.last = time.monotonic()
        if isinstance(error, Refused) or failures.count > _BEARABLE:
            key = self._called(pair)
            if str(error) != self._problems.get(key):
                log.warning("%s: %s", key, error)
            self._problems[key] = str(error)

    def _recovered(self, pair: Pair) -> None:
        if self._failures.pop(pair, None):
            self._problems.pop(self._called(pair), None)

    def _hear(self, identity: int, proof: Proof) -> None:
        """Another node has proved something: that counts here too, where a policy asks for it."""
        authority, held = self._keeper.authority, self._keeper.held(identity)
        if authority is None or held is None:
            return
        for name, address in self._control.nodes():
            if address and node_name(name, authority.cluster) == proof.node:
                pair = Pair(identity, proof.identity, address)
                if self._is_needed(pair, set(self._identities())):
                    self._write(pair, min(held.ends, proof.until))

    def _called(self, pair: Pair) -> str:
        where = (
            "this node" if pair.node == _HERE else self._control.node_at(pair.node) or "a node that is gone"
        )
        return f"{_PROBLEM}{pair.subject} and {pair.peer} on {where}"
