"""`axo policy why`: the verdict on a packet nobody has sent, and the rules that lead to it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import msgspec

from axoneme.cli import kinds, state, views
from axoneme.cli.completing import complete_pod_of_any_namespace
from axoneme.cli.failures import Failure
from axoneme.cli.objects import get, missing, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.root import Entry, Lazy
from axoneme.model.state import EndpointState
from axoneme.sources.store import Store

#: The exit code for a packet that may not pass; 1 means that nothing could be found out.
DENIED = 3

_PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP", "ICMPV6")


COMMANDS: dict[str, dict[str, Entry]] = {
    "Commands": {
        "why": Entry("policy:why", "Say whether a packet may pass, and why."),
        "test": Entry("policytest:test", "Try with real packets who reaches whom."),
        "lint": Entry("policylint:lint", "Find traps in policies."),
    }
}


@click.group(cls=Lazy, table=COMMANDS)
def group() -> None:
    """Explain what policies decide, test them, and find traps in them."""


class _Answer(msgspec.Struct, frozen=True):
    """As much of the agent's ``policy.evaluate`` as is shown."""

    verdict: str
    allowed: bool
    enforced: bool = False
    rules: list[dict[str, Any]] = []
    subject: dict[str, Any] = {}
    peer: dict[str, Any] = {}
    steps: list[str] = []
    nearest: list[dict[str, Any]] = []


class End(NamedTuple):
    """One of the two: a pod with an endpoint, or an address that belongs to none."""

    name: str
    address: str
    endpoint: EndpointState | None = None

    @property
    def peer(self) -> dict[str, object]:
        """As the other's agent takes it."""
        return {"identity": self.endpoint.identity} if self.endpoint else {"address": self.address}


@dataclass(frozen=True, slots=True)
class Side:
    """What the agent of the subject's node says of one direction."""

    direction: str
    subject: End
    node: str
    answer: _Answer


@click.command()
@click.option(
    "--from",
    "source",
    required=True,
    metavar="POD|IP",
    shell_complete=complete_pod_of_any_namespace,
    help="Who sends: pod, namespace/pod, or an address.",
)
@click.option(
    "--to",
    "destination",
    required=True,
    metavar="POD|IP",
    shell_complete=complete_pod_of_any_namespace,
    help="To whom.",
)
@click.option(
    "--port", required=True, metavar="N/PROTOCOL", help="80/TCP, 53/UDP, 8/ICMP (the type); TCP if not said."
)
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@in_namespace
@in_sandbox
@click.pass_obj
def why(place: Place, source: str, destination: str, port: str, output: str | None) -> int:
    """Say whether a first packet may pass, and why.

    It is worked out from the compiled policies, by the agent of the source's node for egress and by that of
    the destination's for ingress; nothing is sent. Ends with 0 when the packet may pass, with 3 when not.
    """
    number, protocol = parse_port(port)
    sender, receiver = work(place, lambda store: _ends(store, place, source, destination))
    sides = ask_both(place, sender, receiver, number, protocol)
    if not sides:
        raise Failure(f"neither {source} nor {destination} is a pod with policies: give at least one that is")
    allowed = all(side.answer.allowed for side in sides)
    if output:
        click.echo(json.dumps(_json(sender, receiver, number, protocol, sides, allowed), indent=4))
    else:
        verdict = click.style("allowed", fg="green") if allowed else click.style("denied", fg="red")
        click.echo(f"{verdict}: {sender.name} -> {receiver.name} {number}/{protocol}")
        for side in sides:
            click.echo("\n".join(_lines(side)))
    return 0 if allowed else DENIED


def parse_port(text: str) -> tuple[int, str]:
    """From ``80/TCP`` or ``80``; UsageError."""
    number, slash, protocol = text.partition("/")
    name = {"ICMPV4": "ICMP"}.get(protocol.upper(), protocol.upper()) if slash else "TCP"
    if name not in _PROTOCOLS or not number.isdecimal() or int(number) > 65535:
        raise click.UsageError(
            f"--port {text}: give a number up to 65535 and one of {', '.join(_PROTOCOLS)}, as 80/TCP"
        )
    return int(number), name


# ---- whom it is about ----------------------------------------------------------------------------------


async def _ends(store: Store, place: Place, source: str, destination: str) -> tuple[End, End]:
    endpoints = await state.endpoints(store)
    return await _end(store, place, source, endpoints), await _end(store, place, destination, endpoints)


