"""What annotations of a pod, or of its namespace, ask for beside policies: that these are only tried, that
requests be seen.

``axoneme.io/audit: "true"``: whatever policies would deny to or from the pod passes, and flows say so.

``axoneme.io/visibility: http,dns`` shows requests in flows, and restricts nothing. Items are
``[ingress/|egress/]KIND[:PORT]``: of calls that the pod gets, makes, or both; at a port, or where the kind is
usually served. DNS is what a pod asks for, so always egress. What Cilium had until 1.16 is read as well:
``policy.cilium.io/proxy-visibility: "<Egress/53/UDP/DNS>,<Ingress/80/TCP/HTTP>"``.

A pod's own annotation stands in place of its namespace's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from axoneme.model.l7 import L7, HTTPRule, KafkaRule, L7Kind
from axoneme.model.labels import Labels, Selector, equals
from axoneme.model.names import EVERY_NAME
from axoneme.model.paths import Place
from axoneme.model.policy import AnyPeer, Direction, Policy, PolicyRef, PortRange, Protocol, Rule
from axoneme.model.trial import AUDIT

VISIBILITY = "axoneme.io/visibility"
CILIUM_VISIBILITY = "policy.cilium.io/proxy-visibility"

#: The kind of `Policy` that visibility becomes; there is no such object.
KIND = "Visibility"

_PORTS = {L7Kind.HTTP: (80, 8080), L7Kind.DNS: (53,), L7Kind.KAFKA: (9092,)}
_KINDS = {kind.value: kind for kind in _PORTS}
_ALL = {
    L7Kind.HTTP: L7(L7Kind.HTTP, http=(HTTPRule(),)),
    L7Kind.DNS: L7(L7Kind.DNS, dns=(EVERY_NAME,)),
    L7Kind.KAFKA: L7(L7Kind.KAFKA, kafka=(KafkaRule(),)),
}
_ITEM = re.compile(r"(?:(?P<direction>ingress|egress)/)?(?P<kind>[a-z]+)(?::(?P<port>\d{1,5}))?\Z")
_CILIUM = re.compile(r"<(Ingress|Egress)/(\d{1,5})/(TCP|UDP)/([A-Z0-9]+)>\Z")


@dataclass(frozen=True, slots=True, order=True)
class Watch:
    """Requests of a kind, at one port."""

    direction: Direction
    kind: str
    port: int

    def __str__(self) -> str:
        return f"{self.direction.name.lower()}/{self.kind}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wishes:
    audit: bool = False
    watches: tuple[Watch, ...] = ()


def wishes(own: Mapping[str, str], inherited: Mapping[str, str]) -> Wishes:
    """``inherited``: of the namespace. ValueError names the annotation that means nothing."""
    audit = _first(AUDIT, own, inherited) or "false"
    if audit not in ("true", "false"):
        raise ValueError(f'{AUDIT}: {audit!r}: "true" or "false" belongs here')
    for source in (own, inherited):
        if VISIBILITY in source or CILIUM_VISIBILITY in source:
            plain = source.get(VISIBILITY, "")
            cilium = source.get(CILIUM_VISIBILITY, "")
            found = {*parse_watches(plain), *_parse_cilium(cilium)}
            return Wishes(audit == "true", tuple(sorted(found)))
    return Wishes(audit == "true")


def check(object: Mapping[str, object]) -> None:
    """`ManifestError` for what annotations of a pod, a namespace, or a template of pods do not say right."""
    spec = object.get("spec")
    template = spec.get("template") if isinstance(spec, Mapping) else None
    for owner, path in ((object, "metadata"), (template, "spec.template.metadata")):
        metadata = owner.get("metadata") if isinstance(owner, Mapping) else None
        annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
        if not isinstance(annotations, Mapping):
            continue
        for name in (AUDIT, VISIBILITY, CILIUM_VISIBILITY):
            value = annotations.get(name)
            if not isinstance(value, str):
                continue
            try:
                wishes({name: value}, {})
            except ValueError as error:
                place = Place(value, f'{path}.annotations["{name}"]')
                place.refuse(str(error).removeprefix(f"{name}: "))


def _first(name: str, *sources: Mapping[str, str]) -> str | None:
    return next((source[name] for source in sources if name in source), None)


def parse_watches(text: str) -> Iterator[Watch]:
    """The items of `VISIBILITY`; ValueError."""
    for item in _items(text):
        found = _ITEM.match(item)
        kind = _KINDS.get(found["kind"]) if found else None
        if found is None or kind is None or not _is_port(found["port"]):
            raise ValueError(
                f"{VISIBILITY}: {item!r} is not [ingress/|egress/]KIND[:PORT]"
                f" with KIND one of {', '.join(_KINDS)}"
            )
        if kind is L7Kind.DNS and found["direction"] == "ingress":
            raise ValueError(f"{VISIBILITY}: {item!r}: DNS is seen where it is asked for: egress/dns")
        directions = [Direction[found["direction"].upper()]] if found["direction"] else list(Direction)
        if kind is L7Kind.DNS:
            directions = [Direction.EGRESS]
        for direction in directions:
            for port in [int(found["port"])] if found["port"] else _PORTS[kind]:
                yield Watch(direction, kind.value, port)


def _parse_cilium(text: str) -> Iterator[Watch]:
    for item in _items(text):
        found = _CILIUM.match(item)
        kind = _KINDS.get(found[4].lower()) if found else None
        if found is None or kind is None or not _is_port(found[2]):
            raise ValueError(
                f"{CILIUM_VISIBILITY}: {item!r} is not <Egress/53/UDP/DNS> or <Ingress/80/TCP/HTTP>"
            )
        direction = Direction[found[1].upper()]
        if (kind is L7Kind.DNS) != (found[3] == "UDP") or (
            kind is L7Kind.DNS and direction is Direction.INGRESS
        ):
            raise ValueError(f"{CILIUM_VISIBILITY}: {item!r}: DNS is Egress over UDP, all else over TCP")
        yield Watch(direction, kind.value, int(found[2]))


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text) < 1 << 16


def watching(number: int, labels: Labels, watches: Iterable[Watch]) -> Policy:
    """A policy that shows these requests of the pods of an identity (and of those that have its labels and
    more), allows nothing, and closes nothing."""
    rules = tuple(
        Rule(
            watch.direction,
            (AnyPeer(),),
            tuple(PortRange(protocol, watch.port, watch.port) for protocol in _protocols(watch)),
            path=str(watch),
            l7=_ALL[_KINDS[watch.kind]],
            watch=True,
        )
        for watch in sorted(watches)
    )
    selector = Selector(tuple(equals(label.source, label.key, label.value) for label in labels))
    return Policy(PolicyRef(KIND, "", str(number)), selector, rules)


def _protocols(watch: Watch) -> tuple[Protocol, ...]:
    return (Protocol.UDP, Protocol.TCP) if watch.kind == L7Kind.DNS.value else (Protocol.TCP,)
