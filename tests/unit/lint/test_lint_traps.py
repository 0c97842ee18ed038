"""Each trap is found where it is, and only there."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from axoneme.identity.labels import LabelFilter
from axoneme.lint.findings import TRAPS
from axoneme.lint.linter import lint
from axoneme.lint.surroundings import POD_RANGES, of_manifests
from axoneme.model.manifests import load

ROOT = Path(__file__).resolve().parents[3]

#: Two pods of the namespace ``default`` (web with the named port http), and one of ``shop``.
PODS = """
{apiVersion: v1, kind: Pod, metadata: {name: db, labels: {app: db}}, spec: {containers: [{name: c, image: i}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: c, image: i}]}
---
{apiVersion: v1, kind: Service, metadata: {name: bare}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: partners}, spec: {externalCIDRs: [192.0.2.0/24]}}
"""


def found(policies: str, pods: str = PODS) -> list[tuple[str, str]]:
    """Codes and paths."""
    objects = load(f"{pods}\n---\n{policies}", "text")
    return [(each.trap.code, each.path) for each in lint(objects, of_manifests(objects))]


def np(spec: str, name: str = "p") -> str:
    return f"{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}"


def anp(rules: str) -> str:
    return (
        "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: a}, "
        f"spec: {{priority: 1, subject: {{namespaces: {{}}}}, egress: [{rules}]}}}}"
    )


def to_any_pod(action: str) -> str:
    return f"{{action: {action}, to: [{{namespaces: {{}}}}]}}"


LITERAL = "http: [{headers: ['X-Token: [0-9]+']}]"


def over(rules: str) -> str:
    return f'toPorts: [{{ports: [{{port: "80", protocol: TCP}}], rules: {{{rules}}}}}]'


def cnp(spec: str, name: str = "p") -> str:
    return f"{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}"


ALL = "endpointSelector: {}"
WEB = "endpointSelector: {matchLabels: {app: web}}"
FROM_DB = "fromEndpoints: [{matchLabels: {app: db}}]"
HTTP = 'toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET}]}}]'
PORT80 = 'toPorts: [{ports: [{port: "80", protocol: TCP}]}]'
DNS = 'toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]'


@pytest.mark.parametrize(
    ("policy", "code", "path"),
    [
        (cnp(f"{ALL}, ingres: []"), "AXO100", "spec.ingres"),
        (cnp(f"{ALL}, ingress: [{{}}]"), "AXO101", "spec.ingress[0]"),
        (np("podSelector: {}, ingress: [{}, {from: [{podSelector: {}}]}]"), "AXO102", "spec.ingress[0]"),
        (np("podSelector: {}, egress: [{}]"), "AXO103", "spec.egress[0]"),
        (cnp(f"{ALL}, ingress: [{{fromEndpoints: []}}]"), "AXO104", "spec.ingress[0].fromEndpoints"),
        (cnp(f"{ALL}, egress: [{{toCIDR: [], {PORT80}}}]"), "AXO104", "spec.egress[0].toCIDR"),
        (cnp(f"{ALL}, egress: [], ingress: [{{{FROM_DB}}}]"), "AXO105", "spec.egress"),
        (np("podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]"), "AXO106",
         "spec.egress"),
        (np("podSelector: {}", "default-deny-all"), "AXO107", "spec"),
        (np("podSelector: {}, ingress: []", "no-egress"), "AXO107", "spec"),
        (np("podSelector: {}, ingress: [{ports: [{port: http, endPort: 90}]}]"), "AXO108",
         "spec.ingress[0].ports[0].endPort"),
        (cnp(f"{WEB}, ingress: [{{toPorts: [{{ports: [{{port: http, endPort: 90}}]}}]}}]"), "AXO108",
         "spec.ingress[0].toPorts[0].ports[0].endPort"),
        (np("podSelector: {}, egress: [{ports: [{port: 53}]}]"), "AXO109", "spec.egress[0].ports"),
        (np("podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {podSelector: {matchLabels: {app: db}}}]}]"),
         "AXO110", "spec.ingress[0].from"),
        (cnp(f"{ALL}, ingress: [{{}}, {{{FROM_DB}}}]"), "AXO111", "spec.ingress[0]"),
        (f"{cnp(f'{ALL}, ingress: [{{{FROM_DB}}}]')}\n---\n{cnp(f'{ALL}, ingress: [{{{FROM_DB}}}]')}", "AXO112",
         "metadata.name"),
        (cnp(f"{WEB}, egress: [{{toFQDNs: [{{matchName: a.io}}, {{matchPattern: '*a.io'}}]}}]"), "AXO114",
         "spec.egress[0].toFQDNs[1].matchPattern"),
        (np("podSelector: {matchExpressions: [{key: app, operator: In, values: [a]}, "
            "{key: app, operator: NotIn, values: [a]}]}"), "AXO201", "spec.podSelector"),
        (cnp(f"{ALL}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: db}}, matchExpressions: "
             "[{key: app, operator: DoesNotExist}]}]}]"), "AXO201", "spec.ingress[0]"),
        (np("podSelector: {matchLabels: {pod-template-hash: abc}}"), "AXO202", "spec.podSelector"),
        (np("podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: "
            "[{key: statefulset.kubernetes.io/pod-name, operator: NotIn, values: [a]}]}}]}]"), "AXO203",
         "spec.ingress[0]"),
        (np("podSelector: {matchLabels: {app: wep}}"), "AXO204", "spec.podSelector"),
        (cnp(f"{WEB}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: cart}}}}]}}]"), "AXO205",
         "spec.ingress[0]"),
        (cnp(f"{WEB}, ingress: [{{toPorts: [{{ports: [{{port: htpp}}]}}]}}]"), "AXO206", "spec.ingress[0]"),
        (np("podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], "
            "ports: [{port: http}]}]"), "AXO206", "spec.egress[0]"),
        (cnp(f"{ALL}, egress: [{{toServices: [{{k8sService: {{serviceName: gone}}}}]}}]"), "AXO207",
         "spec.egress[0]"),
        (cnp(f"{ALL}, ingress: [{{fromCIDRSet: [{{cidrGroupRef: gone}}]}}]"), "AXO208", "spec.ingress[0]"),
        (np("podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.3.0/24}}]}]"), "AXO301",
         "spec.ingress[0]"),
        (np("podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]"), "AXO302", "spec.ingress[0]"),
        (cnp(f"{ALL}, ingress: [{{fromCIDRSet: [{{cidr: 192.0.2.0/24, except: [192.0.2.0/25, 192.0.2.128/25]}}]}}]"),
         "AXO303", "spec.ingress[0]"),
        (cnp(f"{WEB}, ingress: [{{{FROM_DB}, {PORT80}}}], ingressDeny: [{{fromEntities: [all]}}]"), "AXO401",
         "spec.ingress[0]"),
        (f"{cnp(f'{WEB}, ingress: [{{{FROM_DB}, {HTTP}}}]')}\n---\n{np('podSelector: {}, ingress: [{ports: [{port: 80}]}]', 'q')}",
         "AXO402", "spec.ingress[0].toPorts[0]"),
        (cnp(f"{WEB}, ingress: [{{{FROM_DB}, {HTTP}}}, {{fromEndpoints: [{{}}]}}]"), "AXO402",
         "spec.ingress[0].toPorts[0]"),
        (cnp(f"{WEB}, egress: [{{toFQDNs: [{{matchName: example.org}}]}}]"), "AXO403", "spec.egress[0].toFQDNs"),
        (cnp(f"{WEB}, ingress: [{{{FROM_DB}, {over('http: []')}}}]"), "AXO113",
         "spec.ingress[0].toPorts[0].rules.http"),
        (cnp(f"{WEB}, ingress: [{{{FROM_DB}, {over('http: [{path: /v1/a.b}]')}}}]"), "AXO405",
         "spec.ingress[0].toPorts[0].rules.http"),
        (cnp(f"{WEB}, ingress: [{{{FROM_DB}, {over(LITERAL)}}}]"), "AXO406",
         "spec.ingress[0].toPorts[0].rules.http"),
        (anp(f"{to_any_pod('Pass')}, {to_any_pod('Deny')}"), "AXO404", "spec.egress[1]"),
    ],
)  # fmt: skip
def test_every_trap_is_found(policy: str, code: str, path: str) -> None:
    assert (code, path) in found(policy)


def test_a_service_without_selector_means_the_addresses_in_its_slices() -> None:
    policy = cnp(f"{ALL}, egress: [{{toServices: [{{k8sService: {{serviceName: bare}}}}]}}]")
    assert "AXO207" not in {code for code, _ in found(policy)}


def test_the_table_above_has_them_all() -> None:
    tried = set(re.findall(r'"(AXO\d+)"', Path(__file__).read_text()))
    assert {trap.code for trap in TRAPS} <= tried
    assert len({trap.code for trap in TRAPS}) == len(TRAPS)


def test_the_page_tells_of_every_trap_with_its_severity() -> None:
    page = (ROOT / "docs" / "policy-tools.md").read_text()
    for trap in TRAPS:
        assert f"| {trap.code} | {trap.severity.value} | {trap.title} |" in page


@pytest.mark.parametrize(
    "policy",
    [
        np("podSelector: {}, policyTypes: [Ingress, Egress]", "default-deny-all"),
        np("podSelector: {}", "closed"),
        np("podSelector: {}, ingress: [], egress: []", "deny-all"),
        np("podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}]"),
        np("podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: cart}}}]}]"),
        np("podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}, {port: 53, protocol: UDP}]}]"),
        np("podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]"),
        np("podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.0/16]}}]}]"),
        # Another namespace, of which nothing is known here.
        np("podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]"),
        cnp(f"{ALL}, egress: [{{toEndpoints: [{{matchLabels: {{io.kubernetes.pod.namespace: kube-system, k: dns}}}}]}}]"),
        cnp(f"{WEB}, ingress: [{{{FROM_DB}, toPorts: [{{ports: [{{port: http}}]}}]}}]"),
        cnp(f"{ALL}, ingress: [{{fromEndpoints: [{{}}]}}, {{fromEntities: [host]}}]"),
        cnp(f"{ALL}, egress: [{{toServices: [{{k8sService: {{serviceName: web}}}}]}}]"),
        cnp(f"{ALL}, ingress: [{{fromCIDRSet: [{{cidrGroupRef: partners}}]}}]"),
        cnp(f"{ALL}, ingress: [{{fromEndpoints: [{{matchLabels: {{reserved:health: ''}}}}]}}]"),
        cnp(f"{WEB}, ingress: [{{{FROM_DB}, {PORT80}}}], ingressDeny: [{{{FROM_DB}, "
            'toPorts: [{ports: [{port: "81"}]}]}]'),
        cnp(f"{WEB}, ingress: [{{{FROM_DB}}}], ingressDeny: [{{fromEntities: [world]}}]"),
    ],
)  # fmt: skip
def test_what_is_sound_is_left_alone(policy: str) -> None:
    assert found(policy) == []


def test_what_stands_above_l4_is_no_trap_by_itself() -> None:
    assert found(cnp(f"{WEB}, ingress: [{{{FROM_DB}, {HTTP}}}]")) == []
    other_port = cnp(f"{WEB}, ingress: [{{{FROM_DB}, {HTTP}}}, {{toPorts: [{{ports: [{{port: '81'}}]}}]}}]")
    assert found(other_port) == [], "the allow is for another port"
    names = "toFQDNs: [{matchName: example.org}]"
    assert found(cnp(f"{WEB}, egress: [{{{names}}}, {{toEndpoints: [{{}}], {DNS}}}]")) == []
    other = cnp(
        f"endpointSelector: {{matchLabels: {{app: db}}}}, egress: [{{toEndpoints: [{{}}], {DNS}}}]", "q"
    )
    untaught = found(f"{cnp(f'{WEB}, egress: [{{{names}}}]')}\n---\n{other}")
    assert untaught == [("AXO403", "spec.egress[0].toFQDNs")], "the DNS rule is about other pods"
    both = (
        'toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{}]}}, '
        '{ports: [{port: "80", protocol: TCP}]}]'
    )
    assert found(cnp(f"{WEB}, ingress: [{{{FROM_DB}, {both}}}]")) == [
        ("AXO402", "spec.ingress[0].toPorts[0]")
    ]


@pytest.mark.parametrize("path", ["/public/.*", "/a([?].*)?", "", "/v[0-9]/a"])
def test_paths_that_are_patterns_are_taken_at_their_word(path: str) -> None:
    rules = f"http: [{{path: '{path}', headers: ['X-Token: 42 a.b (c)']}}]"
    assert found(cnp(f"{WEB}, ingress: [{{{FROM_DB}, {over(rules)}}}]")) == []


def test_specs_are_looked_at_one_by_one() -> None:
    text = (
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p}, specs: ["
        f"{{{WEB}, ingress: [{{{FROM_DB}}}]}}, {{endpointSelector: {{matchLabels: {{app: wep}}}}, ingress: [{{}}]}}]}}"
    )
    assert found(text) == [("AXO101", "specs[1].ingress[0]"), ("AXO204", "specs[1].endpointSelector")]


def test_without_workloads_nobody_is_missed() -> None:
    assert found(np("podSelector: {matchLabels: {app: wep}}"), pods="") == []


def test_ranges_and_labels_are_the_clusters_own() -> None:
    objects = load(
        np("podSelector: {matchLabels: {build: x}}, ingress: [{from: [{ipBlock: {cidr: 10.9.0.0/24}}]}]"),
        "text",
    )
    own = of_manifests(objects, (ip_network("10.9.0.0/16"),), LabelFilter.parse(["k8s:!build"]))
    assert [each.trap.code for each in lint(objects, own)] == ["AXO202", "AXO301"]
    assert lint(objects, of_manifests(objects, POD_RANGES)) == []


# ---- whatever stands there -----------------------------------------------------------------------

Steps = tuple[str | int, ...]
GARBAGE = (None, {}, [], [None], [[]], [{}], "", "a", 7, True, {"a": None})
FULL = (
    np("podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}, "
       "namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], "
       "ports: [{port: 53, endPort: 60, protocol: UDP}, {port: http}]}], egress: [{}]"),
    cnp(f"{WEB}, ingress: [{{{FROM_DB}, {HTTP}}}], ingressDeny: [{{fromEntities: [all], {PORT80}}}], "
        f"egress: [{{toFQDNs: [{{matchName: a.b}}]}}, {{toEndpoints: [{{}}], {DNS}}}, "
        "{toServices: [{k8sService: {serviceName: web}}]}, {toCIDRSet: [{cidrGroupRef: partners}]}]"),
)  # fmt: skip


def places(value: object, path: Steps = ()) -> Iterator[Steps]:
    """The paths of all values inside."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


@pytest.mark.parametrize("text", FULL)
def test_no_garbage_stops_it(text: str) -> None:
    (manifest,) = load(text, "text")
    pods = load(PODS, "text")
    known = of_manifests(pods)
    for path in places(manifest.object["spec"]):
        for garbage in GARBAGE:
            object: Any = copy.deepcopy(manifest.object)
            at = object
            for step in ("spec", *path)[:-1]:
                at = at[step]
            at[("spec", *path)[-1]] = garbage
            for each in lint([*pods, replace(manifest, object=object)], known):
                assert each.path and each.what
