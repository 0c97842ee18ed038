"""Numbers for sets of rules: what a policy entry and a flow carry to say who decided.

A number is a hash of the set, so it is the same on every node and after every restart. Two sets that
hash alike are told apart by rank: the set that sorts first keeps the number, the other takes its next
candidate (the hash with another salt), and so on. Which number a set has is then a function of the
sets in use alone, whatever the order in which they came and went; the price is that a set may have to
move when another appears or leaves. `moved` tells. With 32 bits and 1,000 sets in use, the chance
that any two meet is 1 in 8,600.

Number 0 stands for the empty set: no policy.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from axoneme.model.policy import PolicyRef

#: A set of rules: sorted, without repetition.
Refs = tuple[PolicyRef, ...]

NO_POLICY = 0


class RuleNumbers:
    """The numbers of the sets in use; each `acquire` needs its `release`."""

    def __init__(self, bits: int = 32) -> None:
        self._bits = bits
        self._uses: Counter[Refs] = Counter()
        self._holder: dict[int, Refs] = {}
        #: Which of its candidates a set has got.
        self._rank: dict[Refs, int] = {}
        #: Sets that would rather have this number, but came after its holder in order.
        self._refused: dict[int, set[Refs]] = {}
        self._published: dict[int, Refs] = {}
        self._touched: set[int] = set()
        self._moved: set[Refs] = set()

    def acquire(self, refs: Refs) -> int:
        """The number of ``refs``, which is in use once more from now on."""
        if not refs:
            return NO_POLICY
        self._uses[refs] += 1
        if self._uses[refs] == 1:
            self._seat(refs)
        return self.number(refs)

    def number(self, refs: Refs) -> int:
        """The number of a set in use."""
        return self._candidate(refs, self._rank[refs]) if refs else NO_POLICY

    def refs(self, number: int) -> Refs:
        """What a number stands for at present; nothing for 0 and for numbers not in use."""
        return self._holder.get(number, ())

    def release(self, refs: Refs) -> None:
        if not refs:
            return
        self._uses[refs] -= 1
        if self._uses[refs] == 0:
            del self._uses[refs]
            rank = self._rank.pop(refs)
            self._withdraw(refs, 0, rank)
            self._moved.discard(refs)
            self._vacate(self._candidate(refs, rank))

    def moved(self) -> set[Refs]:
        """The sets in use whose number has changed since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def publish(self) -> tuple[dict[int, Refs], frozenset[int]]:
        """Since the last call: numbers with a meaning that is new, and numbers no longer in use."""
        added: dict[int, Refs] = {}
        dropped: set[int] = set()
        for number in self._touched:
            before, now = self._published.get(number), self._holder.get(number)
            if now is None:
                if self._published.pop(number, None) is not None:
                    dropped.add(number)
            elif now != before:
                added[number] = self._published[number] = now
        self._touched = set()
        return added, frozenset(dropped)

    # Who gets which number: sets propose to their candidates in order, a number takes the set that
    # sorts first. The outcome of such a matching does not depend on the order of the proposals.

    def _seat(self, refs: Refs, rank: int = 0) -> None:
        while True:
            number = self._candidate(refs, rank)
            holder = self._holder.get(number)
            if number == NO_POLICY:
                rank += 1
            elif holder is None:
                self._take(refs, rank, number)
                return
            elif refs < holder:
                self._take(refs, rank, number)
                self._refused.setdefault(number, set()).add(holder)
                self._moved.add(holder)
                refs, rank = holder, self._rank[holder] + 1
            else:
                self._refused.setdefault(number, set()).add(refs)
                rank += 1

    def _take(self, refs: Refs, rank: int, number: int) -> None:
        self._holder[number] = refs
        self._rank[refs] = rank
        self._touched.add(number)

    def _vacate(self, number: int) -> None:
        """Gives a free number to the first of those who were refused it, and so on with theirs."""
        while waiting := self._refused.get(number):
            refs = min(waiting)
            left_rank = self._rank[refs]
            left = self._candidate(refs, left_rank)
            rank = next(r for r in range(left_rank) if self._candidate(refs, r) == number)
            self._withdraw(refs, rank, left_rank)
            self._take(refs, rank, number)
            self._moved.add(refs)
            number = left
        del self._holder[number]
        self._touched.add(number)

    def _withdraw(self, refs: Refs, first: int, end: int) -> None:
        for rank in range(first, end):
            number = self._candidate(refs, rank)
            if waiting := self._refused.get(number):
                waiting.discard(refs)
                if not waiting:
                    del self._refused[number]

    def _candidate(self, refs: Refs, rank: int) -> int:
        text = "\n".join(f"{r.kind}\0{r.namespace}\0{r.name}\0{r.rule}" for r in refs)
        salt = rank.to_bytes(8, "little")
        digest = hashlib.blake2b(text.encode(), digest_size=8, salt=salt).digest()
        return int.from_bytes(digest, "little") & ((1 << self._bits) - 1)
