"""What admin network policies must do: the cases that the conformance tests of network-policy-api try.

Retold, not copied: five namespaces with a pod each, policies for the pod of ``north``, and who may reach
whom. Sources: KEP-2091 and the project's published conformance tests for AdminNetworkPolicy (order of rules,
Allow, Deny and Pass, ports, pod selectors, priority) and BaselineAdminNetworkPolicy, and for the two of them
together with NetworkPolicy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

NAMESPACES = ("north", "east", "south", "west", "staff")
#: Of each pod: TCP and UDP, and SCTP where it is not played with packets.
PORTS = {"TCP": (80, 8080), "UDP": (53, 5353), "SCTP": (9003, 9005)}


def of(namespace: str) -> Object:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def port(protocol: str, number: int) -> Object:
    return {"portNumber": {"protocol": protocol, "port": number}}


def towards(
    direction: str, action: str, namespace: str, *ports: Object, pods: str = ""
) -> tuple[str, Object]:
    """A rule of ``ingress`` or ``egress``."""
    peer: Object = {"namespaces": of(namespace)}
    if pods:
        chosen = {"namespaceSelector": of(namespace), "podSelector": {"matchLabels": {"app": pods}}}
        peer = {"pods": chosen}
    rule: Object = {
        "name": f"{action}-{namespace}",
        "action": action,
        "from" if direction == "ingress" else "to": [peer],
    }
    return direction, {**rule, "ports": list(ports)} if ports else rule


def admin(name: str, priority: int, *rules: tuple[str, Object]) -> Object:
    return _policy("AdminNetworkPolicy", name, rules, {"priority": priority})


def baseline(*rules: tuple[str, Object]) -> Object:
    return _policy("BaselineAdminNetworkPolicy", "default", rules, {})


def _policy(kind: str, name: str, rules: tuple[tuple[str, Object], ...], more: Object) -> Object:
    spec: Object = {**more, "subject": {"namespaces": of("north")}}
    for direction, rule in rules:
        spec.setdefault(direction, []).append(rule)
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def network_policy(*namespaces: str) -> Object:
    """Isolates ``north`` but for these."""
    peers = [{"namespaceSelector": of(each)} for each in namespaces]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "own", "namespace": "north"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers}],
            "egress": [{"to": peers}],
        },
    }


@dataclass(frozen=True)
class Try:
    """Whether ``source`` reaches ``destination``; ``by`` is the object that decides it, if one does."""

    source: str
    destination: str
    protocol: str
    port: int
    allowed: bool
    by: str = ""

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class Case:
    name: str
    policies: tuple[Object, ...]
    tries: tuple[Try, ...] = field(default=())


def both(namespace: str, protocol: str, number: int, allowed: bool, by: str = "") -> tuple[Try, Try]:
    """Out of north and into it."""
    return (
        Try("north", namespace, protocol, number, allowed, by),
        Try(namespace, "north", protocol, number, allowed, by),
    )


def _each(*rules: tuple[Any, ...], **more: Any) -> list[tuple[str, Object]]:
    return [towards(direction, *rule, **more) for direction in ("ingress", "egress") for rule in rules]


_TCP_80, _UDP_53, _SCTP = port("TCP", 80), port("UDP", 53), port("SCTP", 9003)
_THREE = (_TCP_80, _UDP_53, _SCTP)
_ANP, _BANP, _NP = "AdminNetworkPolicy rules", "BaselineAdminNetworkPolicy default", "NetworkPolicy north/own"

#: An allow before a deny before a pass; a deny and a pass of some ports; an allow of some ports and a deny of
#: the rest; single pods.
_COMBINED = [
    *_each(("Allow", "east"), ("Deny", "east"), ("Pass", "east")),
    *_each(("Deny", "south", *_THREE), ("Pass", "south", *_THREE)),
    *_each(("Allow", "west", *_THREE), ("Deny", "west")),
    *_each(("Allow", "staff", *_THREE), pods="head"),
    *_each(("Deny", "staff"), pods="head"),
]
_COMBINED_TRIES = (
    *both("east", "TCP", 80, True, _ANP),
    *both("east", "UDP", 5353, True, _ANP),
    *both("south", "TCP", 80, False, _ANP),
    *both("south", "UDP", 53, False, _ANP),
    *both("south", "SCTP", 9003, False, _ANP),
    *both("south", "TCP", 8080, True),
    *both("south", "UDP", 5353, True),
    *both("west", "TCP", 80, True, _ANP),
    *both("west", "UDP", 53, True, _ANP),
    *both("west", "SCTP", 9003, True, _ANP),
    *both("west", "TCP", 8080, False, _ANP),
    *both("west", "UDP", 5353, False, _ANP),
    *both("west", "SCTP", 9005, False, _ANP),
    *both("staff", "TCP", 80, True, _ANP),
    *both("staff", "TCP", 8080, False, _ANP),
)


def _turned(rules: list[tuple[str, Object]]) -> list[tuple[str, Object]]:
    """In every direction the last rule first."""
    return list(reversed(copy.deepcopy(rules)))


_PRIORITIES = (
    admin("deny", 50, *_each(("Deny", "south"))),
    baseline(*_each(("Allow", "south"))),
)
_RANGE = {"portRange": {"protocol": "TCP", "start": 8000, "end": 8100}}

CASES = (
    Case("an admin policy alone", (admin("rules", 15, *_COMBINED),), _COMBINED_TRIES),
    Case(
        "its rules in the other order",
        (admin("rules", 15, *_turned(_COMBINED)),),
        (
            *both("east", "TCP", 80, True),
            *both("south", "TCP", 80, True),
            *both("west", "TCP", 80, False, _ANP),
            *both("staff", "TCP", 80, False, _ANP),
        ),
    ),
    Case(
        "a deny first",
        (admin("rules", 15, *_each(("Deny", "east"), ("Allow", "east"), ("Pass", "east"))),),
        (*both("east", "TCP", 80, False, _ANP), *both("east", "UDP", 53, False, _ANP)),
    ),
    Case(
        "a pass first, and nobody else who says something",
        (admin("rules", 15, *_each(("Pass", "east"), ("Deny", "east"))),),
        (*both("east", "TCP", 80, True), *both("east", "SCTP", 9003, True)),
    ),
    Case(
        "a pass with less priority than a deny",
        (*_PRIORITIES, admin("pass", 60, *_each(("Pass", "south")))),
        (*both("south", "TCP", 80, False, "AdminNetworkPolicy deny"),),
    ),
    Case(
        "a pass with more priority than a deny",
        (*_PRIORITIES, admin("pass", 40, *_each(("Pass", "south")))),
        (*both("south", "TCP", 80, True, _BANP), *both("south", "UDP", 53, True, _BANP)),
    ),
    Case(
        "of the same priority the first name",
        (*_PRIORITIES, admin("as", 50, *_each(("Allow", "south")))),
        (*both("south", "TCP", 80, True, "AdminNetworkPolicy as"),),
    ),
    Case(
        "an admin's deny over a NetworkPolicy",
        (
            admin("rules", 10, *_each(("Deny", "south"))),
            network_policy("south"),
            baseline(*_each(("Deny", "south"))),
        ),
        (*both("south", "TCP", 80, False, _ANP), *both("south", "UDP", 53, False, _ANP)),
    ),
    Case(
        "an admin's pass to a NetworkPolicy, which the baseline cannot change",
        (
            admin("rules", 10, *_each(("Pass", "south"))),
            network_policy("south"),
            baseline(*_each(("Deny", "south"), ("Allow", "east"))),
        ),
        (*both("south", "TCP", 80, True, _NP), *both("east", "TCP", 80, False)),
    ),
    Case(
        "an admin's allow where a NetworkPolicy isolates",
        (admin("rules", 10, *_each(("Allow", "east", _TCP_80))), network_policy("south")),
        (
            *both("east", "TCP", 80, True, _ANP),
            *both("east", "TCP", 8080, False),
            *both("south", "TCP", 8080, True, _NP),
        ),
    ),
    Case(
        "a pass inside an allow, where a NetworkPolicy isolates",
        (admin("rules", 10, *_each(("Pass", "east", _RANGE), ("Allow", "east"))), network_policy("south")),
        (*both("east", "TCP", 80, True, _ANP), *both("east", "TCP", 8080, False)),
    ),
    Case(
        "an admin's pass to the baseline",
        (admin("rules", 10, *_each(("Pass", "south"))), baseline(*_each(("Deny", "south")))),
        (*both("south", "TCP", 80, False, _BANP), *both("south", "UDP", 53, False, _BANP)),
    ),
    Case(
        "a baseline alone",
        (
            baseline(
                *_each(("Allow", "east"), ("Deny", "east")),
                *_each(("Deny", "south", *_THREE)),
                *_each(("Allow", "west", *_THREE), ("Deny", "west")),
            ),
        ),
        (
            *both("east", "TCP", 80, True, _BANP),
            *both("south", "TCP", 80, False, _BANP),
            *both("south", "TCP", 8080, True),
            *both("west", "UDP", 53, True, _BANP),
            *both("west", "UDP", 5353, False, _BANP),
            *both("west", "SCTP", 9005, False, _BANP),
        ),
    ),
    Case(
        "no policy",
        (),
        (*both("south", "TCP", 80, True),),
    ),
)
