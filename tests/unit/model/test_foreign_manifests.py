"""Every manifest that others wrote is taken, or refused with the reason."""

from __future__ import annotations

from collections import Counter

import pytest

from axoneme.model import manifests
from axoneme.model.paths import ManifestError
from axoneme.model.policies import POLICY_KINDS, parse_policy

from .given import MANIFESTS, needs_manifests

#: Each file of the examples: how many policies it holds, or where and why it is refused.
EXAMPLES: dict[str, int | tuple[str, str]] = {
    "auth/auth.yaml": ("spec.egress[0].auth", "there is no such field (is it authentication?)"),
    "getting-started/cilium_dkr_demo_l3-l4-policy-170817.yaml": 1,
    "getting-started/cilium_dkr_demo_l7-policy-230817.yaml": 1,
    "getting-started/kafka.yaml": 1,
    "getting-started/l3-l4-policy.yaml": 1,
    "getting-started/l7-policy.yaml": 1,
    "kubernetes/clustermesh/cross-cluster-any-namespace-policy.yaml": 1,
    "kubernetes/clustermesh/cross-cluster-policy.yaml": 1,
    "kubernetes/clusterwide/clusterscope-policy.yaml": 1,
    "kubernetes/clusterwide/health.yaml": 1,
    "kubernetes/clusterwide/wildcard-from-endpoints.yaml": 1,
    "kubernetes/namespace/demo-pods.yaml": 0,
    "kubernetes/namespace/isolate-namespaces.yaml": 2,
    "kubernetes/namespace/kubedns-policy.yaml": 1,
    "kubernetes/namespace/namespace-labels-policy.yaml": 1,
    "kubernetes/namespace/namespace-policy.yaml": 1,
    "kubernetes/serviceaccount/demo-pods.yaml": 0,
    "kubernetes/serviceaccount/serviceaccount-policy.yaml": 1,
    "l3/cidr/cidr.yaml": 1,
    "l3/egress-allow-all/egress-allow-all.yaml": 1,
    "l3/egress-default-deny/egress-default-deny.yaml": 1,
    "l3/egress-deny/egress-deny.yaml": 1,
    "l3/entities/apiserver.yaml": 1,
    "l3/entities/customnodes.yaml": 1,
    "l3/entities/from_world_deny.yaml": 1,
    "l3/entities/host.yaml": 1,
    "l3/entities/nodes.yaml": 1,
    "l3/entities/world.yaml": 1,
    "l3/fqdn/fqdn.yaml": 1,
    "l3/ingress-allow-all/ingress-allow-all.yaml": 1,
    "l3/match-expressions/and-statement.yaml": 1,
    "l3/match-expressions/or-statement.yaml": 1,
    "l3/requires/endpoints.yaml": 1,
    "l3/requires/requires.yaml": ("specs[0].ingress[0].fromRequires", "the field was removed"),
    "l3/service/service.yaml": 1,
    "l3/simple/l3.yaml": 1,
    "l3/simple/l3_egress.yaml": 1,
    "l4/cidr_l4_combined.yaml": 1,
    "l4/from_init.yaml": 1,
    "l4/icmp.yaml": 1,
    "l4/init.yaml": 1,
    "l4/l3_l4_combined.yaml": 1,
    "l4/l4.yaml": 1,
    "l4/l4_port_range.yaml": 1,
    "l4/l4_sni.yaml": 1,
    "l4/multi_rule.yaml": 1,
    "l7/dns/dns-upgrade.yaml": 1,
    "l7/dns/dns-visibility.yaml": 1,
    "l7/dns/dns.yaml": 1,
    "l7/http/http.yaml": 1,
    "l7/http/l7_multi.yaml": 2,
    "l7/http/simple/l7.yaml": 1,
    "l7/kafka/kafka-role.yaml": 1,
    "l7/kafka/kafka.yaml": 1,
}
BOUTIQUE = (
    *("adservice", "cartservice", "checkoutservice", "currencyservice", "deny-all", "emailservice"),
    *("frontend", "loadgenerator", "paymentservice", "productcatalogservice", "recommendationservice"),
    *("redis", "shippingservice"),
)
TABLE: dict[str, int | tuple[str, str]] = {
    **{f"cilium-examples/{name}": outcome for name, outcome in EXAMPLES.items()},
    **{f"online-boutique/network-policies/network-policy-{name}.yaml": 1 for name in BOUTIQUE},
    "online-boutique/app.yaml": 0,
    "star-wars/http-sw-app.yaml": 0,
    "star-wars/sw_deny_policy.yaml": 1,
    "star-wars/sw_l3_l4_policy.yaml": 1,
    "star-wars/sw_l3_l4_l7_policy.yaml": 1,
}


def read(name: str) -> manifests.Reading:
    return manifests.read((MANIFESTS / name).read_text(), name)


@needs_manifests
@pytest.mark.parametrize("name", TABLE)
def test_a_manifest_is_taken_or_refused_with_the_reason(name: str) -> None:
    expected = TABLE[name]
    if isinstance(expected, int):
        found = [each for each in read(name).objects if each.kind in POLICY_KINDS]
        assert sum(len(parse_policy(each.object)) for each in found) == expected
        return
    with pytest.raises(ManifestError) as caught:
        read(name)
    path, reason = expected
    assert caught.value.path == path and reason in caught.value.right
    assert name in str(caught.value) and "CiliumNetworkPolicy default/" in str(caught.value)


@needs_manifests
def test_no_manifest_is_forgotten() -> None:
    found = {str(path.relative_to(MANIFESTS)) for path in MANIFESTS.rglob("*.yaml")}
    assert found == TABLE.keys()


@needs_manifests
def test_an_application_is_read_with_what_is_left_out_of_it() -> None:
    reading = read("online-boutique/app.yaml")
    assert Counter(each.kind for each in reading.objects) == {"Deployment": 12, "Service": 12}
    assert reading.ignored == {"ServiceAccount": 11}
