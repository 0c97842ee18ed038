"""Traffic that notices what happens to it: streams between namespaces, each of whose packets is counted.

`checker.c` does the work, in one process for all namespaces; here is said what it shall send, and what came
of it. A stream that policy forbids is sent as well, and each of its packets that arrives is counted.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

#: Where policy lets members talk, where it lets nobody, and from which port strangers try the first.
OPEN, CLOSED, STRANGE = 7001, 7002, 7003
#: Microseconds between two packets of one stream; of new connections; of what is denied.
PACKETS, CONNECTIONS, DENIED = 20_000, 100_000, 400_000
#: Seconds for which traffic runs at least, so that every stream has sent.
SHORTEST: Final = 1.0
KINDS: Final = ("udp", "tcp", "icmp", "connect", "ask")
_SOURCE = Path(__file__).with_name("checker.c")


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace, and what it is reached by. Packets that only pass through it are not its own:
    ``watched`` is whether forbidden ones on its links are wrong."""

    name: str
    namespace: Path
    addresses: tuple[str, ...]
    watched: bool = True


@dataclass(frozen=True, slots=True)
class Stream:
    """``kind`` is one of `KINDS`; ``count`` 0 for ever."""

    kind: str
    source: str
    target: str
    address: str
    port: int = OPEN
    source_port: int = 0
    interval: int = PACKETS
    count: int = 0
    allowed: bool = True

    def __str__(self) -> str:
        verdict = "" if self.allowed else ", denied"
        return f"{self.kind} {self.source} -> {self.target} ({self.address} port {self.port}{verdict})"

    def order(self) -> str:
        verdict = "allowed" if self.allowed else "denied"
        return (
            f"stream {self.kind} {self.source} {self.address} {self.port} {self.source_port} "
            f"{self.interval} {self.count} {verdict}"
        )


class Outcome(msgspec.Struct, frozen=True):
    """Of one stream: numbers of packets, times in seconds since the start."""

    sent: int
    lost: int
    wrong: int
    resent: int
    broken: bool
    worst: float
    first_lost: float
    last_lost: float


class Whole(msgspec.Struct, frozen=True):
    """Of the checker: forbidden TCP packets seen on the wire, packets that it had no room for, and its own
    longest pause in seconds."""

    sniffed: int = 0
    overflow: int = 0
    pause: float = 0.0


@dataclass(slots=True)
class Report:
    """What became of all streams during one fault."""

    fault: str
    outcomes: list[tuple[Stream, Outcome]] = field(default_factory=list)
    whole: Whole = field(default_factory=Whole)

    @property
    def sent(self) -> int:
        return sum(outcome.sent for stream, outcome in self.outcomes if stream.allowed)

    @property
    def denied(self) -> int:
        return sum(outcome.sent for stream, outcome in self.outcomes if not stream.allowed)

    @property
    def lost(self) -> int:
        """Never answered; connections that broke; segments that had to be sent again."""
        return sum(each.lost + each.resent + each.broken for _, each in self.outcomes)

    @property
    def wrong(self) -> int:
        return self.whole.sniffed + sum(outcome.wrong for _, outcome in self.outcomes)

    def clean(self) -> bool:
        """Nothing lost, nothing wrongly passed, and enough sent of both to say so."""
        return bool(self.sent and self.denied) and not self.lost and not self.wrong

    def __str__(self) -> str:
        """The streams with which something is wrong."""
        lines = [
            f"{self.fault}: {self.sent} sent, {self.lost} lost; {self.denied} denied, {self.wrong} passed"
        ]
        lines += [
            f"  {stream}: {outcome}"
            for stream, outcome in self.outcomes
            if outcome.lost or outcome.resent or outcome.broken or outcome.wrong
        ]
        return "\n".join([*lines, f"  {self.whole}"])


