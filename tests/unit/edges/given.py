"""Small clusters with traffic in them, at random."""

from __future__ import annotations

from hypothesis import strategies as st

from axoneme.edges.edge import Edge, Party, Request, Seen
from axoneme.edges.recorded import Recorded
from axoneme.model.l7 import L7Kind
from axoneme.model.labels import K8S, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, Label, Labels
from axoneme.model.policy import Direction


def pod(namespace: str, account: str = "default", **labels: str) -> Party:
    system = {
        NAMESPACE: namespace,
        SERVICE_ACCOUNT: account,
        f"{NAMESPACE_LABELS}kubernetes.io/metadata.name": namespace,
        "io.cilium.k8s.policy.cluster": "default",
    }
    found = Labels(Label(K8S, key, value) for key, value in (system | labels).items())
    name = "-".join(labels.values()) or "bare"
    return Party(tuple(found.texts()), workload=f"deployment/{name}")


PODS = [
    pod(namespace, account, **labels)
    for namespace in ("shop", "other")
    for account, labels in (
        ("default", {}),
        ("default", {"app": "web"}),
        ("robot", {"app": "web"}),
        ("default", {"app": "web", "tier": "front"}),
        ("default", {"app": "web", "tier": "front", "track": "canary"}),
        ("default", {"app": "db"}),
    )
]
NODES = [Party(("reserved:host",)), Party(("reserved:remote-node",))]
OUTSIDE = [Party((), "192.0.2.1"), Party((), "192.0.2.2"), Party((), "2001:db8::1")]
NAMES = ["api.example", "www.example"]
SERVICES = [(6, 80), (6, 443), (17, 80), (17, 53), (132, 80), (1, 8), (58, 128)]
REQUESTS = [
    Request(L7Kind.HTTP, "GET", "/"),
    Request(L7Kind.HTTP, "GET", "/a.b"),
    Request(L7Kind.HTTP, "GET", "/axb"),
    Request(L7Kind.HTTP, "GET", "/", query=True),
    Request(L7Kind.HTTP, "POST", "/shop.Cart/Add"),
]

PARTIES = [*PODS, *NODES, *OUTSIDE]


@st.composite
def recorded(draw: st.DrawFn, named: bool = True) -> Recorded:
    """``named``: clients know some outside addresses by names."""
    found = Recorded()
    count = draw(st.integers(1, 12))
    for _ in range(count):
        source = draw(st.sampled_from(PARTIES))
        destination = draw(st.sampled_from([each for each in PARTIES if each != source]))
        protocol, port = draw(st.sampled_from(SERVICES))
        edge = Edge(source, destination, protocol, port)
        passed = draw(st.integers(0, 3))
        found.edges[edge] = Seen(passed, draw(st.integers(0, 1)) if passed else 1, "2026-01-01T00:00:00Z")
        if (protocol, port) == (6, 80) and passed and draw(st.booleans()):
            by = frozenset({draw(st.sampled_from(list(Direction)))})
            for request in draw(st.sets(st.sampled_from(REQUESTS), min_size=1)):
                asked = Edge(source, destination, protocol, port, request)
                found.edges[asked] = Seen(1, 0, "2026-01-01T00:00:00Z", by)
    for client in PODS if named else ():
        for address in OUTSIDE:
            if names := draw(st.sets(st.sampled_from(NAMES), max_size=1)):
                found.names[client, address.address] = names
    return found
