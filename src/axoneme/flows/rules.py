"""From the rule number in a flow to the policies behind it.

The agent writes a line for each rule number before the number gets into a kernel table: JSON,
``{"rule": 123, "refs": [{"kind": …, "namespace": …, "name": …, "rule": …}]}``. Numbers are hashes of
their refs, so a line never changes its meaning and outlives the policy: the flows that it decided
can still be shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from axoneme.model.policy import PolicyRef


class RuleLine(msgspec.Struct, frozen=True):
    rule: int
    refs: tuple[PolicyRef, ...]


class RuleJournal:
    """Reads what has been added to the file when it is asked for a number that it does not know."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decode = msgspec.json.Decoder(RuleLine)
        self._rules: dict[int, tuple[PolicyRef, ...]] = {}
        self._inode = 0
        self._read = 0
        #: Lines that could not be understood.
        self.malformed = 0

    def __call__(self, rule: int) -> Sequence[PolicyRef] | None:
        """The refs of a rule; None while the journal does not have it."""
        found = self._rules.get(rule)
        if found is None and self._catch_up():
            found = self._rules.get(rule)
        return found

    def _catch_up(self) -> bool:
        """Whether there was something new; a file in place of the former one is read from its start."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read:
                    self._inode, self._read = status.st_ino, 0
                if status.st_size == self._read:
                    return False
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return False
        # The writer may be in the middle of a line.
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                known = self._decode.decode(line)
            except msgspec.MsgspecError:
                self.malformed += 1
                continue
            self._rules[known.rule] = known.refs
        return bool(whole)
