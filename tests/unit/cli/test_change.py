"""`axo scale` and `axo label`."""

from __future__ import annotations

from .conftest import Axo, Sandbox

WORKLOADS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: &spec
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: db}]}
"""


def test_scale(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=WORKLOADS)
    done = axo("scale", "deploy/web", "sts/db", "--replicas", "3")
    assert done.lines == ["deployment.apps/web scaled", "statefulset.apps/db scaled"]
    for kind, name in (("Deployment", "web"), ("StatefulSet", "db")):
        assert sandbox.need(kind, name)["spec"]["replicas"] == 3
        assert sandbox.need(kind, name)["metadata"]["generation"] == 2
    axo("scale", "deployment", "web", "--replicas=3")
    assert sandbox.need("Deployment", "web")["metadata"]["generation"] == 2, "nothing has changed"


def test_scale_refuses(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=WORKLOADS)
    sandbox.pod("web-1")
    for words, code in (
        (("pod", "web-1", "--replicas", "2"), 1),
        (("deploy/nobody", "--replicas", "2"), 1),
        (("deploy", "--replicas", "2"), 2),
        (("deploy/web", "--replicas", "-1"), 2),
        (("deploy/web",), 2),
    ):
        assert axo("scale", *words).code == code, words
    done = axo("scale", "deploy/web", "deploy/nobody", "--replicas", "7")
    assert done.code == 1
    assert sandbox.need("Deployment", "web")["spec"]["replicas"] == 1, "all of them or none"


def test_labels_are_set_and_removed(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web")
    assert axo("label", "pod", "web", "tier=front", "app-").out == "pod/web labeled\n"
    assert sandbox.need("Pod", "web")["metadata"]["labels"] == {"tier": "front"}
    assert axo("label", "pod", "web", "tier=front").out == "pod/web not labeled\n"


def test_another_value_must_be_meant(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web")
    refused = axo("label", "pod/web", "app=db")
    assert refused.code == 1
    assert "--overwrite" in refused.err
    assert sandbox.need("Pod", "web")["metadata"]["labels"] == {"app": "web"}
    assert axo("label", "pod/web", "app=db", "--overwrite").code == 0
    assert sandbox.need("Pod", "web")["metadata"]["labels"] == {"app": "db"}


def test_label_many(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web")
    sandbox.pod("db")
    assert axo("label", "pods", "tier=x").code == 2
    assert axo("label", "pods", "-l", "app=db", "tier=x").lines == ["pod/db labeled"]
    assert axo("label", "pods", "--all", "seen=yes").lines == ["pod/db labeled", "pod/web labeled"]


def test_what_is_no_label(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web")
    for word in ("a b=c", "a=b c", "-x-=y", "=y"):
        assert axo("label", "pod", "web", "--", word).code == 2, word
    assert axo("label", "endpoint", "web", "a=b").code == 1
