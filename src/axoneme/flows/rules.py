"""What numbers in a flow stand for: rules, services, and identities of this node alone.

The agent writes it down in a file of its state directory, line by line, each before its number gets
into a kernel table; the flow server reads on when it meets a number that it does not know. What a line
says holds until a later line says otherwise; nothing is ever taken away, so that flows which a deleted
policy decided, or that called a deleted service, can still be explained. Each line is one JSON object:

    {"rule": 77, "refs": [{"kind": …, "namespace": …, "name": …, "rule": …}]}
    {"subject": 300, "direction": "ingress", "rule": 78}
    {"identity": 16777216, "labels": ["cidr:192.0.2.0/24", "reserved:world"]}
    {"service": 12, "name": "shop/web", "port": "http"}

The second kind is for what no rule allows: the policies behind that rule number are why the subject's
traffic is denied by default (0: it no longer is).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from axoneme.flows.appended import AppendedLines
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.model.policy import Direction, PolicyRef

#: In the agent's state directory.
FILE_NAME = "rules.jsonl"


class RuleLine(msgspec.Struct, frozen=True):
    rule: int
    refs: tuple[PolicyRef, ...]


class SubjectLine(msgspec.Struct, frozen=True):
    subject: int
    direction: str
    rule: int


class IdentityLine(msgspec.Struct, frozen=True):
    identity: int
    labels: tuple[str, ...]


class ServiceLine(msgspec.Struct, frozen=True):
    service: int
    name: str
    port: str


class _AnyLine(msgspec.Struct, frozen=True):
    rule: int | None = None
    refs: tuple[PolicyRef, ...] | None = None
    subject: int | None = None
    direction: str = ""
    identity: int | None = None
    labels: tuple[str, ...] = ()
    service: int | None = None
    name: str = ""
    port: str = ""


class RuleJournal:
    """The reading side; a missing file is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(_AnyLine)
        self._refs: dict[int, tuple[PolicyRef, ...]] = {}
        self._defaults: dict[tuple[int, Direction], int] = {}
        self._identities: dict[int, tuple[str, ...]] = {}
        self._fresh: dict[int, tuple[str, ...]] = {}
        #: Of the services, as of the last `catch_up`.
        self.services = ServiceNames()
        self._lines = AppendedLines()
        #: Lines that could not be understood.
        self.malformed = 0

    def refs(self, rule: int) -> Sequence[PolicyRef] | None:
        """The places in policies that make a rule; None while the journal does not have it."""
        found = self._refs.get(rule)
        if found is None:
            self.catch_up()
            found = self._refs.get(rule)
        return found

    def default_of(self, subject: int, direction: Direction) -> int:
        """The rule that stands for the policies which deny by default; 0 when it is not known."""
        return self._defaults.get((subject, direction), 0)

    def take_identities(self) -> Mapping[int, tuple[str, ...]]:
        """The labels of identities that have come or changed since the last call."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def catch_up(self) -> None:
        """Reads what has been added; a file in place of the former one is read from its start."""
        for line in self._lines.of(self._path):
            try:
                self._take(self._decoder.decode(line))
            except (msgspec.MsgspecError, KeyError, ValueError, RecursionError):
                self.malformed += 1

    def _take(self, line: _AnyLine) -> None:
        if line.subject is not None and line.rule is not None:
            self._defaults[line.subject, Direction[line.direction.upper()]] = line.rule
        elif line.rule is not None and line.refs is not None:
            self._refs[line.rule] = line.refs
        elif line.identity is not None:
            if self._identities.get(line.identity) != line.labels:
                self._identities[line.identity] = self._fresh[line.identity] = line.labels
        elif line.service is not None:
            self.services.put(line.service, ServicePort(line.name, line.port))
        else:
            raise KeyError("neither a rule nor a subject nor an identity nor a service")


class RuleWriter:
    """The writing side, for the agent; writes nothing twice, also after a restart.

    Lines that a crash cut off are completed by the line break that the next writer puts first. What the disk
    does not take is kept, and written by `retry` or with the next lines: a policy must not wait for the
    words that explain it.
    """

    def __init__(self, path: Path) -> None:
        known = RuleJournal(path)
        known.catch_up()
        self._refs = dict(known._refs)
        self._defaults = dict(known._defaults)
        self._identities = dict(known._identities)
        self._services = known.services
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._unwritten = b""
        #: Why something could not be written; empty when all is.
        self.problem = ""
        if known._lines.read < self._file.tell():
            self._unwritten = b"\n"

    def rules(self, rules: Mapping[int, Sequence[PolicyRef]]) -> None:
        """What rule numbers mean."""
        new = {n: tuple(refs) for n, refs in rules.items() if self._refs.get(n) != tuple(refs)}
        self._refs.update(new)
        self._write(RuleLine(number, refs) for number, refs in new.items())

    def default(self, subject: int, direction: Direction, rule: int) -> None:
        """The rule that stands for the policies which deny by default to a subject; 0 for none."""
        if self._defaults.get((subject, direction), 0) != rule:
            self._defaults[subject, direction] = rule
            self._write([SubjectLine(subject, direction.name.lower(), rule)])

    def identities(self, identities: Mapping[int, Iterable[str]]) -> None:
        """The labels of identities that the shared state does not have."""
        new = {n: tuple(ls) for n, ls in identities.items() if self._identities.get(n) != tuple(ls)}
        self._identities.update(new)
        self._write(IdentityLine(number, labels) for number, labels in new.items())

    def known_identities(self) -> Mapping[int, Sequence[str]]:
        """All that was ever written of identities: of each number, what it meant last."""
        return self._identities

    def services(self, services: Mapping[int, ServicePort]) -> None:
        """Which services numbers stand for."""
        new = {n: service for n, service in services.items() if self._services.get(n) != service}
        for number, service in new.items():
            self._services.put(number, service)
        self._write(ServiceLine(number, *service) for number, service in new.items())

    def close(self) -> None:
        self._file.close()

    def _write(self, lines: Iterable[msgspec.Struct]) -> None:
        self._unwritten += b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        self.retry()

    def retry(self) -> None:
        """Writes what is left to be written, as far as the disk takes it."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
            self.problem = ""
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}; flows name no new rules and services until then"
