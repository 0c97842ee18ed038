"""`axo policy why`: the verdict on a packet nobody has sent, and the rules that lead to it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import msgspec

from axoneme.cli import calledservice, kinds, state, views
from axoneme.cli.completing import complete_pod_of_any_namespace
from axoneme.cli.failures import Failure
from axoneme.cli.objects import get, missing, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.root import Entry, Lazy
from axoneme.model.names import canonical
from axoneme.model.state import EndpointState, NodeState
from axoneme.sources.store import Store

#: The exit code for a packet that may not pass; 1 means that nothing could be found out.
DENIED = 3

_PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP", "ICMPV6")


COMMANDS: dict[str, dict[str, Entry]] = {
    "Commands": {
        "why": Entry("policy:why", "Say whether a packet may pass, and why."),
        "test": Entry("policytest:test", "Try with real packets who reaches whom."),
        "lint": Entry("policylint:lint", "Find traps in policies."),
        "preview": Entry("policypreview:preview", "Say what a change would break and open."),
        "suggest": Entry("policysuggest:suggest", "Write policies from what was recorded."),
        "confirm": Entry("policyconfirm:confirm", "Keep the policies for nodes that are tried."),
    }
}


@click.group(cls=Lazy, table=COMMANDS)
def group() -> None:
    """Explain what policies decide, test and preview them, find traps in them, write them."""


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
    above: list[str] = []
    watched: bool = False
    audited: bool = False


class End(NamedTuple):
    """One of the two: a pod with an endpoint, an address that belongs to none, or (without address) a DNS
    name."""

    name: str
    address: str
    endpoint: EndpointState | None = None

    @property
    def peer(self) -> dict[str, object]:
        """As the other's agent takes it."""
        if not self.endpoint and not self.address:
            return {"name": self.name}
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
    metavar="POD|IP|NAME",
    shell_complete=complete_pod_of_any_namespace,
    help="To whom: also the address of a service, or a DNS name.",
)
@click.option(
    "--port", required=True, metavar="N/PROTOCOL", help="80/TCP, 53/UDP, 8/ICMP (the type); TCP if not said."
)
@click.option("--method", default="", metavar="GET", help="Of an HTTP request.")
@click.option("--path", default="", metavar="/PATH", help="Of an HTTP request, with its query.")
@click.option("--host", default="", help="Of an HTTP request.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="May be repeated.")
@click.option("--topic", default="", help="Of a Kafka request.")
@click.option("--api-key", default="", metavar="NAME", help="Of a Kafka request: produce, fetch …")
@click.option("--client-id", default="", help="Of a Kafka request.")
@click.option("--name", default="", help="The name that a DNS query asks for.")
@click.option("--server-name", default="", help="That a TLS client asks for.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@in_namespace
@in_sandbox
@click.pass_obj
def why(
    place: Place,
    /,
    source: str,
    destination: str,
    port: str,
    headers: tuple[str, ...],
    output: str | None,
    **request: str,
) -> int:
    """Say whether a first packet may pass, and why.

    With parts of a request also what the rules say of it to which a proxy holds the connection.

    It is worked out from the compiled policies, by the agent of the source's node for egress and by that of
    the destination's for ingress; nothing is sent. Where a pod calls the address of a service, it is about
    all the backends that it may get there. Ends with 0 when the packet may pass, with 3 when not.
    """
    number, protocol = parse_port(port)
    asked = _request(headers, request)
    sender, receiver, endpoints, nodes = work(place, lambda store: _ends(store, place, source, destination))
    if (called := _called(place, sender, receiver, nodes, number, protocol)) is not None:
        return _why_called(place, sender, receiver, (number, protocol), called, endpoints, asked, output)
    sides = ask_both(place, sender, receiver, number, protocol, asked)
    if not sides:
        raise Failure(f"neither {source} nor {destination} is a pod with policies: give at least one that is")
    allowed = all(side.answer.allowed for side in sides)
    if output:
        click.echo(json.dumps(_json(sender, receiver, number, protocol, sides, allowed), indent=4))
    else:
        click.echo(f"{_verdict(allowed)}: {sender.name} -> {receiver.name} {number}/{protocol}")
        for side in sides:
            click.echo("\n".join(_lines(side)))
    return 0 if allowed else DENIED


#: The parts of a request that is asked about, as the agent takes them; None: only about connections.
Asked = dict[str, object] | None


def _request(headers: tuple[str, ...], parts: dict[str, str]) -> Asked:
    fields = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name:
            raise click.UsageError(f"--header {header}: give a name and a value, as X-Token:42")
        fields[name.strip()] = value.strip()
    asked: dict[str, object] = {part: value for part, value in parts.items() if value}
    if fields:
        asked["headers"] = fields
    return asked or None


def _verdict(allowed: bool) -> str:
    return click.style("allowed", fg="green") if allowed else click.style("denied", fg="red")


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


async def _ends(
    store: Store, place: Place, source: str, destination: str
) -> tuple[End, End, list[EndpointState], dict[str, NodeState]]:
    """Both, and among whom they are."""
    endpoints = await state.endpoints(store)
    sender = await _end(store, place, source, endpoints)
    receiver = await _end(store, place, destination, endpoints)
    return sender, receiver, endpoints, await state.nodes(store)


async def _end(store: Store, place: Place, word: str, endpoints: list[EndpointState]) -> End:
    if address := _address(word):
        return _end_at(address, endpoints)
    namespace, slash, name = word.rpartition("/")
    namespace = namespace if slash else place.in_namespace
    for each in endpoints:
        if (each.namespace, each.pod) == (namespace, name):
            return End(f"{namespace}/{name}", each.addresses[0] if each.addresses else "", each)
    return await _without_endpoint(store, namespace, name, bool(slash))


def _end_at(address: str, endpoints: list[EndpointState]) -> End:
    for each in endpoints:
        if address in each.addresses:
            return End(f"{each.namespace}/{each.pod}", address, each)
    return End(address, address)


async def _without_endpoint(store: Store, namespace: str, name: str, of_pod: bool) -> End:
    """A pod in its node's network: what holds for the node holds for it. Unless ``of_pod``: or a DNS name."""
    stored = await get(store, kinds.POD, namespace, name)
    if stored is None and "." in name and not of_pod:
        return End(canonical(name), "")
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


# ---- what a service leads to ---------------------------------------------------------------------------


def _called(
    place: Place, sender: End, receiver: End, nodes: dict[str, NodeState], port: int, protocol: str
) -> calledservice.Called | None:
    """The service that a pod means by this address, if it is a service's."""
    if sender.endpoint is None or receiver.endpoint is not None or not receiver.address:
        return None
    node = sender.endpoint.node
    own = node in nodes and receiver.address in nodes[node].addresses
    services = calledservice.of_node(place, node)
    return calledservice.find(services, receiver.address, port, protocol, own)


def _why_called(
    place: Place,
    sender: End,
    receiver: End,
    packet: tuple[int, str],
    called: calledservice.Called,
    endpoints: list[EndpointState],
    asked: Asked,
    output: str | None,
) -> int:
    """Of each backend: which one a connection gets is not known before."""
    number, protocol = packet
    judged = list(_judged(place, sender, protocol, called, endpoints, asked))
    good = [all(side.answer.allowed for side in sides) for _, _, sides in judged]
    allowed = all(good) and not called.refusal
    if output:
        service = {"name": called.service, "port": called.port, "refusal": called.refusal}
        head = _json(sender, receiver, number, protocol, [], allowed)
        each = [
            _json(sender, ends[0], port, protocol, sides, yes) | {"with": [end.name for end in ends[1:]]}
            for (ends, port, sides), yes in zip(judged, good, strict=True)
        ]
        click.echo(json.dumps(head | {"service": service, "backends": each}, indent=4))
        return 0 if allowed else DENIED
    some = (
        f", but not to all that is behind it ({sum(good)} of {len(good)})"
        if any(good) and not allowed
        else ""
    )
    click.echo(f"{_verdict(allowed)}: {sender.name} -> {receiver.name} {number}/{protocol}, {called}{some}")
    if called.refusal:
        click.echo(f"\nrefused at once: {called.refusal}")
    for (ends, port, sides), yes in zip(judged, good, strict=True):
        click.echo(
            f"\nbehind it, {_verdict(yes)}: {', '.join(f'{end.name} {port}/{protocol}' for end in ends)}"
        )
        for side in sides:
            click.echo("\n".join(_lines(side)))
    return 0 if allowed else DENIED


def _judged(
    place: Place,
    sender: End,
    protocol: str,
    called: calledservice.Called,
    endpoints: list[EndpointState],
    asked: Asked,
) -> Iterator[tuple[list[End], int, list[Side]]]:
    """Backends of one identity, on one port, are judged alike: together, and once."""
    alike: dict[tuple[object, int], list[End]] = {}
    for address, port in called.backends:
        end = _end_at(address, endpoints)
        alike.setdefault((end.endpoint.identity if end.endpoint else address, port), []).append(end)
    for (_, port), ends in alike.items():
        yield ends, port, ask_both(place, sender, ends[0], port, protocol, asked)


# ---- what the agents say -------------------------------------------------------------------------------


def ask_both(
    place: Place, sender: End, receiver: End, port: int, protocol: str, asked: Asked = None
) -> list[Side]:
    """Egress and ingress, as far as the ends have endpoints."""
    question: dict[str, object] = {"protocol": protocol, "port": port, "request": asked}
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
    for text in answer.above:
        yield f"  {'watches' if answer.watched else 'proxy':<8} {text}"
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
