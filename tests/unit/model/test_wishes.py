"""What annotations ask for: read as it is meant, refused where it means nothing."""

from __future__ import annotations

import pytest

from axoneme.model.labels import Labels
from axoneme.model.manifests import load, validate
from axoneme.model.paths import ManifestError
from axoneme.model.policy import Direction, Protocol
from axoneme.model.wishes import CILIUM_VISIBILITY, VISIBILITY, Wishes, parse_watches, watching, wishes


def watches(text: str, name: str = VISIBILITY) -> list[str]:
    return [str(watch) for watch in wishes({name: text}, {}).watches]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dns", ["egress/dns:53"]),
        ("http:8000", ["ingress/http:8000", "egress/http:8000"]),
        ("ingress/http", ["ingress/http:80", "ingress/http:8080"]),
        ("egress/kafka, egress/dns:5353", ["egress/dns:5353", "egress/kafka:9092"]),
        ("", []),
    ],
)
def test_what_is_to_be_seen(text: str, found: list[str]) -> None:
    assert watches(text) == found
    again = sorted(parse_watches(",".join(found)))
    assert [str(watch) for watch in again] == found


def test_what_cilium_had_is_read() -> None:
    text = "<Egress/53/UDP/DNS>,<Ingress/80/TCP/HTTP>,<Egress/9092/TCP/KAFKA>"
    assert watches(text, CILIUM_VISIBILITY) == ["ingress/http:80", "egress/dns:53", "egress/kafka:9092"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (VISIBILITY, "smtp"),
        (VISIBILITY, "http:0"),
        (VISIBILITY, "http:65536"),
        (VISIBILITY, "both/http"),
        (VISIBILITY, "ingress/dns"),
        (CILIUM_VISIBILITY, "Egress/53/UDP/DNS"),
        (CILIUM_VISIBILITY, "<Egress/53/TCP/DNS>"),
        (CILIUM_VISIBILITY, "<Ingress/80/UDP/HTTP>"),
        (CILIUM_VISIBILITY, "<Ingress/80/TCP/SMTP>"),
    ],
)
def test_what_means_nothing_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        wishes({name: text}, {})


def test_a_pods_own_annotation_stands_in_place_of_its_namespaces() -> None:
    around = {VISIBILITY: "dns", "axoneme.io/audit": "true"}
    assert wishes({}, around) == Wishes(True, tuple(parse_watches("dns")))
    own = {VISIBILITY: "", "axoneme.io/audit": "false"}
    assert wishes(own, around) == Wishes()
    with pytest.raises(ValueError, match=r"axoneme\.io/audit"):
        wishes({"axoneme.io/audit": "yes"}, around)


def test_watching_allows_and_closes_nothing() -> None:
    labels = Labels.parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"])
    policy = watching(300, labels, parse_watches("dns,ingress/http:80"))
    assert not policy.default_deny
    assert all(rule.watch and rule.l7 and not rule.deny for rule in policy.rules)
    assert [(rule.direction, {port.protocol for port in rule.ports}) for rule in policy.rules] == [  # type: ignore[union-attr]
        (Direction.INGRESS, {Protocol.TCP}),
        (Direction.EGRESS, {Protocol.TCP, Protocol.UDP}),
    ]
    assert policy.subject.matches(labels)
    assert not policy.subject.matches(Labels.parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=other"]))


NAMESPACE = "{kind: Namespace, apiVersion: v1, metadata: {name: a, annotations: {%s}}}"
DEPLOYMENT = """
kind: Deployment
apiVersion: apps/v1
metadata: {name: a}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}, annotations: {axoneme.io/visibility: "http:x"}}
    spec: {containers: [{name: c, image: i}]}
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (NAMESPACE % "axoneme.io/visibility: smtp", ""),
        (NAMESPACE % "axoneme.io/audit: 'yes'", ""),
        (DEPLOYMENT, "spec.template."),
    ],
)
def test_what_cannot_be_read_is_refused_when_it_is_applied(text: str, path: str) -> None:
    (manifest,) = load(text, "file.yaml")
    with pytest.raises(ManifestError, match=rf'{path}metadata.annotations\["axoneme'):
        validate(manifest)
    (good,) = load(text.replace("smtp", "http").replace("yes", "true").replace(":x", ":1"), "file.yaml")
    validate(good)
