"""Manifests: text to values, values to objects, and the compiler behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import manifests
from axoneme.identity.labels import pod_labels
from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.endpointslices import parse_endpoint_slice
from axoneme.model.exposure import parse_exposure
from axoneme.model.manifests import CIDR_GROUP, Manifest, load, read, validate
from axoneme.model.paths import ManifestError
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.services import parse_service
from axoneme.model.storedservices import read_endpoint_slice, read_service
from axoneme.policy.engine import PolicyEngine, PolicyKey
from fuzz.target import Target, says_why

#: Where the collections of real manifests are missing, these stand for them.
_OWN: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "namespace": "b", "labels": {"c": "d"}},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}],
                    "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "http"}],
                }
            ],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        },
    },
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "a"},
        "spec": {
            "endpointSelector": {"matchLabels": {"k8s:app": "web"}},
            "ingress": [
                {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "80", "protocol": "ANY"}]}]},
                {"fromEntities": ["cluster", "host"], "icmps": [{"fields": [{"type": 8, "family": "IPv4"}]}]},
                {"fromCIDRSet": [{"cidr": "::/0", "except": ["fd00::/8"]}, {"cidrGroupRef": "offices"}]},
            ],
            "egressDeny": [{"toServices": [{"k8sService": {"serviceName": "db", "namespace": "b"}}]}],
            "enableDefaultDeny": {"ingress": False},
        },
    },
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "offices"},
        "spec": {"externalCIDRs": ["192.0.2.0/24", "2001:db8::1"]},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {
            "selector": {"app": "web"},
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30000}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "a",
            "annotations": {
                "service.cilium.io/node-selector": "zone in (a, b),!spare",
                "service.cilium.io/lb-algorithm": "maglev",
                "service.cilium.io/src-ranges-policy": "deny",
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIPs": ["10.96.0.1", "fd00::1"],
            "externalIPs": ["192.0.2.1"],
            "ipFamilies": ["IPv4", "IPv6"],
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "ports": [{"port": 53, "protocol": "UDP", "appProtocol": "dns"}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "VIP"}, {"hostname": "a.b"}]}},
    },
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2},
        "spec": {
            "blocks": [
                {"cidr": "10.0.0.0/24"},
                {"start": "fd00::1", "stop": "fd00::9"},
                {"start": "1.2.3.4"},
            ],
            "serviceSelector": {"matchLabels": {"io.kubernetes.service.namespace": "b"}},
            "disabled": False,
            "allowFirstLastIPs": "No",
        },
        "status": {"conditions": [{"type": "cilium.io/PoolConflict", "status": "False"}]},
    },
    {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumL2AnnouncementPolicy",
        "metadata": {"name": "a"},
        "spec": {
            "serviceSelector": {"matchLabels": {"color": "blue"}},
            "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
            "interfaces": ["^eth[0-9]+"],
            "externalIPs": True,
            "loadBalancerIPs": True,
        },
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "a-1",
            "labels": {"kubernetes.io/service-name": "a"},
            "annotations": {"service.cilium.io/weight": "5"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "n",
                "zone": "z",
                "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]},
                "targetRef": {"kind": "Pod", "name": "a-0", "namespace": "default"},
                "hostname": "a-0",
            }
        ],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"}],
    },
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLocalRedirectPolicy",
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {
            "redirectFrontend": {
                "addressMatcher": {
                    "ip": "169.254.169.254",
                    "toPorts": [
                        {"port": "53", "protocol": "UDP", "name": "dns"},
                        {"port": "53", "protocol": "TCP", "name": "dns-tcp"},
                    ],
                }
            },
            "redirectBackend": {
                "localEndpointSelector": {"matchLabels": {"app": "dns"}},
                "toPorts": [
                    {"port": "53", "protocol": "UDP", "name": "dns"},
                    {"port": "53", "protocol": "TCP", "name": "dns-tcp"},
                ],
            },
            "skipRedirectFromBackend": False,
        },
    },
    {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "a"},
        "spec": {
            "replicas": 2,
            "serviceName": "a",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {
                            "name": "c",
                            "image": "nginx",
                            "command": ["sleep", "1"],
                            "env": [{"name": "A", "value": "b"}],
                            "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                            "livenessProbe": {"exec": {"command": ["true"]}},
                            "startupProbe": {"tcpSocket": {"port": 80}},
                        }
                    ],
                    "nodeSelector": {"a": "b"},
                    "serviceAccountName": "default",
                },
            },
        },
    },
    {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "a"},
        "spec": {
            "completions": 2,
            "parallelism": 1,
            "backoffLimit": 1,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        },
    },
)


def _texts() -> Iterator[bytes]:
    for object in _OWN:
        yield json.dumps(object).encode()
    for path in sorted(manifests.FOLDER.rglob("*.yaml")) if manifests.FOLDER.is_dir() else ():
        if path.stat().st_size < 1 << 14:
            yield path.read_bytes()
    yield b"a: &a [1, 0644, yes, .inf, 1e3]\nb: {<<: *a, c: !!str 5}\n---\n- |\n  x\n"
    yield b'{"kind":"List","apiVersion":"v1","items":[]}\n{"a":"\\ud83d\\ude00"}'
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    yield bomb.encode()


def _objects() -> Iterator[bytes]:
    for text in _texts():
        try:
            found = load(text.decode(), "seed")
        except ManifestError:
            continue
        yield from (json.dumps(manifest.object).encode() for manifest in found if manifest.supported)


def check_text(data: bytes) -> None:
    """Objects, or a complaint with place, finding and remedy; objects can be written down again."""
    try:
        reading = read(data.decode("utf-8", "surrogateescape"), "f")
    except ManifestError as error:
        says_why(error)
        assert error.found and error.right and error.origin.startswith("f")
        return
    for manifest in reading.objects:
        json.dumps(manifest.object, allow_nan=False, ensure_ascii=False).encode()


def _read_quickly(manifest: Manifest) -> None:
    """What an agent reads is what the parser has read."""
    readers: dict[str, tuple[Callable[[bytes], object], Callable[[Mapping[str, object]], object]]] = {
        "Service": (read_service, parse_service),
        "EndpointSlice": (read_endpoint_slice, parse_endpoint_slice),
    }
    if manifest.kind in readers and manifest.supported:
        read, parse = readers[manifest.kind]
        try:
            value = json.dumps(manifest.object, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair
            return
        assert read(value) == parse(manifest.object)


def check_object(data: bytes) -> None:
    """What an API server would store is taken whole or refused; a policy that is taken compiles."""
    try:
        object = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(object, dict):
        return
    try:
        for manifest in load(json.dumps(object), "f"):
            validate(manifest)
            _read_quickly(manifest)
        if object.get("kind") in POLICY_KINDS:
            policies = parse_policy(object)
        elif object.get("kind") == CIDR_GROUP:
            parse_cidr_group(object)
            return
        elif object.get("kind") == "Service":
            parse_exposure(object)
            return
        else:
            return
    except ManifestError as error:
        says_why(error)
        assert error.found and error.right
        return
    engine = PolicyEngine()
    engine.upsert_identity(256, pod_labels({"app": "web"}, namespace="b"))
    engine.add_subject(256)
    engine.upsert_policy(PolicyKey("", "", ""), policies)
    for number, prefix in enumerate(sorted(engine.needed_prefixes(), key=str), 1 << 24):
        engine.upsert_cidr_identity(number, prefix)
    engine.changes()


TARGETS = [
    Target("manifest-text", check_text, _texts),
    Target("manifest-object", check_object, _objects, json=True),
]
