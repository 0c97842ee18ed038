"""The ways from one node to another, and what was found on them.

    path       protocol  proves
    underlay   icmp      the node's network stack is there
    underlay   tcp       and its agent answers
    pods       icmp      routes or tunnel, datapath and policy lead to the node's health endpoint
    pods       tcp       and an agent answers behind it

Each of them for every address family that both nodes have.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

import msgspec

from axoneme.model.state import NodeState

#: Failures in a row.
_PATIENCE = 3
#: How many unreachable nodes a summary names.
_NAMED = 10


class Path(enum.Enum):
    UNDERLAY = "underlay"
    PODS = "pods"


class Protocol(enum.Enum):
    ICMP = "icmp"
    TCP = "tcp"


class Way(msgspec.Struct, frozen=True):
    path: Path
    protocol: Protocol
    address: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        where = "underlay" if self.path is Path.UNDERLAY else "pod network"
        return f"{self.protocol.name} over the {where} to {self.address}"


class Answer(msgspec.Struct, frozen=True):
    """What came back: the round trip in seconds; from TCP also who answered, and the clock there less the
    clock here, in seconds."""

    latency: float
    node: str = ""
    skew: float = 0.0


class Measurement(msgspec.Struct, frozen=True):
    """The last of a way, and when it last worked. Times are seconds since 1970, 0 for never."""

    way: Way
    measured: float = 0.0
    last_success: float = 0.0
    answer: Answer | None = None
    #: Why there is no answer; empty when there is one, or nothing has been measured.
    reason: str = ""
    #: How often in a row it has failed.
    failures: int = 0

    @property
    def known(self) -> bool:
        return self.measured > 0

    @property
    def works(self) -> bool:
        return self.answer is not None

    @property
    def given_up(self) -> bool:
        """Packets get lost and agents restart: it takes some failures in a row to call a node unreachable."""
        return self.failures >= _PATIENCE

    def answered(self, answer: Answer, now: float) -> Measurement:
        return Measurement(self.way, now, now, answer)

    def failed(self, reason: str, now: float) -> Measurement:
        return Measurement(self.way, now, self.last_success, None, reason, self.failures + 1)


class NodeHealth(msgspec.Struct, frozen=True):
    """One node as seen from another, or from itself."""

    node: str
    measurements: list[Measurement]

    @property
    def reachable(self) -> bool | None:
        """By every way; None while that has not been found out."""
        if any(each.given_up for each in self.measurements):
            return False
        return True if all(each.works for each in self.measurements) else None


class HealthSummary(msgspec.Struct, frozen=True):
    """For a glance: how many nodes there are with this one, which are reached by every way, and which not
    (the first few)."""

    nodes: int = 0
    reachable: int = 0
    unreachable: list[str] = []


class HealthReport(msgspec.Struct, frozen=True):
    """All that a node knows. ``interval``: seconds between two measurements of a node."""

    node: str
    interval: float
    nodes: list[NodeHealth]
    #: Why others may not get answers from this node.
    problems: list[str] = []


def summary(nodes: Iterable[NodeHealth]) -> HealthSummary:
    found = list(nodes)
    bad = [each.node for each in found if each.reachable is False]
    good = sum(each.reachable is True for each in found)
    return HealthSummary(len(found), good, sorted(bad)[:_NAMED])


def ways(state: NodeState, versions: Iterable[int]) -> Iterator[Way]:
    """The ways to a node, for the families that this one has.

    One without a health endpoint does not take part: its agent does not listen, but it can be pinged.
    """
    wanted = set(versions)
    protocols = tuple(Protocol) if state.health_addresses else (Protocol.ICMP,)
    for path, addresses in ((Path.UNDERLAY, state.internal_addresses), (Path.PODS, state.health_addresses)):
        for address in addresses:
            if ip_address(address).version in wanted:
                for protocol in protocols:
                    yield Way(path, protocol, address)