class Checker:
    """The program at work on some streams."""

    def __init__(self, program: Path, places: Iterable[Place], streams: Sequence[Stream]) -> None:
        self._streams = streams
        orders = []
        for place in places:
            orders.append(f"place {place.name} {place.namespace}")
            orders += [
                f"listen {place.name} {address} {port}"
                for address in place.addresses
                for port in (OPEN, CLOSED)
            ]
            if place.watched:
                orders.append(f"watch {place.name} {CLOSED} {STRANGE}")
        orders += [stream.order() for stream in streams]
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._say("\n".join([*orders, "go"]))

    def wait_ready(self) -> None:
        """Until every allowed stream has had an answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != "ready\n":
            raise AssertionError(f"the checker did not start: {line}{self._words()}")

    def finish(self, fault: str) -> Report:
        """Stops sending, waits for what is on its way, and counts."""
        self._say("stop")
        output, words = self._process.communicate()
        assert self._process.returncode == 0, words
        *lines, last = output.splitlines()
        outcomes = [msgspec.json.decode(line, type=Outcome) for line in lines if line != "ready"]
        whole = msgspec.json.decode(last, type=Whole)
        return Report(fault, list(zip(self._streams, outcomes, strict=True)), whole)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _words(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read()


def compile_checker(folder: Path) -> Path:
    program = folder / "checker"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", program, _SOURCE], check=True)
    return program


#: Of this session, in the order of the tests.
REPORTS: list[Report] = []


@contextmanager
def under_traffic(
    program: Path, fault: str, places: Iterable[Place], streams: Sequence[Stream]
) -> Iterator[Report]:
    """Traffic runs in the body; the report is complete after it, and in the summary of the session."""
    checker = Checker(program, places, streams)
    report = Report(fault)
    try:
        checker.wait_ready()
        least = time.monotonic() + SHORTEST
        yield report
        time.sleep(max(0.0, least - time.monotonic()))
        found = checker.finish(fault)
    finally:
        checker.kill()
    report.outcomes, report.whole = found.outcomes, found.whole
    REPORTS.append(report)


# ---- who talks to whom -----------------------------------------------------------------------------


def mesh(members: Sequence[Place], beyond: Sequence[Place] = ()) -> Iterator[Stream]:
    """All kinds over all ordered pairs of members and from members to what is beyond, both families."""
    for source in members:
        for target in (*members, *beyond):
            if source is not target:
                yield from between(source, target)


def between(source: Place, target: Place, interval: int = PACKETS) -> Iterator[Stream]:
    for address in target.addresses:
        for kind in KINDS:
            new = CONNECTIONS if kind in ("connect", "ask") else interval
            yield Stream(kind, source.name, target.name, address, interval=new)


def forbidden(members: Sequence[Place], strangers: Sequence[Place]) -> Iterator[Stream]:
    """Members at the closed port of each other; strangers at the open one, and by ICMP."""
    for target in members:
        for address in target.addresses:
            for source in members:
                if source is not target:
                    for kind in ("connect", "udp"):
                        yield Stream(
                            kind, source.name, target.name, address, CLOSED, interval=DENIED, allowed=False
                        )
            for source in strangers:
                for kind, port in (("connect", STRANGE), ("udp", STRANGE), ("icmp", 0)):
                    yield Stream(
                        kind,
                        source.name,
                        target.name,
                        address,
                        OPEN,
                        source_port=port,
                        interval=DENIED,
                        allowed=False,
                    )


def summary() -> list[str]:
    """A table of all reports, and their sums; empty when there were none."""
    if not REPORTS:
        return []
    head = f"{'fault':<52} {'sent':>9} {'lost':>6} {'denied':>8} {'passed':>6} {'slowest':>8} {'paused':>7}"
    rows = [head]
    for each in REPORTS:
        slowest = max((outcome.worst for _, outcome in each.outcomes), default=0)
        rows.append(
            f"{each.fault[:52]:<52} {each.sent:>9} {each.lost:>6} {each.denied:>8} {each.wrong:>6} "
            f"{slowest * 1000:>5.0f} ms {each.whole.pause * 1000:>4.0f} ms"
        )
    sums = [sum(getattr(each, name) for each in REPORTS) for name in ("sent", "lost", "denied", "wrong")]
    rows.append(f"{'all':<52} {sums[0]:>9} {sums[1]:>6} {sums[2]:>8} {sums[3]:>6}")
    return rows
