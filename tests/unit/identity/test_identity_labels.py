from __future__ import annotations

import pytest

from axoneme.identity.labels import LabelFilter, pod_labels
from axoneme.model.labels import Label

NAMESPACE = "k8s:io.kubernetes.pod.namespace=shop"
NAMESPACE_NAME = "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop"


def kept(*texts: str, words: list[str] | None = None) -> list[str]:
    return LabelFilter.parse(words or []).apply(map(Label.parse, texts)).texts()


# ---- the filter --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "k8s:app=web",
        "k8s:app.kubernetes.io/name=web",
        "k8s:example.com/team=a",
        "k8s:io.kubernetes.pod.namespace=shop",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=web",
        "reserved:host",
        "k8s:statefulset=yes",
    ],
)
def test_by_default_what_says_something_about_the_workload_counts(text: str) -> None:
    assert kept(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "k8s:pod-template-hash=5d4f8",
        "k8s:controller-revision-hash=1",
        "k8s:controller-uid=2",
        "k8s:pod-template-generation=3",
        "k8s:statefulset.kubernetes.io/pod-name=db-0",
        "k8s:apps.kubernetes.io/pod-index=0",
        "k8s:batch.kubernetes.io/job-completion-index=0",
        "k8s:batch.kubernetes.io/controller-uid=0",
        "k8s:io.kubernetes.container.name=web",
        "k8s:kubernetes.io/hostname=node1",
        "k8s:topology.kubernetes.io/zone=a",
        "k8s:failure-domain.beta.kubernetes.io/zone=a",
        "k8s:k8s.io/x=y",
        "k8s:annotation.checksum=1",
        "k8s:etcd_node=1",
    ],
)
def test_by_default_what_differs_from_pod_to_pod_does_not(text: str) -> None:
    assert kept(text) == []


def test_a_word_that_excludes_takes_out_a_label() -> None:
    assert kept("k8s:app=web", "k8s:build=7", words=["k8s:!build"]) == ["k8s:app=web"]


def test_a_word_that_includes_makes_a_list_of_what_counts() -> None:
    found = kept("k8s:app=web", "k8s:tier=x", NAMESPACE, "reserved:init", words=["k8s:app"])
    assert found == ["k8s:app=web", NAMESPACE, "reserved:init"]


def test_several_words_may_stand_in_one_text() -> None:
    assert kept("k8s:a=1", "k8s:b=2", "k8s:c=3", words=["k8s:a k8s:b"]) == ["k8s:a=1", "k8s:b=2"]


def test_words_are_about_their_source_or_about_every_one() -> None:
    assert kept("k8s:app=1", "node:app=2", words=["node:!app"]) == ["k8s:app=1"]
    assert kept("k8s:app=1", "node:app=2", words=["!app"]) == []


def test_words_match_the_beginning_of_a_key_as_regular_expressions() -> None:
    assert kept("k8s:application=1", "k8s:my-app=2", words=["k8s:!app"]) == ["k8s:my-app=2"]
    assert kept("k8s:app=1", "k8s:application=2", words=["k8s:!app$"]) == ["k8s:application=2"]


def test_the_longer_match_decides_and_exclusion_on_a_draw() -> None:
    texts = ("k8s:kubernetes.io/team=a", "k8s:kubernetes.io/hostname=b")
    assert kept(*texts, words=[r"k8s:kubernetes\.io/team"]) == ["k8s:kubernetes.io/team=a"]
    assert kept("k8s:app=1", words=["k8s:app", "k8s:!app"]) == []
    assert kept("k8s:app.x=1", words=["k8s:!app", r"k8s:app\.x"]) == ["k8s:app.x=1"]
    # Among several that exclude, the shortest counts.
    assert kept("k8s:app.xy=1", words=["k8s:!app", r"k8s:!app\.xy", r"k8s:app\.x"]) == ["k8s:app.xy=1"]


@pytest.mark.parametrize(("word", "words"), [("k8s:", "no key"), ("!", "no key"), ("k8s:(", "not a regular")])
def test_a_wrong_word_is_named(word: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        LabelFilter.parse(["k8s:app", word])
    assert repr(word) in str(caught.value)


# ---- a pod's labels ----------------------------------------------------------------------------


def test_a_pod_has_its_own_labels_and_those_of_its_surroundings() -> None:
    labels = pod_labels(
        {"app": "web", "empty": ""},
        namespace="shop",
        namespace_labels={"team": "a", "kubernetes.io/metadata.name": "shop"},
        service_account="web",
        cluster="default",
    )
    assert labels.texts() == sorted(
        [
            "k8s:app=web",
            "k8s:empty",
            NAMESPACE,
            NAMESPACE_NAME,
            "k8s:io.cilium.k8s.namespace.labels.team=a",
            "k8s:io.cilium.k8s.policy.serviceaccount=web",
            "k8s:io.cilium.k8s.policy.cluster=default",
        ]
    )


def test_every_namespace_carries_its_name() -> None:
    assert pod_labels({}, namespace="shop").texts() == sorted([NAMESPACE, NAMESPACE_NAME])
    lying = {"kubernetes.io/metadata.name": "kube-system"}
    assert pod_labels({}, namespace="shop", namespace_labels=lying).texts() == sorted(
        [NAMESPACE, NAMESPACE_NAME]
    )


def test_a_pod_cannot_speak_as_another_namespace_or_account() -> None:
    own = {
        "io.kubernetes.pod.namespace": "kube-system",
        "io.cilium.k8s.policy.serviceaccount": "admin",
        "io.cilium.k8s.policy.cluster": "other",
        "io.cilium.k8s.namespace.labels.team": "admins",
        "app": "web",
    }
    labels = pod_labels(own, namespace="shop", cluster="default")
    assert labels.texts() == sorted(
        ["k8s:app=web", NAMESPACE, NAMESPACE_NAME, "k8s:io.cilium.k8s.policy.cluster=default"]
    )


def test_replicas_share_an_identity() -> None:
    def replica(ordinal: int) -> list[str]:
        own = {
            "app": "db",
            "statefulset.kubernetes.io/pod-name": f"db-{ordinal}",
            "apps.kubernetes.io/pod-index": str(ordinal),
            "controller-revision-hash": "db-7d9",
        }
        return LabelFilter().apply(pod_labels(own, namespace="shop")).texts()

    assert replica(0) == replica(1) == sorted(["k8s:app=db", NAMESPACE, NAMESPACE_NAME])
