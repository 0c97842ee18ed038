"""The policies in an object of whichever kind: what an agent does with the objects it is told of."""

from __future__ import annotations

from collections.abc import Mapping

from axoneme.model.adminpolicy import ADMIN, BASELINE, parse_admin_policy
from axoneme.model.ciliumpolicy import CLUSTERWIDE, NAMESPACED, parse_cilium_policy
from axoneme.model.metadata import naming
from axoneme.model.networkpolicy import KIND as NETWORK_POLICY
from axoneme.model.networkpolicy import parse_network_policy
from axoneme.model.policy import Policy

POLICY_KINDS = (NETWORK_POLICY, NAMESPACED, CLUSTERWIDE, ADMIN, BASELINE)


def parse_policy(object: Mapping[str, object], cluster_name: str | None = "default") -> tuple[Policy, ...]:
    """One `Policy` for each spec of the object.

    ``cluster_name`` is the local cluster's: peers are its pods unless a selector names another, so pods
    must carry it among their labels. With None selectors mean the pods of every cluster. Raises
    `ManifestError`, also for a kind that is no policy.
    """
    with naming(object) as fields:
        kind = fields.need("kind").one_of(POLICY_KINDS)
    if kind == NETWORK_POLICY:
        return (parse_network_policy(object, cluster_name=cluster_name),)
    if kind in (ADMIN, BASELINE):
        return (parse_admin_policy(object, cluster_name=cluster_name),)
    return parse_cilium_policy(object, cluster_name=cluster_name)
