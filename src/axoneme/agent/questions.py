"""What the agent is asked: why a verdict is as it is, and what it knows of pods, identities, addresses."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

import msgspec

from axoneme.agent.control import Control
from axoneme.agent.endpoints import EndpointTable
from axoneme.agent.names import Names
from axoneme.datapath.plane import packed, unpacked
from axoneme.identity.addressbook import Address, Flag
from axoneme.identity.numbers import Reserved
from axoneme.identity.prefixes import address_text, prefix_text
from axoneme.model.labels import Labels
from axoneme.model.policy import Authentication, Direction, PolicyRef, Protocol, Tier
from axoneme.policy.explain import Explanation, PolicyPart, RulePart, why
from axoneme.policy.lookup import Outcome
from axoneme.policy.nearest import Miss, nearest
from axoneme.policy.requests import Request, judge, texts
from axoneme.policy.table import Verdict
from axoneme.rpc import INVALID, NOT_FOUND, RpcError


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the three. ``name``: a DNS name, for what its addresses have, or will have."""

    identity: int | None = None
    address: str = ""
    name: str = ""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of ``policy.evaluate``.

    ``subject`` is a pod of this node (namespace/pod); ``port`` the destination's, or the ICMP type;
    ``request`` what is called there, for rules above L4.
    """

    direction: Literal["ingress", "egress"]
    subject: str
    peer: Peer
    protocol: str = "TCP"
    port: int = 0
    request: Request | None = None


class Rule(msgspec.Struct, frozen=True):
    kind: str
    namespace: str
    name: str
    rule: str


class Party(msgspec.Struct, frozen=True):
    identity: int
    labels: list[str]


class Lack(msgspec.Struct, frozen=True):
    """A condition of a rule that the packet does not meet: which, what the rule wants, what there is."""

    condition: str
    wants: str
    has: str


class NearMiss(msgspec.Struct, frozen=True):
    """A rule that would allow the packet but for what is unmet; ``text`` says so in a sentence."""

    rule: Rule
    unmet: list[Lack]
    text: str


class Answer(msgspec.Struct, frozen=True):
    """``verdict``: ``allowed``, ``denied`` by a rule, or ``denied by default``.

    ``enforced`` says whether policies select the subject in this direction; ``rules`` are those that
    decide, or the policies that close the direction where none does; ``steps`` the way to the verdict,
    in words; ``nearest`` the rules that come nearest to allowing what is denied by default, nearest first.
    ``above``: the rules to which a proxy holds what is allowed, each in words; ``watched``: it only says what
    they would refuse. A request that they refuse is ``denied by a proxy``. ``audited``: it passes because
    the policies that would deny it are only tried.
    """

    verdict: str
    allowed: bool
    enforced: bool
    rules: list[Rule]
    subject: Party
    peer: Party
    steps: list[str]
    nearest: list[NearMiss] = []
    above: list[str] = []
    watched: bool = False
    audited: bool = False


class IdentityLine(msgspec.Struct, frozen=True):
    identity: int
    labels: list[str]


class AddressLine(msgspec.Struct, frozen=True):
    prefix: str
    identity: int
    node: str
    flags: list[str]


class PolicyLine(msgspec.Struct, frozen=True):
    """One entry of the kernel's table."""

    subject: int
    direction: str
    peer: int
    protocol: int
    port: int
    prefix_length: int
    verdict: str
    rules: list[str]


#: How many near misses an answer names.
_MOST_MISSES = 3


