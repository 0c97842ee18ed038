"""Expectations put to the test by real connections: the values, and what makes an expectation fulfilled.

What counts is what the sender met *and* what the nodes saw: a connection is denied when nothing came back
and a node reports that a policy dropped it. One that was lost for another reason fulfils no expectation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from axoneme.flows.flow import Flow, PolicyName
from axoneme.model.policy import Protocol
from axoneme.model.policytest import Expectation
from axoneme.model.state import EndpointState
from axoneme.sandbox import client
from axoneme.sandbox.client import Probe, ProbeResult

#: The reasons of drops that are a policy's doing.
_BY_POLICY = ("POLICY_DENIED", "POLICY_DENY")


class Fate(enum.Enum):
    """LOST: without an answer, and no policy has dropped it."""

    ALLOWED = "allowed"
    DENIED = "denied"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a connection. ``node`` is ``outside`` for the world; ``bind`` the address to send from,
    where that is not left to the kernel."""

    name: str
    node: str
    namespace: Path
    addresses: tuple[str, ...]
    endpoint: EndpointState | None = None
    bind: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    source: Party
    target: Party
    address: str
    protocol: Protocol
    port: int

    @property
    def way(self) -> str:
        return "→".join(dict.fromkeys((self.source.node, self.target.node)))

    @property
    def question(self) -> tuple[int, str]:
        """Port and protocol as policies have them: of an echo request the ICMP type."""
        if self.protocol is not Protocol.ICMP:
            return self.port, self.protocol.name
        return (128, "ICMPV6") if ":" in self.address else (8, "ICMP")

    def probe(self, timeout: float) -> Probe:
        protocol = client.Protocol[self.protocol.name]
        return Probe(
            self.source.namespace, self.address, self.port, protocol, timeout, source=self.source.bind
        )

    def made(self, flow: Flow, result: ProbeResult) -> bool:
        """Whether a flow between these addresses is of the attempt that ended so."""
        if flow.event == "end" or flow.is_reply:
            return False
        layer4 = flow.l4
        if self.protocol is Protocol.ICMP:
            return bool(layer4.ICMPv4 or layer4.ICMPv6)
        ports = layer4.TCP or layer4.UDP or layer4.SCTP
        return ports is not None and (ports.source_port, ports.destination_port) == (
            result.local_port,
            self.port,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A connection that was tried, and what its nodes saw of it."""

    connection: Connection
    result: ProbeResult
    flows: tuple[Flow, ...]

    @property
    def fate(self) -> Fate:
        if self.result.verdict is client.Verdict.CONNECTED:
            return Fate.ALLOWED
        if any(flow.drop_reason_desc in _BY_POLICY for flow in self.flows):
            return Fate.DENIED
        if self.result.verdict is client.Verdict.REFUSED:
            return Fate.ALLOWED  # by the other end itself: nobody listens there
        return Fate.LOST

    @property
    def deciders(self) -> tuple[PolicyName, ...]:
        """The policies that the nodes name for its fate, each once."""
        denied = self.fate is Fate.DENIED
        found = [
            policy
            for flow in self.flows
            for policy in (
                (*flow.egress_denied_by, *flow.ingress_denied_by)
                if denied
                else (*flow.egress_allowed_by, *flow.ingress_allowed_by)
            )
        ]
        return tuple({(each.kind, each.namespace, each.name): each for each in found}.values())

    @property
    def complete(self) -> bool:
        """Whether every node that has a part in it has reported it."""
        if self.fate is Fate.LOST:
            return False
        if self.fate is Fate.DENIED:
            return True
        ends = (self.connection.source, self.connection.target)
        return {end.node for end in ends if end.endpoint} <= {flow.node_name for flow in self.flows}

    def __str__(self) -> str:
        """A line for people."""
        connection, result = self.connection, self.result
        detail = {
            client.Verdict.CONNECTED: f"in {result.latency * 1000:.1f} ms",
            client.Verdict.REFUSED: "refused",
            client.Verdict.TIMEOUT: "no answer",
            client.Verdict.UNREACHABLE: f"unreachable: {result.detail}",
        }[result.verdict]
        dropped = [flow.drop_reason_desc for flow in self.flows if flow.drop_reason_desc]
        by = ", ".join(map(str, self.deciders)) or "no policy"
        note = ", ".join(dict.fromkeys(dropped)) if self.fate is Fate.LOST else f"by {by}"
        return (
            f"{connection.source.name} -> {connection.target.name} at {connection.address} "
            f"({connection.way}): {self.fate.value} ({detail})" + (f" {note}" if note else "")
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """An expectation and all connections that were made for it."""

    expectation: Expectation
    made: tuple[Made, ...]

    @property
    def wrong(self) -> tuple[tuple[Made, str], ...]:
        """The connections that came to something else, and in which respect."""
        found = ((made, _complaint(self.expectation, made)) for made in self.made)
        return tuple((made, complaint) for made, complaint in found if complaint)

    @property
    def as_expected(self) -> bool:
        return not self.wrong

    @property
    def fates(self) -> str:
        """``allowed``, or several where the connections differ."""
        return ", ".join(dict.fromkeys(made.fate.value for made in self.made))

    @property
    def seconds(self) -> float:
        """The slowest connection's."""
        return max(made.result.latency for made in self.made)

    @property
    def deciders(self) -> str:
        return ", ".join(dict.fromkeys(each.name for made in self.made for each in made.deciders)) or "none"

    @property
    def ways(self) -> str:
        """How many connections, and between which nodes."""
        ways = list(dict.fromkeys(made.connection.way for made in self.made))
        shown = ", ".join(ways) if len(ways) <= 3 else f"{len(ways)} ways"
        return f"{len(self.made)} ({shown})"

    @property
    def families(self) -> str:
        versions = sorted({ip_address(made.connection.address).version for made in self.made})
        return f"IPv{'+'.join(map(str, versions))}"


def _complaint(expectation: Expectation, made: Made) -> str:
    if made.fate.value != expectation.verdict:
        return f"expected {expectation.verdict}"
    missing = [name for name in expectation.by if not any(_is(name, each) for each in made.deciders)]
    return f"expected {expectation.verdict} by {', '.join(missing)}" if missing else ""


def _is(name: str, policy: PolicyName) -> bool:
    return name in (policy.name, f"{policy.namespace}/{policy.name}", str(policy))
