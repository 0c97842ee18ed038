"""Traps between policies and what they name: selectors, pods, ports, services, ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import collapse_addresses

from axoneme.lint import findings as traps
from axoneme.lint.implication import contradiction
from axoneme.lint.shapes import Found
from axoneme.lint.statements import Statement
from axoneme.lint.surroundings import KnownPod, Surroundings
from axoneme.model.checks import inside
from axoneme.model.labels import ANY, CLUSTER, K8S, NAMESPACE, NAMESPACE_LABELS, Label, Selector
from axoneme.model.policy import (
    AnyPeer,
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    LabelPeer,
    NamedPort,
    Network,
    Peer,
    Protocol,
    ServicePeer,
)
from axoneme.model.selectors import positive


def subject(selector: Selector, path: str, known: Surroundings) -> Iterator[Found]:
    """Of whom a policy selects."""
    wrong = list(_selector(selector, path, known))
    yield from wrong
    if not wrong and (said := _nobody(selector, known)):
        yield traps.SELECTS_NO_POD, path, said


def peers(statement: Statement, known: Surroundings) -> Iterator[Found]:
    """Of the peers of one rule."""
    for peer in statement.rule.peers:
        match peer:
            case LabelPeer(selector):
                wrong = list(_selector(selector, statement.path, known))
                yield from wrong
                if not wrong and (said := _nobody(selector, known)):
                    yield traps.PEER_IS_NO_POD, statement.path, said
            case CIDRPeer(cidr, excepts):
                yield from _range(cidr, excepts, statement.path, known)
            case CIDRGroupPeer(name) if name is not None and name not in known.groups:
                yield traps.NO_SUCH_GROUP, statement.path, f"the CIDR group {name} is not there"
            case ServicePeer(namespace, name) if name is not None and namespace is not None:
                yield from _service(namespace, name, statement.path, known)
            case _:
                pass


def ports(statement: Statement, known: Surroundings) -> Iterator[Found]:
    """Of the named ports of one rule, against the pods that own them."""
    rule = statement.rule
    if rule.direction is Direction.INGRESS:
        owners = [pod for pod in known.pods if statement.subject.matches(pod.labels)]
    else:
        owners = [pod for pod in known.pods if any(_names(peer, pod) for peer in rule.peers)]
    for port in rule.ports:
        if owners and isinstance(port, NamedPort) and not any(_has(pod, port) for pod in owners):
            whose = "the subject" if rule.direction is Direction.INGRESS else "the peer"
            among = ", ".join(sorted({f"{pod.namespace}/{pod.name}" for pod in owners})[:3])
            yield (
                traps.NO_SUCH_PORT,
                statement.path,
                f"the port {port.name}, which none of the pods that {whose} means has ({among})",
            )


# ---- selectors ---------------------------------------------------------------------------------


def _selector(selector: Selector, path: str, known: Surroundings) -> Iterator[Found]:
    if said := contradiction(selector):
        yield traps.CONTRADICTION, path, said
    for requirement in selector.requirements:
        if requirement.source not in (ANY, K8S) or known.labels.counts(Label(K8S, requirement.key)):
            continue
        asked = positive(requirement)
        trap = traps.NO_IDENTITY_LABEL if asked else traps.NO_IDENTITY_EXCLUSION
        yield trap, path, f"{requirement}, while {requirement.key} is no part of identities"


def _nobody(selector: Selector, known: Surroundings) -> str:
    """Why nobody fulfils it, as far as that can be known; empty otherwise."""
    if any(r.source not in (ANY, K8S) for r in selector.requirements) or not known.pods:
        return ""
    if any(selector.matches(pod.labels) for pod in known.pods):
        return ""
    where = Selector(tuple(r for r in selector.requirements if _about_place(r.key)))
    there = [pod for pod in known.pods if where.matches(pod.labels)]
    if there:
        rest = Selector(tuple(r for r in selector.requirements if not _about_place(r.key)))
        return f"{rest} fits none of {_count(there)} there"
    return f"{selector} fits no pod" if known.whole and not _other_cluster(selector, known) else ""


def _about_place(key: str) -> bool:
    return key in (NAMESPACE, CLUSTER) or key.startswith(NAMESPACE_LABELS)


def _other_cluster(selector: Selector, known: Surroundings) -> bool:
    asked = [r for r in selector.requirements if r.key == CLUSTER]
    return any(not any(r.holds(pod.labels) for pod in known.pods) for r in asked)


def _count(pods: Iterable[KnownPod]) -> str:
    names = sorted({f"{pod.namespace}/{pod.name}" for pod in pods})
    shown = ", ".join(names[:3])
    return f"the {len(names)} known ({shown}{', …' if len(names) > 3 else ''})"


# ---- others ------------------------------------------------------------------------------------


def _names(peer: Peer, pod: KnownPod) -> bool:
    return isinstance(peer, AnyPeer) or (isinstance(peer, LabelPeer) and peer.selector.matches(pod.labels))


def _has(pod: KnownPod, wanted: NamedPort) -> bool:
    return any(
        name == wanted.name and wanted.protocol in (Protocol.ANY, protocol) for name, protocol in pod.ports
    )


def _service(namespace: str, name: str, path: str, known: Surroundings) -> Iterator[Found]:
    there = {pod.namespace for pod in known.pods} | {of for of, _ in known.services}
    if (namespace, name) not in known.services and (known.whole or namespace in there):
        yield traps.NO_SUCH_SERVICE, path, f"the service {namespace}/{name} is not there"


def _range(cidr: Network, excepts: tuple[Network, ...], path: str, known: Surroundings) -> Iterator[Found]:
    if cidr in collapse_addresses(excepts):  # type: ignore[type-var]
        yield traps.NOTHING_LEFT, path, f"{cidr} without {', '.join(map(str, excepts))}"
        return
    if not cidr.prefixlen:
        return  # everybody knows that the whole Internet is not the cluster
    for own in known.ranges:
        if inside(cidr, own):
            yield traps.RANGE_OF_CLUSTER, path, f"{cidr}, which lies in {own} of the cluster's pods and nodes"
        elif inside(own, cidr) and not any(inside(own, each) for each in excepts):
            yield (
                traps.RANGE_HOLDS_CLUSTER,
                path,
                f"{cidr}, in which {own} of the cluster's pods and nodes lies",
            )
