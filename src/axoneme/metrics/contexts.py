"""Which labels say who the ends of a flow are: Hubble's context options.

``sourceContext=pod|dns|ip`` makes a label ``source`` of the first of these that says something;
``sourceEgressContext`` and ``sourceIngressContext`` stand in its place for flows that were decided in that
direction, and all of it goes for ``destination`` too. ``labelsContext=source_namespace,destination_app``
makes a label of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axoneme.flows.names import End

SOURCE: Final = "source"
DESTINATION: Final = "destination"
#: As traffic directions stand in tables here: 0 for egress, 1 for ingress.
_DIRECTIONS: Final = ("Egress", "Ingress")
TRAFFIC_DIRECTION: Final = "traffic_direction"

#: Labels of which a pod's app is known, the one that Kubernetes recommends first.
_APP: Final = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a flow: ``names`` are those of its address in the DNS."""

    end: End
    address: str = ""
    names: str = ""


def _pod(party: Party) -> str:
    end = party.end
    return f"{end.namespace}/{end.pod}" if end.namespace else end.pod


def _reserved(party: Party) -> str:
    labels = party.end.labels
    if "reserved:kube-apiserver" in labels:
        return "reserved:kube-apiserver"
    return next((label for label in labels if label.startswith("reserved:")), "")


def _workload(party: Party) -> str:
    end = party.end
    return f"{end.namespace}/{end.workload}" if end.workload and end.namespace else end.workload


def _app(party: Party) -> str:
    for label in party.end.labels:
        for start in _APP:
            if label.startswith(start) and len(label) > len(start):
                return label[len(start) :]
    return ""


_Says = Callable[[Party], str]

_CONTEXTS: Final[Mapping[str, _Says]] = {
    "identity": lambda party: ",".join(party.end.labels),
    "namespace": lambda party: party.end.namespace,
    "pod": _pod,
    "pod-name": lambda party: party.end.pod,
    "dns": lambda party: party.names,
    "ip": lambda party: party.address,
    "reserved-identity": _reserved,
    "workload": _workload,
    "workload-name": lambda party: party.end.workload,
    "app": _app,
}
#: In the order in which they stand in the text.
_LABELS: Final[Mapping[str, _Says]] = {
    "ip": _CONTEXTS["ip"],
    "pod": _CONTEXTS["pod-name"],
    "namespace": _CONTEXTS["namespace"],
    "workload": _CONTEXTS["workload-name"],
    "workload_kind": lambda party: party.end.workload_kind,
    "app": _app,
}
#: Those that more than an `End` is needed for, and those that name one pod.
_BY_ADDRESS: Final = frozenset({"ip", "dns"})
_BY_POD: Final = frozenset({"pod", "pod-name", "ip"})


@dataclass(frozen=True, slots=True)
class Side:
    """The labels of one end. ``contexts``: for egress and for ingress, each a list of alternatives."""

    side: str
    labels: tuple[str, ...] = ()
    contexts: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def names(self) -> tuple[str, ...]:
        own = (self.side,) if any(self.contexts) else ()
        return (*(f"{self.side}_{label}" for label in self.labels), *own)

    @property
    def used(self) -> frozenset[str]:
        return frozenset((*self.labels, *self.contexts[0], *self.contexts[1]))

    @property
    def by_pod(self) -> bool:
        """Whether a series is about one pod, so that it goes with it."""
        return bool(self.used & _BY_POD)

    @property
    def by_address(self) -> bool:
        """Whether it may depend on an address what is said."""
        return bool(self.used & _BY_ADDRESS)

    @property
    def by_direction(self) -> bool:
        return self.contexts[0] != self.contexts[1]

    def values(self, party: Party, ingress: bool) -> tuple[str, ...]:
        """In the order of `names`."""
        found = [_LABELS[label](party) for label in self.labels]
        if any(self.contexts):
            said = (_CONTEXTS[context](party) for context in self.contexts[ingress])
            found.append(next((text for text in said if text), ""))
        return tuple(found)

    def depends_on_address(self, end: End, ingress: bool) -> bool:
        """Whether the address decides what is said of an end: nothing that goes before it says anything."""
        if _BY_ADDRESS.intersection(self.labels):
            return True
        for context in self.contexts[ingress]:
            if context in _BY_ADDRESS:
                return True
            if _CONTEXTS[context](Party(end)):
                return False
        return False


@dataclass(frozen=True, slots=True)
class Contexts:
    """Of one metric."""

    source: Side = Side(SOURCE)
    destination: Side = Side(DESTINATION)
    direction: bool = False  # whether there is a label for it

    @classmethod
    def of(cls, options: Mapping[str, Sequence[str]]) -> Contexts:
        """From options by their names in lower case, of which it takes those that it knows. ValueError."""
        wanted = options.get("labelscontext", ())
        known = [f"{side}_{label}" for side in (SOURCE, DESTINATION) for label in _LABELS]
        for label in wanted:
            if label not in known and label != TRAFFIC_DIRECTION:
                known.append(TRAFFIC_DIRECTION)
                raise ValueError(f"labelsContext: {label!r} is none of {', '.join(known)}")
        source, destination = (_side(side, options, wanted) for side in (SOURCE, DESTINATION))
        return cls(source, destination, TRAFFIC_DIRECTION in wanted)


#: The options that `Contexts.of` takes.
OPTIONS: Final = frozenset(
    {f"{side}{way}context" for side in (SOURCE, DESTINATION) for way in ("", "egress", "ingress")}
    | {"labelscontext"}
)


def _side(side: str, options: Mapping[str, Sequence[str]], labels: Sequence[str]) -> Side:
    usual = _alternatives(f"{side}Context", options)
    ways = [_alternatives(f"{side}{way}Context", options) or usual for way in _DIRECTIONS]
    chosen = tuple(label for label in _LABELS if f"{side}_{label}" in labels)
    return Side(side, chosen, (ways[0], ways[1]))


def _alternatives(name: str, options: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    found = tuple(text.lower() for text in options.get(name.lower(), ()))
    for text in found:
        if text not in _CONTEXTS:
            raise ValueError(f"{name}: {text!r} is none of {', '.join(_CONTEXTS)}")
    return found
