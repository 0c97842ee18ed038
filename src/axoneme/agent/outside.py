"""The identities that a node gives out itself: to prefixes outside, to addresses under DNS names, to nodes.

Which there have to be follows from the policies: their ranges, the names and the nodes' labels that they
select by. Like the engine, this waits with what is not needed any more until the new policies are in force:
`introduce` makes what is missing, `withdraw` moves addresses off what nobody needs, `release` then gives up
its numbers (`axoneme.agent.control` writes in between).

All addresses that policies cannot tell apart share one identity: a name with 500 addresses has one. For each
selector there is one before any address is known, so that the first answer costs one write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from axoneme.agent.capacity import Room
from axoneme.agent.localidentities import IdentityJournal, LocalIdentities
from axoneme.datapath.bpf import MapFull
from axoneme.identity.addressbook import REMOTE_NODE, AddressBook, Record, Source
from axoneme.identity.local import WORLDS, Holder, Named, Network, Nodes
from axoneme.identity.names import NameCache
from axoneme.identity.prefixes import (
    Prefix,
    PrefixSet,
    address_text,
    network_of,
    prefix_of,
    prefix_of_address,
    version_of,
)
from axoneme.model.l7 import NameMatch
from axoneme.model.labels import NODE, Label, Labels
from axoneme.model.names import NameIndex
from axoneme.policy.engine import PolicyEngine

#: Identities for names beside those that are foreseen. Each combination of selectors that the names of an
#: address match needs one, with policy entries: whoever answers a pod's questions could make as many as there
#: are addresses, until the tables have no room for anything.
MOST_UNFORESEEN = 4096
_CROWDED = (
    "addresses of DNS names are not put in force: the names of some match the selectors of policies in more "
    "than {:,} combinations"
)


class Outside:
    """``names`` is what is known of DNS names; whoever changes it says which addresses by `touch`."""

    def __init__(
        self,
        engine: PolicyEngine,
        book: AddressBook,
        journal: IdentityJournal,
        room: Room,
        names: NameCache,
        held: Mapping[Prefix, Record],
        node_moved: Callable[[str], None],
    ) -> None:
        """``held``: what the kernel has of addresses. ``node_moved`` is told of nodes that have another
        identity."""
        self._engine = engine
        self._book = book
        self._room = room
        self._names = names
        self._node_moved = node_moved
        self._local = LocalIdentities(engine, journal, held)
        self._prefixes: set[Network] = set()
        self._around = PrefixSet()
        options = engine.options
        self._worlds = [WORLDS[v] for v, on in ((4, options.ipv4), (6, options.ipv6)) if on]
        self._stale: set[Network] = set()
        #: Of prefixes, those of which nobody has looked yet whether they are needed: at first, those of an
        #: earlier agent.
        self._touched: set[Network] = set()
        self._selectors = NameIndex()
        self._needed_names: frozenset[NameMatch] = frozenset()
        self._node_keys: frozenset[str] = frozenset()
        self._ranges: dict[str, tuple[Prefix, ...]] = {}
        self._range_users: Counter[Prefix] = Counter()
        self._cluster = PrefixSet()
        self._named: dict[bytes, Named] = {}
        self._node_labels: dict[str, Mapping[str, str]] = {}
        self._nodes: dict[str, Nodes] = {}
        self._premade: set[Named] = set()
        self._dirty: set[bytes] = set()
        #: Addresses for which there would be too many identities.
        self._crowded: set[bytes] = set()
        self._dirty_nodes: set[str] = set()
        #: Why addresses of names are not in the kernel; empty: all are.
        self.problem = ""
        self._selections = 0
        #: The addresses that an earlier agent has left under names, and under which selectors.
        self.inherited = self._local.inherited
        for former in self._local.former:
            self._touched.add(former)
            self._introduce_prefix(former)

    # ---- what is heard -------------------------------------------------------------------------

    def touch(self, addresses: Iterable[bytes]) -> None:
        """Of these other names are known than before."""
        self._dirty.update(addresses)

    def cluster_ranges(self, node: str, ranges: tuple[Prefix, ...]) -> None:
        """Where a node has its pods: no DNS name says who is there, before a pod has the address either."""
        before = self._ranges.pop(node, ())
        if ranges:
            self._ranges[node] = ranges
        if before == ranges:
            return
        for prefix in ranges:
            self._range_users[prefix] += 1
            self._cluster.add(prefix)
        for prefix in before:
            self._range_users[prefix] -= 1
            if not self._range_users[prefix]:
                del self._range_users[prefix]
                self._cluster.discard(prefix)
        self._dirty |= self._names.addresses

    def node_labels(self, name: str, labels: Mapping[str, str] | None) -> None:
        """Those of another node's object; None: it is gone."""
        if labels is None:
            self._node_labels.pop(name, None)
        else:
            self._node_labels[name] = labels
        self._dirty_nodes.add(name)

    # ---- questions -----------------------------------------------------------------------------

    @property
    def unplaced(self) -> bool:
        """Whether the kernel is still to be told of addresses of names."""
        return bool(self._dirty)

    def node_identity(self, name: str) -> int:
        holder = self._nodes.get(name)
        number = self._local.get(holder) if holder else None
        return REMOTE_NODE if number is None else number

    @property
    def identities(self) -> dict[int, Labels]:
        return self._local.labels

    def __len__(self) -> int:
        """How many identities there are."""
        return len(self._local)

    @property
    def selectors(self) -> NameIndex:
        """The DNS names that policies select by."""
        return self._selectors

    def named(self) -> Iterator[tuple[Named, int]]:
        """Those for names, with their numbers."""
        return self._local.named()

    @property
    def revision(self) -> tuple[int, int]:
        """Other whenever `selectors`, `named` or `number` may say something else than before."""
        return self._selections, self._local.revision

    def identity_of(self, address: bytes) -> int:
        """What an address has by its names; 0: nothing."""
        holder = self._named.get(address)
        return (self._local.get(holder) or 0) if holder else 0

    def foreseen(self, name: str, version: int) -> int:
        """What an address of a name would have; 0: nothing, or what is not made yet."""
        selectors = frozenset(match.text for match in self._selectors.matching(name))
        return self._local.get(Named(WORLDS[version], selectors)) or 0

    def number(self, network: Network) -> int | None:
        """Of a prefix that policies name."""
        return self._local.get(network)

    # ---- identities come -----------------------------------------------------------------------

    def introduce(self) -> None:
        """Makes the identities that are missing, and says whose they are.

        `MapFull`, and nothing has changed, when the table has no room for the prefixes of policies.
        """
        self._touched |= self._engine.touched_prefixes()
        needed = {prefix for prefix in self._touched if self._engine.needs_prefix(prefix)}
        added = needed - self._prefixes
        if added:
            self._room.reach("addresses", self._room.entries("addresses") + len(added))
        self._stale = (self._stale | (self._touched & self._prefixes)) - needed
        self._touched = set()
        for prefix in sorted(added, key=str):
            self._introduce_prefix(prefix)
        if added and self._names:
            inside = PrefixSet(map(prefix_of, added))
            self._dirty.update(address for address in self._names.addresses if inside.longest(address))
        if (names := self._engine.needed_names()) is not self._needed_names:
            self._adopt_names(names | self._needed_names)
        self._adopt_node_keys(self._engine.needed_node_keys() | self._node_keys)
        self._place_all()

    def _introduce_prefix(self, prefix: Network) -> None:
        self._prefixes.add(prefix)
        self._around.add(prefix_of(prefix))
        self._book.say(Source.POLICY, str(prefix), (prefix_of(prefix),), Record(self._local.put(prefix)))

    # ---- names ---------------------------------------------------------------------------------

    def _adopt_names(self, wanted: frozenset[NameMatch]) -> None:
        """Puts these selectors in place of those that were used."""
        changed = wanted ^ self._needed_names
        self._needed_names = wanted
        if not changed:
            return
        self._selections += 1
        for match in changed:
            if match in self._selectors:
                self._selectors.discard(match)
            else:
                self._selectors.add(match)
        self._dirty |= self._names.having(NameIndex(changed).matches)
        self._dirty.update(self.inherited)
        before, self._premade = self._premade, set(self._foreseen())
        for holder in self._premade - before:
            self._local.hold(holder)
        for holder in before - self._premade:
            self._local.let_go(holder)

    def _foreseen(self) -> Iterator[Named]:
        """What the addresses of each selector's names get, outside all ranges that policies name: of a
        pattern, those of a name for which it is made."""
        for match in self._selectors:
            example = match.text.replace("**", "*").replace("*", "-_-")
            selectors = frozenset({each.text for each in self._selectors.matching(example)} | {match.text})
            for world in self._worlds:
                yield Named(world, selectors)

    def _place_all(self) -> None:
        dirty, self._dirty = self._dirty, set()
        wanted = {address: self._meant(address) for address in dirty}
        self._thin_out(wanted)
        new = {address for address, holder in wanted.items() if holder and address not in self._named}
        if new:
            try:
                self._room.reach("addresses", self._room.entries("addresses") + len(new))
            except MapFull as error:
                self.problem = f"addresses of DNS names are not put in force: {error.strerror}"
                self._dirty |= new
                wanted = {address: holder for address, holder in wanted.items() if address not in new}
        for address, holder in wanted.items():
            self._place(address, holder)
        nodes, self._dirty_nodes = self._dirty_nodes, set()
        for name in nodes:
            self._place_node(name)

    def _thin_out(self, wanted: dict[bytes, Named | None]) -> None:
        """Addresses that need more identities than there may be get nothing by their names."""
        self._crowded -= wanted.keys()
        fresh = {holder for holder in wanted.values() if holder and not self._local.in_use(holder)}
        beyond = self._local.uses - len(self._premade) + len(fresh) - MOST_UNFORESEEN
        over = set(list(fresh)[: max(0, beyond)])
        crowded = {address for address, holder in wanted.items() if holder in over}
        wanted.update(dict.fromkeys(crowded))
        self._crowded |= crowded
        self.problem = _CROWDED.format(MOST_UNFORESEEN) if self._crowded else ""

    def _meant(self, address: bytes) -> Named | None:
        """What an address outside gets by its names; None: nothing."""
        selectors = {
            each.text for name in self._names.names(address) for each in self._selectors.matching(name)
        }
        selectors.update(text for text in self._names.selectors(address) if _match(text) in self._selectors)
        if not selectors or self._cluster.longest(address):
            return None
        around = self._around.longest(address)
        if around is None:
            return Named(WORLDS[version_of(address)], frozenset(selectors))
        return Named(network_of(around), frozenset(selectors))

    def _place(self, address: bytes, wanted: Named | None) -> None:
        before = self._named.get(address)
        if wanted == before:
            return
        subject = address_text(address)
        if wanted is not None:
            self._named[address] = wanted
            self._book.say(
                Source.NAME, subject, (prefix_of_address(address),), Record(self._local.hold(wanted))
            )
        else:
            del self._named[address]
            self._book.silence(Source.NAME, subject)
        if before is not None:
            self._local.let_go(before)

    # ---- nodes ---------------------------------------------------------------------------------

    def _adopt_node_keys(self, wanted: frozenset[str]) -> None:
        if wanted != self._node_keys:
            self._node_keys = wanted
            self._dirty_nodes.update(self._node_labels)

    def _place_node(self, name: str) -> None:
        """Only labels that policies ask for: nodes that differ in others are one to them."""
        labels = self._node_labels.get(name, {})
        wanted = Nodes(Labels(Label(NODE, key, labels[key]) for key in self._node_keys & labels.keys()))
        before = self._nodes.pop(name, None)
        if wanted.labels:
            self._nodes[name] = wanted
            if wanted != before:
                self._local.hold(wanted)
        if before is not None and (wanted != before):
            self._local.let_go(before)
        if self._nodes.get(name) != before:
            self._node_moved(name)

    # ---- identities go -------------------------------------------------------------------------

    def withdraw(self) -> bool:
        """Moves addresses off what is not needed any more, now that the policies that needed it are not in
        force. Whether something is to be given up then."""
        for prefix in self._stale:
            self._prefixes.discard(prefix)
            self._around.discard(prefix_of(prefix))
            self._book.silence(Source.POLICY, str(prefix))
        if self._stale:
            self._dirty.update(
                address for address, holder in self._named.items() if holder.around in self._stale
            )
        self._adopt_names(self._engine.needed_names())
        self._adopt_node_keys(self._engine.needed_node_keys())
        self._place_all()
        return bool(self._stale) or self._local.idle

    def release(self) -> list[int]:
        """Numbers that stand for nothing any more."""
        stale, self._stale = self._stale, set()
        if released := self._local.release(stale):
            self._dirty |= self._crowded
        return released

    def started(self) -> None:
        """All that was there before has been asked for again, or is not needed."""
        self._local.started()

    @contextmanager
    def tried(self) -> Iterator[int]:
        """With the identities that the engine's policies need, for as long as the context lasts; how many
        entries of the address table they need."""
        touched = self._engine.touched_prefixes()
        added: list[Holder] = [p for p in touched if self._engine.needs_prefix(p) and p not in self._prefixes]
        entries = len(added)
        for match in self._engine.needed_names() - self._needed_names:
            added += [Named(world, frozenset({match.text})) for world in self._worlds]
        with self._local.tried(added):
            yield entries


def _match(text: str) -> NameMatch:
    return NameMatch(text, pattern="*" in text)