class Questions:
    """Answers from the compiled tables, without touching the kernel."""

    def __init__(
        self, control: Control, endpoints: EndpointTable, families: tuple[int, ...], names: Names
    ) -> None:
        self._control = control
        self._endpoints = endpoints
        self._families = families
        self._names = names

    async def evaluate(self, question: Question) -> Answer:
        """RpcError: NOT_FOUND for a pod that is not here, INVALID for what makes no sense."""
        try:
            protocol = Protocol[question.protocol.upper()]
        except KeyError:
            known = ", ".join(p.name for p in Protocol if p is not Protocol.ANY)
            raise RpcError(INVALID, f"protocol {question.protocol!r}: expected one of {known}") from None
        if not 0 <= question.port <= 65535:
            raise RpcError(INVALID, f"port {question.port}: expected 0 to 65535")
        subject = self._pod(question.subject)
        peers, note = self._peers(question.peer)
        direction = Direction[question.direction.upper()]
        packets = [
            (self._control.engine, subject, direction, each, int(protocol), question.port) for each in peers
        ]
        # Of several addresses of a name, one that it does not reach says more.
        packet = next((each for each in packets if not why(*each).decision.allowed), packets[0])
        peer, found = packet[3], why(*packet)
        address = ip_address(question.peer.address) if question.peer.address else None
        refs = found.refs
        if found.decision.outcome is Outcome.DEFAULT_DENIED:
            refs = tuple(part.ref for part in found.policies if part.default_deny)
        said = judge(found.above.rules, question.request) if found.above and question.request else None
        refused = said is not None and not said.allowed and not (found.above and found.above.audit)
        return Answer(
            verdict="denied by a proxy" if refused else found.decision.outcome.value,
            allowed=found.decision.allowed and not refused,
            enforced=found.enforced,
            rules=[_rule(ref) for ref in refs],
            subject=Party(subject, _texts(found.subject_labels)),
            peer=Party(peer, _texts(found.peer_labels)),
            steps=[*note, *_steps(found, question), *([f"a proxy {said}"] if said else [])],
            nearest=[_near(miss) for miss in nearest(*packet, address)[:_MOST_MISSES]],
            above=texts(found.above.rules) if found.above else [],
            watched=found.above is not None and found.above.audit,
            audited=found.decision.audited,
        )

    def _pod(self, name: str) -> int:
        namespace, _, pod = name.partition("/")
        for record in self._endpoints.records.values():
            if (record.state.namespace, record.state.pod) == (namespace, pod):
                return record.state.identity
        raise RpcError(NOT_FOUND, f"there is no pod {name} on this node")

    def _peers(self, peer: Peer) -> tuple[list[int], list[str]]:
        """The identities that are meant, at least one; and what is to be said of that."""
        if sum((peer.identity is not None, bool(peer.address), bool(peer.name))) != 1:
            raise RpcError(INVALID, "peer: give an identity, an address or a DNS name")
        if peer.identity is not None:
            return [peer.identity], []
        if peer.name:
            return self._named(peer.name)
        try:
            return [self.identity_of(ip_address(peer.address))], []
        except ValueError as error:
            raise RpcError(INVALID, f"peer.address: {error}") from error

    def _named(self, name: str) -> tuple[list[int], list[str]]:
        known = [unpacked(address) for address in self._names.means(name)]
        if not known:
            return [self._names.foreseen(name)], [
                f"nobody on this node was told an address of {name} yet: judged as one will be, outside the "
                "ranges that policies name"
            ]
        some = ", ".join(map(str, known[:3])) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
        return list(dict.fromkeys(map(self.identity_of, known))), [f"{name} is {some}, as pods were told"]

    def identity_of(self, address: Address) -> int:
        """As the datapath finds it."""
        for record in self._endpoints.records.values():
            if str(address) in record.state.addresses:
                return record.state.identity
        if found := self._control.book.lookup(packed(address)):
            return found.identity
        if len(self._families) == 1:
            return Reserved.WORLD
        return Reserved.WORLD_IPV4 if address.version == 4 else Reserved.WORLD_IPV6

    def identities(self) -> list[IdentityLine]:
        return [
            IdentityLine(number, labels.texts())
            for number, labels in sorted(self._control.identities.items())
        ]

    def addresses(self) -> list[AddressLine]:
        return [
            AddressLine(
                text,
                record.identity,
                address_text(record.node) if record.node else "",
                [str(flag.name).lower() for flag in Flag if flag and flag in record.flags],
            )
            for text, record in sorted((prefix_text(p), record) for p, record in self._control.book.items())
        ]

    def policies(self) -> list[PolicyLine]:
        return [
            PolicyLine(
                key.subject,
                Direction(key.direction).name.lower(),
                key.peer,
                key.protocol,
                key.port,
                key.prefix_length,
                Verdict(value.verdict).name.lower(),
                [str(ref) for ref in self._control.engine.rules(value.rule)],
            )
            for key, value in dict(self._control.engine.table).items()
        ]


