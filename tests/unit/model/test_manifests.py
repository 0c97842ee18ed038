"""Texts of manifests: documents, lists, what is ignored, and how messages say where something is wrong."""

from __future__ import annotations

import json

import pytest

from axoneme.model.manifests import load, read, validate
from axoneme.model.paths import ManifestError

from .given import cilium, network_policy

TWO = """\
# a comment
---
kind: Namespace
apiVersion: v1
metadata: {name: a}
---
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata:
  name: p
spec:
  podSelector: {}
"""


def names(text: str, namespace: str = "default") -> list[str]:
    return [str(each) for each in read(text, "f", namespace=namespace).objects]


def test_documents_of_one_text() -> None:
    assert names(TWO) == ["Namespace a", "NetworkPolicy default/p"]
    assert names("") == names("---\n# nothing\n---\n") == []


def test_objects_without_a_namespace_are_put_into_the_one_that_is_asked_for() -> None:
    found = read(TWO, "f", namespace="other").objects
    assert [each.namespace for each in found] == ["", "other"]
    assert found[1].object["metadata"] == {"name": "p", "namespace": "other"}
    own = network_policy()
    assert read(json.dumps(own), "f", namespace="other").objects[0].object == own


def test_a_clusterwide_object_loses_a_namespace() -> None:
    text = '{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "b"}}'
    (found,) = read(text, "f").objects
    assert found.object["metadata"] == {"name": "a"}


def test_lists_are_taken_apart() -> None:
    items = [network_policy(), {"kind": "List", "apiVersion": "v1", "items": [cilium(ingress=[{}])]}]
    text = json.dumps({"kind": "List", "apiVersion": "v1", "items": items})
    assert names(text) == ["NetworkPolicy shop/p", "CiliumNetworkPolicy shop/p"]
    assert names('{"kind": "List", "apiVersion": "v1"}') == []


def test_the_items_of_a_list_of_one_kind_need_not_say_their_kind() -> None:
    bare = {key: value for key, value in network_policy().items() if key not in ("kind", "apiVersion")}
    text = json.dumps(
        {"kind": "NetworkPolicyList", "apiVersion": "networking.k8s.io/v1", "metadata": {}, "items": [bare]}
    )
    assert names(text) == ["NetworkPolicy shop/p"]


def test_what_plays_no_part_is_counted() -> None:
    config = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}}
    calico = {"kind": "NetworkPolicy", "apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": "n"}}
    job = {"kind": "CronJob", "apiVersion": "batch/v1"}
    text = "\n---\n".join(map(json.dumps, [config, calico, config, job, network_policy()]))
    reading = read(text, "f")
    assert reading.ignored == {"ConfigMap": 2, "NetworkPolicy": 1, "CronJob": 1}
    assert [str(each) for each in reading.objects] == ["NetworkPolicy shop/p"]


@pytest.mark.parametrize(
    ("kind", "version", "remedy"),
    [
        ("CiliumNetworkPolcy", "cilium.io/v2", "is it CiliumNetworkPolicy?"),
        ("networkPolicy", "networking.k8s.io/v1", "is it NetworkPolicy?"),
        ("Pods", "v1", "is it Pod?"),
    ],
)
def test_a_slip_in_the_kind_is_not_ignored(kind: str, version: str, remedy: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(json.dumps({"kind": kind, "apiVersion": version, "metadata": {"name": "n"}}), "f")
    assert caught.value.path == "kind" and remedy in caught.value.right


@pytest.mark.parametrize("version", ["networking.k8s.io/v1beta1", "extensions/v1beta1"])
def test_another_version_of_a_known_kind_is_refused(version: str) -> None:
    with pytest.raises(ManifestError, match=r"apiVersion: found .*; NetworkPolicy is read as networking"):
        read(json.dumps({**network_policy(), "apiVersion": version}), "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", 'f:1: found "a"; an object with kind and apiVersion belongs here'),
        ("- a", "f:1: found a list of 1; an object with kind and apiVersion belongs here"),
        ("\n\nkind: Pod", "Pod (f:3): apiVersion: found nothing; an object names the version of its API"),
        (
            "kind: Pod\napiVersion: v1\nmetadata: {}",
            "Pod (f:1): metadata.name: found nothing; this field is required",
        ),
        (
            TWO + "  ingress:\n  - form: []\n",
            "NetworkPolicy default/p (f:8): spec.ingress[0].form: found an empty list; "
            "there is no such field (is it from?); known are from, ports",
        ),
    ],
)
def test_a_message_names_the_place_what_was_found_and_what_is_right(text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(text, "f")
    assert str(caught.value) == message


def test_an_item_of_a_list_is_named() -> None:
    text = json.dumps({"kind": "List", "apiVersion": "v1", "items": [network_policy(), cilium()]})
    with pytest.raises(ManifestError, match=r"CiliumNetworkPolicy shop/p \(f:1 items\[1\]\): spec: "):
        read(text, "f")


def test_one_may_go_on_behind_a_wrong_object() -> None:
    wrong, right = load(f"{json.dumps(cilium())}\n---\n{json.dumps(network_policy())}", "f")
    with pytest.raises(ManifestError):
        validate(wrong)
    validate(right)
