"""Identities by which the node numbers what is outside and other nodes: each is told to the policy engine,
and written down for flows, before anything carries its number.

Numbers stay over restarts: the kernel's address table says which are in use, the journal what they mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol as Interface

from axoneme.identity.addressbook import Record
from axoneme.identity.local import Holder, LocalNumbers, Named, Network, Nodes, holder_of
from axoneme.identity.numbers import is_node_local
from axoneme.identity.prefixes import Prefix, is_address, network_of
from axoneme.model.labels import NAME, RESERVED, Label, Labels
from axoneme.policy.engine import PolicyEngine


class IdentityJournal(Interface):
    """Writes down what numbers mean before they get into the kernel, and has kept it over restarts."""

    def identities(self, identities: Mapping[int, Iterable[str]]) -> None: ...

    def known_identities(self) -> Mapping[int, Sequence[str]]: ...


class LocalIdentities:
    """Prefixes have theirs until `release`; names and nodes as long as somebody holds them, and on to it."""

    def __init__(self, engine: PolicyEngine, journal: IdentityJournal, held: Mapping[Prefix, Record]) -> None:
        """``held``: what the kernel has of addresses."""
        self._engine = engine
        self._journal = journal
        known = _known(journal)
        numbered = _numbered(held, known)
        self._numbers = LocalNumbers(numbered, {holder: number for number, holder in known.items()})
        self._users: Counter[Named | Nodes] = Counter()
        self._idle = {former for former in numbered if isinstance(former, Named | Nodes)}
        #: Grows whenever `named` or `get` may say something else than before.
        self.revision = 0
        for former in self._idle:
            self.put(former)
        #: The prefixes that an earlier agent has left; to be `put` again, or released.
        self.former = [former for former in numbered if not isinstance(former, Named | Nodes)]
        #: The addresses that it has left under names, and under which selectors.
        self.inherited = {
            prefix[:16]: holder.selectors
            for prefix, record in held.items()
            if is_address(prefix) and isinstance(holder := self._numbers.holder(record.identity), Named)
        }

    # ---- questions -----------------------------------------------------------------------------

    def get(self, holder: Holder) -> int | None:
        return self._numbers.get(holder)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def labels(self) -> dict[int, Labels]:
        """What they mean, by number."""
        found = ((self._numbers.get(holder), holder) for holder in self._numbers)
        return {
            number: identity.labels
            for number, _ in found
            if number is not None and (identity := self._engine.identity(number))
        }

    def named(self) -> Iterator[tuple[Named, int]]:
        """Those for names, with their numbers."""
        for holder in self._numbers:
            if isinstance(holder, Named) and (number := self._numbers.get(holder)) is not None:
                yield holder, number

    def in_use(self, holder: Named | Nodes) -> bool:
        return holder in self._users

    @property
    def uses(self) -> int:
        """How many names and nodes are held."""
        return len(self._users)

    # ---- they come -----------------------------------------------------------------------------

    def put(self, holder: Holder) -> int:
        """The number of it, which is known everywhere from now on."""
        number = self._tell(holder)
        identity = self._engine.identity(number)
        assert identity is not None
        self._journal.identities({number: identity.labels.texts()})
        return number

    def hold(self, holder: Named | Nodes) -> int:
        """The same; to be given back by `let_go`."""
        self._users[holder] += 1
        self._idle.discard(holder)
        number = self._numbers.get(holder)
        return self.put(holder) if number is None else number

    @contextmanager
    def tried(self, holders: Iterable[Holder]) -> Iterator[None]:
        """Known to the engine alone, for as long as the context lasts."""
        added = [holder for holder in holders if self._numbers.get(holder) is None]
        try:
            for holder in added:
                self._tell(holder)
            yield
        finally:
            for number in self._take(added):
                self._engine.remove_identity(number)

    def _tell(self, holder: Holder) -> int:
        number = self._numbers.acquire(holder)
        self.revision += 1
        match holder:
            case Nodes(labels):
                self._engine.upsert_identity(number, Labels((*labels, Label(RESERVED, "remote-node"))))
            case Named(around, selectors):
                names = [Label(NAME, text) for text in selectors]
                self._engine.upsert_cidr_identity(number, around, names)
            case network:
                self._engine.upsert_cidr_identity(number, network)
        return number

    # ---- they go -------------------------------------------------------------------------------

    def let_go(self, holder: Named | Nodes) -> None:
        self._users[holder] -= 1
        if not self._users[holder]:
            del self._users[holder]
            self._idle.add(holder)

    @property
    def idle(self) -> bool:
        """Whether some are held by nobody any more."""
        return bool(self._idle)

    def release(self, prefixes: Iterable[Network]) -> list[int]:
        """Gives up those of these prefixes, and those that nobody holds; their numbers."""
        holders: list[Holder] = [*prefixes, *self._idle]
        self._idle = set()
        return self._take(holders)

    def _take(self, holders: list[Holder]) -> list[int]:
        self.revision += bool(holders)
        released = [self._numbers.release(holder) for holder in holders]
        return [number for number in released if number is not None]

    def started(self) -> None:
        """All that was there before has been asked for again, or is not needed."""
        self._numbers.forget_others()


def _known(journal: IdentityJournal) -> dict[int, Holder]:
    """What numbers meant to an earlier agent."""
    known: dict[int, Holder] = {}
    for number, texts in journal.known_identities().items():
        with suppress(ValueError):
            if is_node_local(number) and (holder := holder_of(texts)):
                known[number] = holder
    return known


def _numbered(held: Mapping[Prefix, Record], known: Mapping[int, Holder]) -> dict[Holder, int]:
    """Who has which node-local number. What is no prefix, or has the number of another, was written by
    something else."""
    owners: dict[int, Holder] = {}
    for prefix, record in held.items():
        if is_node_local(record.identity):
            holder = known.get(record.identity)
            with suppress(ValueError):
                owner = holder if isinstance(holder, Named | Nodes) else network_of(prefix)
                owners.setdefault(record.identity, owner)
    return {holder: number for number, holder in owners.items()}