def _rule(ref: PolicyRef) -> Rule:
    return Rule(ref.kind, ref.namespace, ref.name, ref.rule)


def _near(miss: Miss) -> NearMiss:
    unmet = [Lack(each.condition.value, each.wants, each.has) for each in miss.unmet]
    return NearMiss(_rule(miss.ref), unmet, str(miss))


def _texts(labels: Labels) -> list[str]:
    return labels.texts()


def _steps(found: Explanation, question: Question) -> list[str]:
    """From the policies that select the subject to the rule that decides."""
    what = f"{question.port}/{question.protocol.upper()}" if question.port else question.protocol.upper()
    steps: list[str] = []
    if not found.subject_known:
        steps.append("the node does not know the subject's identity yet, so nothing may pass")
    if not found.peer_known:
        steps.append("the node does not know the peer's identity; only rules for every peer can apply")
    concerned = [part for part in found.policies if part.default_deny or part.rules]
    if not concerned:
        steps.append(f"no policy selects {question.subject} for {question.direction}: everything passes")
    for part in concerned:
        steps += _policy_steps(part, question.direction, what)
    if concerned and not found.enforced:
        steps.append(f"none of them denies {question.direction} by default: what no rule names passes")
    match found.decision.outcome:
        case Outcome.DENIED | Outcome.ALLOWED if (tier := _ordered_tier(found)) is not None:
            steps.append(
                f"{found.deciding[0].ref} is the first rule of {_TIERS[tier]} that applies: it decides"
            )
        case Outcome.DENIED:
            steps.append("a deny rule applies, and wins over every allow")
        case Outcome.DEFAULT_DENIED:
            steps.append(f"no rule allows {what} with this peer")
        case Outcome.ALLOWED if found.decision.audited:
            steps.append("policies that are only tried would deny it")
        case Outcome.ALLOWED if found.above and found.above.audit:
            steps.append("a proxy looks on, and refuses nothing")
        case Outcome.ALLOWED if found.above:
            steps.append(f"a proxy holds it to the rules for {found.above.rules.kind.name}")
        case Outcome.ALLOWED if not found.refs and found.enforced:
            steps.append("a node always reaches its own pods")
        case _:
            pass
    if found.decision.allowed and (proof := _PROOFS.get(found.decision.authentication)):
        steps.append(proof)
    return steps


_PROOFS = {
    Authentication.REQUIRED: "it passes once both ends have proved who they are",
    Authentication.ALWAYS_FAIL: "it is dropped all the same: nothing counts as proof (test-always-fail)",
}
_TIERS = {Tier.ADMIN: "the admin tier", Tier.BASELINE: "the baseline"}


def _ordered_tier(found: Explanation) -> Tier | None:
    """The tier that has decided, if it is one whose rules have an order."""
    tiers = {rule.tier for rule in found.deciding} - {Tier.NORMAL}
    return next(iter(tiers), None)


def _policy_steps(part: PolicyPart, direction: str, what: str) -> list[str]:
    closes = f" and denies {direction} by default" if part.default_deny else ""
    lines = [f"{part.ref}{_standing(part)} selects the subject by {part.selector or 'everything'}{closes}"]
    lines += [f"  {_rule_step(rule, what)}" for rule in part.rules]
    if not part.rules:
        lines.append(f"  it has no rule for {direction}")
    return lines


def _standing(part: PolicyPart) -> str:
    if part.tier is Tier.ADMIN:
        return f" (admin tier, priority {part.priority})"
    return " (baseline: asked where no other policy decides)" if part.tier is Tier.BASELINE else ""


def _rule_step(rule: RulePart, what: str) -> str:
    verb = "denies" if rule.deny else "allows"
    where = rule.ref.rule or "a rule"
    covers = f"the peer matches {rule.peer}, and the rule covers {what}"
    if rule.applies and rule.passes:
        return f"{where} passes it on to other policies: {covers}"
    if rule.applies:
        above = f", as {rule.l7.kind.name} that a proxy looks at" if rule.l7 else ""
        tried = " (it is only tried)" if rule.audit else ""
        return f"{where} {verb} it{above}{tried}: {covers}"
    if rule.missed_by_port:
        return f"{where} does not apply: the peer matches {rule.peer}, but the rule does not cover {what}"
    return f"{where} does not apply: it does not select the peer"
