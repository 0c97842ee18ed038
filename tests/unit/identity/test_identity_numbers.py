from __future__ import annotations

import pytest

from axoneme.identity import numbers
from axoneme.identity.numbers import Reserved
from axoneme.policy.identities import reserved


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (0, ""),
        (1, "reserved"),
        (255, "reserved"),
        (256, "cluster"),
        (65535, "cluster"),
        (1 << 16, ""),
        (1 << 16 | 255, ""),
        (1 << 16 | 256, "cluster"),
        (255 << 16 | 65535, "cluster"),
        (1 << 24, "local"),
        ((1 << 24) + 300, "local"),
        ((1 << 25) - 1, "local"),
        (1 << 25, ""),
        (-1, ""),
    ],
)
def test_every_number_is_of_one_kind(number: int, kind: str) -> None:
    kinds = {
        "reserved": numbers.is_reserved(number),
        "cluster": numbers.is_cluster(number),
        "local": numbers.is_node_local(number),
    }
    assert [name for name, holds in kinds.items() if holds] == ([kind] if kind else [])


def test_a_cluster_s_numbers_say_which_cluster() -> None:
    assert numbers.in_cluster(0, 300) == 300
    assert numbers.in_cluster(7, 300) == 7 << 16 | 300
    assert numbers.cluster_of(7 << 16 | 300) == 7


@pytest.mark.parametrize(("cluster", "number"), [(256, 300), (-1, 300), (0, 255), (0, 65536)])
def test_numbers_out_of_range_are_refused(cluster: int, number: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        numbers.in_cluster(cluster, number)


def test_reserved_identities_carry_their_labels() -> None:
    assert Reserved.HOST.labels.texts() == ["reserved:host"]
    assert Reserved.KUBE_APISERVER.labels.texts() == ["reserved:kube-apiserver", "reserved:remote-node"]
    assert Reserved.WORLD_IPV6.labels.texts() == ["reserved:world", "reserved:world-ipv6"]


def test_the_policy_compiler_means_the_same_by_them() -> None:
    for identity in reserved(ipv4=True, ipv6=True):
        assert Reserved(identity.number).labels == identity.labels
