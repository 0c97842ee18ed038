"""Objects for the parsers, and where the manifests of other projects lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from axoneme.model.labels import Selector
from axoneme.model.policies import parse_policy
from axoneme.model.policy import LabelPeer, Policy, Rule

ROOT = Path(__file__).resolve().parents[3]
#: Manifests that others wrote are kept beside the project, not in it.
MANIFESTS = Path(os.environ.get("AXONEME_MANIFESTS", ROOT.parent / "shared/data/manifests"))

needs_manifests = pytest.mark.skipif(
    not MANIFESTS.is_dir(), reason=f"no manifests in {MANIFESTS}; AXONEME_MANIFESTS says where they are"
)

Object = dict[str, Any]


def network_policy(**spec: object) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"podSelector": {}, **spec},
    }


def cilium(**spec: object) -> Object:
    """Of namespace ``shop``."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"endpointSelector": {}, **spec},
    }


def clusterwide(**spec: object) -> Object:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"endpointSelector": {}, **spec},
    }


def parsed(object: Object, cluster: str | None = None) -> Policy:
    (policy,) = parse_policy(object, cluster)
    return policy


def only_rule(object: Object, cluster: str | None = None) -> Rule:
    (rule,) = parsed(object, cluster).rules
    return rule


def selectors(rule: Rule) -> list[str]:
    """The selectors of a rule's peers as text."""
    found: list[Selector] = [peer.selector for peer in rule.peers if isinstance(peer, LabelPeer)]
    assert len(found) == len(rule.peers)
    return list(map(str, found))
