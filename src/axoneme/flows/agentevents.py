"""What the agent did, for those who ask the flow server: policies, endpoints, its own start.

The agent appends a line of JSON for each event to a file of its state directory; the flow server reads them
when somebody asks. When the file has grown to `_LARGEST` bytes it becomes the former one, and another begins.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from axoneme.flows.appended import AppendedLines

log = logging.getLogger(__name__)

#: In the agent's state directory; the former one has `_FORMER` behind.
FILE_NAME: Final = "events.jsonl"
_FORMER: Final = ".1"
_LARGEST: Final = 1 << 20
#: Events that a reader keeps.
_KEPT: Final = 4096


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """``time``: ns of the wall clock."""

    time: int


class Started(Event, frozen=True, tag="started"):
    """The agent is ready."""


class PolicyChange(Event, frozen=True, tag="policy", omit_defaults=True):
    """The policies of an object are in force, or no longer. ``revision`` counts such changes since the
    agent's start; ``rules``: how many policies the object has."""

    kind: str
    namespace: str
    name: str
    revision: int
    rules: int = 0
    deleted: bool = False


class EndpointChange(Event, frozen=True, tag="endpoint", omit_defaults=True):
    """A pod of this node has been attached, or detached."""

    id: int
    namespace: str
    pod: str
    labels: Sequence[str] = ()
    deleted: bool = False


AnyEvent = Started | PolicyChange | EndpointChange


class EventWriter:
    """The agent's side. What the disk does not take is lost: nothing waits for it."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        """``clock``: ns of the wall clock."""
        self._path = path
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._revision = 0
        self._failing = False

    def started(self) -> None:
        self._write(Started(self._clock()))

    def policy(self, kind: str, namespace: str, name: str, rules: int) -> None:
        """``rules``: 0 when the object is gone."""
        self._revision += 1
        self._write(PolicyChange(self._clock(), kind, namespace, name, self._revision, rules, not rules))

    def endpoint(self, number: int, namespace: str, pod: str, labels: Sequence[str], deleted: bool) -> None:
        self._write(EndpointChange(self._clock(), number, namespace, pod, labels, deleted))

    def _write(self, event: AnyEvent) -> None:
        try:
            with open(self._path, "ab", buffering=0) as file:
                file.write(self._encode(event) + b"\n")
                full = file.tell() >= _LARGEST
            if full:
                self._path.replace(f"{self._path}{_FORMER}")
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("%s: %s; what the agent does is not told until then", self._path, error.strerror)
            self._failing = True


class EventReader:
    """Knows the newest `_KEPT` events, as of the last `catch_up`; numbered from 0."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decode = msgspec.json.Decoder(AnyEvent).decode
        self._events: deque[AnyEvent] = deque(maxlen=_KEPT)
        self._lines = AppendedLines()
        #: The number of the next event.
        self.next = 0

    @property
    def first(self) -> int:
        return self.next - len(self._events)

    def since(self, number: int) -> Iterator[AnyEvent]:
        """Those from this number on that are kept."""
        start = max(0, number - self.first)
        return iter(list(self._events)[start:])

    def catch_up(self) -> None:
        """Reads what has been added; of files that have taken each other's place, the former first."""
        former = Path(f"{self._path}{_FORMER}")
        if self._lines.inode in (0, _inode(former)):
            self._take(former)
        self._take(self._path)

    def _take(self, path: Path) -> None:
        for line in self._lines.of(path):
            try:
                self._events.append(self._decode(line))
            except (msgspec.MsgspecError, ValueError):
                continue  # a crash has cut it off
            self.next += 1


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
