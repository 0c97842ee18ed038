"""What annotations ask of the balancing of a Service (``service.cilium.io/...``).

A value that cannot be honoured is refused: a list of source ranges that was meant as a deny list, read as
an allow list, would open the service to exactly those whom it shuts out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from axoneme.model import checks
from axoneme.model.labels import ANY, Selector, equals
from axoneme.model.paths import Fields, Place
from axoneme.model.selectortext import parse_selector

PREFIX = "service.cilium.io/"

_KNOWN = ("lb-algorithm", "forwarding-mode", "type", "node", "node-selector", "src-ranges-policy")
#: For clusters of clusters: with one cluster they change nothing.
_OF_MESHES = ("global", "shared", "affinity", "global-sync-endpoint-slices")
#: Who may say that a proxy shall take what goes to the node itself; here there is none that could.
_DELEGATION = "proxy-delegation"

EVERYWHERE = Selector()


class Forwarding(enum.Enum):
    """How packets get to backends on other nodes, and their answers to clients outside."""

    #: The node that balances translates the client's address, and the answers come through it.
    SNAT = "snat"
    #: The backend's node answers the client itself: direct server return.
    DSR = "dsr"


@dataclass(frozen=True, slots=True)
class Annotations:
    """``algorithm`` is ``random`` or ``maglev``; empty, as `forwarding` None: what the node is set to."""

    algorithm: str = ""
    forwarding: Forwarding | None = None
    #: Only the frontends of this type of service (``ClusterIP``, ``NodePort``, ``LoadBalancer``); empty: all.
    exposed: str = ""
    #: Only nodes with such labels serve it.
    nodes: Selector = EVERYWHERE
    #: ``loadBalancerSourceRanges`` are those who may not call.
    ranges_deny: bool = False


NO_ANNOTATIONS = Annotations()


def parse_annotations(metadata: Fields) -> Annotations:
    """Of a Service with this metadata."""
    place = metadata.get("annotations")
    if place is None:
        return NO_ANNOTATIONS
    found = {
        key.value.removeprefix(PREFIX): value
        for key, value in place.fields().entries()
        if isinstance(key.value, str) and key.value.startswith(PREFIX)
    }
    if not found:
        return NO_ANNOTATIONS
    for name, value in found.items():
        if name == _DELEGATION:
            _option(value, "none")
        elif name not in (*_KNOWN, *_OF_MESHES):
            known = ", ".join(PREFIX + each for each in _KNOWN)
            value.refuse(f"there is no such annotation; known are {known}", PREFIX + name)
    algorithm, forwarding = found.get("lb-algorithm"), found.get("forwarding-mode")
    exposed, policy = found.get("type"), found.get("src-ranges-policy")
    return Annotations(
        _option(algorithm, "random", "maglev") if algorithm else "",
        Forwarding(_option(forwarding, "snat", "dsr")) if forwarding else None,
        exposed.one_of(("ClusterIP", "NodePort", "LoadBalancer")) if exposed else "",
        _nodes(found.get("node-selector"), found.get("node")),
        policy is not None and _option(policy, "allow", "deny") == "deny",
    )


def _option(place: Place, *options: str) -> str:
    return Place(place.text().lower(), place.path).one_of(options)


def _nodes(selector: Place | None, label: Place | None) -> Selector:
    """The selector, or else the nodes whose label of the annotation's own name has that value."""
    if selector is not None:
        try:
            return parse_selector(selector.text())
        except ValueError as error:
            selector.refuse(f"a label selector such as 'zone in (a, b),!spare' belongs here: {error}")
    if label is not None:
        return Selector((equals(ANY, f"{PREFIX}node", checks.label_value(label)),))
    return EVERYWHERE