async def _end(store: Store, place: Place, word: str, endpoints: list[EndpointState]) -> End:
    if address := _address(word):
        for each in endpoints:
            if address in each.addresses:
                return End(f"{each.namespace}/{each.pod}", address, each)
        return End(address, address)
    namespace, slash, name = word.rpartition("/")
    namespace = namespace if slash else place.in_namespace
    for each in endpoints:
        if (each.namespace, each.pod) == (namespace, name):
            return End(f"{namespace}/{name}", each.addresses[0] if each.addresses else "", each)
    return await _without_endpoint(store, namespace, name)


async def _without_endpoint(store: Store, namespace: str, name: str) -> End:
    """A pod in its node's network: what holds for the node holds for it."""
    stored = await get(store, kinds.POD, namespace, name)
    if stored is None:
        raise missing(kinds.POD, namespace, name)
    addresses = views.view(stored.value, views.Pod).addresses
    if not addresses:
        raise Failure(f"pod {namespace}/{name} has no address yet, so nothing can be said of its packets")
    return End(f"{namespace}/{name}", addresses[0])


def _address(word: str) -> str:
    """In its canonical form; empty for what is none."""
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        return ""


# ---- what the agents say -------------------------------------------------------------------------------


def ask_both(place: Place, sender: End, receiver: End, port: int, protocol: str) -> list[Side]:
    """Egress and ingress, as far as the ends have endpoints."""
    question = {"protocol": protocol, "port": port}
    return [
        _ask(place, direction, subject, peer, question)
        for direction, subject, peer in (("egress", sender, receiver), ("ingress", receiver, sender))
        if subject.endpoint
    ]


def _ask(place: Place, direction: str, subject: End, peer: End, question: dict[str, object]) -> Side:
    from axoneme.rpc import UNAVAILABLE, Client, RpcError

    assert subject.endpoint is not None
    node = subject.endpoint.node
    try:
        answer = Client(place.sockets(node).agent).call(
            "policy.evaluate",
            {"direction": direction, "subject": subject.name, "peer": peer.peer, **question},
            _Answer,
        )
    except RpcError as error:
        hint = " (only the agent can say what it has compiled)" if error.code == UNAVAILABLE else ""
        raise Failure(f"the agent of {node}, asked for {direction}: {error.message}{hint}") from error
    return Side(direction, subject, node, answer)


def _lines(side: Side) -> Iterator[str]:
    answer = side.answer
    yield ""
    yield f"{side.direction} of {side.subject.name}, at {side.node}: {answer.verdict}"
    for what, party in (("subject", answer.subject), ("peer", answer.peer)):
        labels = ", ".join(party.get("labels", ())) or "no labels known"
        yield f"  {what:<8} identity {party.get('identity', '?')}: {labels}"
    for rule in answer.rules:
        yield f"  {'by':<8} {_rule(rule)}"
    if not answer.rules and not answer.enforced:
        yield f"  {'by':<8} nobody: no policy closes this direction"
    for step in answer.steps:
        yield f"  - {step}" if not step.startswith(" ") else f"  {step}"
    for miss in answer.nearest[:1]:
        yield f"  {'nearest':<8} {miss['text']}"


def _rule(rule: dict[str, Any]) -> str:
    owner = "/".join(part for part in (rule.get("namespace"), rule.get("name")) if part)
    words = [rule.get("kind", ""), owner, rule.get("rule", "")]
    text = " ".join(word for word in words if word)
    return f"{text} ({rule['description']})" if rule.get("description") else text


def _json(
    source: End, destination: End, port: int, protocol: str, sides: list[Side], allowed: bool
) -> dict[str, object]:
    return {
        "verdict": "allowed" if allowed else "denied",
        "from": _end_json(source),
        "to": _end_json(destination),
        "port": port,
        "protocol": protocol,
        **{side.direction: {"node": side.node, **msgspec.to_builtins(side.answer)} for side in sides},
    }


def _end_json(end: End) -> dict[str, object]:
    if end.endpoint is None:
        return {"name": end.name, "address": end.address}
    return {
        "name": end.name,
        "namespace": end.endpoint.namespace,
        "pod": end.endpoint.pod,
        "node": end.endpoint.node,
        "identity": end.endpoint.identity,
        "addresses": end.endpoint.addresses,
    }
