"""`axo apply` and `axo delete`: objects come whole or not at all, and nobody else's words are lost."""

from __future__ import annotations

import json
from pathlib import Path

from axoneme.sandbox import planfile
from axoneme.sandbox.plan import Plan

from .conftest import Axo, Sandbox

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {team: a}}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: %s}}
spec: {containers: [{name: main, image: %s}]}
"""


def test_created_configured_unchanged(axo: Axo, sandbox: Sandbox) -> None:
    for replicas, verb in ((2, "created"), (2, "unchanged"), (3, "configured")):
        done = axo("apply", "-f", "-", stdin=DEPLOYMENT % replicas)
        assert (done.code, done.out) == (0, f"deployment.apps/web {verb}\n")
    assert sandbox.need("Deployment", "web")["spec"]["replicas"] == 3


def test_what_an_api_server_adds(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=DEPLOYMENT % 2)
    first = sandbox.need("Deployment", "web")["metadata"]
    assert first["uid"]
    assert first["creationTimestamp"].endswith("Z")
    assert (first["namespace"], first["generation"]) == ("default", 1)
    axo("apply", "-f", "-", stdin=DEPLOYMENT % 3)
    then = sandbox.need("Deployment", "web")["metadata"]
    assert (then["uid"], then["creationTimestamp"]) == (first["uid"], first["creationTimestamp"])
    assert then["generation"] == 2


def test_pods_get_what_their_identity_needs(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=POD % ("one", "i"))
    pod = sandbox.need("Pod", "one")
    assert pod["spec"]["serviceAccountName"] == "default"
    assert pod["status"]["phase"] == "Pending"


def test_what_others_wrote_stays_and_what_is_said_no_more_goes(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=DEPLOYMENT % 2)
    stored = sandbox.need("Deployment", "web")
    stored["status"] = {"replicas": 2}
    stored["metadata"]["labels"]["from"] = "elsewhere"
    stored["spec"]["paused"] = True
    sandbox.put(stored)
    done = axo("apply", "-f", "-", stdin=(DEPLOYMENT % 2).replace(", labels: {team: a}", ""))
    assert done.out == "deployment.apps/web configured\n"
    after = sandbox.need("Deployment", "web")
    assert after["status"] == {"replicas": 2}
    assert after["spec"]["paused"] is True
    assert after["metadata"]["labels"] == {"from": "elsewhere"}, "team was in the manifest, and is no more"


def test_one_wrong_object_and_nothing_is_written(axo: Axo, sandbox: Sandbox) -> None:
    wrong = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: odd}
spec: {podSelector: {}, ingress: [{from: [{podSelektor: {}}]}]}
"""
    done = axo("apply", "-f", "-", stdin=f"{DEPLOYMENT % 2}---{wrong}")
    assert done.code == 1
    assert "NetworkPolicy default/odd" in done.err
    assert "spec.ingress[0].from[0].podSelektor" in done.err
    assert "is it podSelector?" in done.err
    assert sandbox.get("Deployment", "web") is None


def test_every_wrong_object_is_named(axo: Axo, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text((POD % ("x", "i")).replace("main", "Main"))
    (tmp_path / "two.yaml").write_text((DEPLOYMENT % 2).replace("replicas: 2", "replicas: two"))
    done = axo("apply", "-f", str(tmp_path))
    assert done.code == 1
    assert "one.yaml" in done.err
    assert "two.yaml" in done.err
    assert "spec.replicas" in done.err


def test_what_cannot_be_changed(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=POD % ("one", "old"))
    assert axo("apply", "-f", "-", stdin=POD % ("two", "old")).out == "pod/one configured\n"
    both = f"{POD % ('three', 'new')}---{DEPLOYMENT % 2}"
    done = axo("apply", "-f", "-", stdin=both)
    assert done.code == 1
    assert "Pod default/one" in done.err
    assert "axo delete pod one" in done.err
    assert sandbox.get("Deployment", "web") is None


def test_other_kinds_are_listed_once_with_their_count(axo: Axo, sandbox: Sandbox) -> None:
    account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: %s}}"
    maps = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}"
    done = axo(
        "apply", "-f", "-", stdin="\n---\n".join([account % "a", account % "b", maps, POD % ("a", "i")])
    )
    assert (done.code, done.out) == (0, "pod/one created\n")
    assert done.err.count("ignored") == 1
    assert "1 ConfigMap, 2 ServiceAccount" in done.err


def test_a_folder_and_folders_in_it(axo: Axo, sandbox: Sandbox, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "web.yaml").write_text(DEPLOYMENT % 1)
    (tmp_path / "notes.txt").write_text("not: [yaml")
    (inner / "pod.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": []}))
    (inner / "one.yml").write_text(POD % ("one", "i"))
    assert axo("apply", "-f", str(tmp_path)).lines == ["deployment.apps/web created"]
    assert axo("apply", "-R", "-f", str(tmp_path)).lines == [
        "pod/one created",
        "deployment.apps/web unchanged",
    ]
    assert axo("apply", "-f", str(tmp_path / "none")).code == 2


def test_namespaces(axo: Axo, sandbox: Sandbox) -> None:
    assert axo("apply", "-n", "shop", "-f", "-", stdin=POD % ("one", "i")).code == 0
    assert sandbox.get("Pod", "one", "shop") is not None
    elsewhere = (POD % ("one", "i")).replace("name: one", "name: one, namespace: town")
    done = axo("apply", "-n", "shop", "-f", "-", stdin=elsewhere)
    assert done.code == 1
    assert "metadata.namespace" in done.err


def test_a_trial_run_changes_nothing(axo: Axo, sandbox: Sandbox) -> None:
    done = axo("apply", "--dry-run", "-f", "-", stdin=POD % ("one", "i"))
    assert done.out == "pod/one created (dry run)\n"
    assert sandbox.get("Pod", "one") is None


def test_what_was_got_can_be_applied(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=DEPLOYMENT % 2)
    written = axo("get", "deploy", "web", "-o", "yaml").out
    assert axo("apply", "-f", "-", stdin=written).out == "deployment.apps/web unchanged\n"


# ---- delete --------------------------------------------------------------------------------------------


def test_delete_by_name_and_by_file(axo: Axo, sandbox: Sandbox) -> None:
    axo("apply", "-f", "-", stdin=f"{DEPLOYMENT % 2}---{POD % ('one', 'i')}")
    assert axo("delete", "pod", "one").out == 'pod "one" deleted\n'
    done = axo("delete", "-f", "-", stdin=f"{DEPLOYMENT % 2}---{POD % ('one', 'i')}")
    assert done.out == 'deployment.apps "web" deleted\n'
    assert done.code == 1
    assert '"one" not found' in done.err
    assert axo("delete", "pod", "one", "--ignore-not-found").code == 0


def test_a_pod_on_a_node_is_left_to_the_node(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    assert axo("delete", "pod", "web-1", "--no-wait", "--grace-period", "4").code == 0
    metadata = sandbox.need("Pod", "web-1")["metadata"]
    assert metadata["deletionTimestamp"]
    assert metadata["deletionGracePeriodSeconds"] == 4
    late = axo("delete", "pod", "web-1", "--timeout", "0.01")
    assert late.code == 1
    assert "still there" in late.err


def test_namespaces_go_last(axo: Axo, sandbox: Sandbox) -> None:
    text = f"{{apiVersion: v1, kind: Namespace, metadata: {{name: shop}}}}\n---{POD % ('one', 'i')}"
    axo("apply", "-f", "-", stdin=text)
    assert axo("delete", "-f", "-", stdin=text).lines == ['pod "one" deleted', 'namespace "shop" deleted']


def test_deleting_much_must_be_meant(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    assert axo("delete", "pods").code == 2
    assert axo("delete").code == 2
    assert sandbox.get("Pod", "web-1") is not None
    assert axo("delete", "pods", "-l", "app=nobody").err == "No resources found.\n"
    assert axo("delete", "pods", "--all", "--no-wait").out == 'pod "web-1" deleted\n'


def test_what_belongs_to_the_sandbox_cannot_be_deleted(axo: Axo, sandbox: Sandbox) -> None:
    sandbox.put({"kind": "Node", "metadata": {"name": "node1"}})
    sandbox.put({"kind": "Namespace", "metadata": {"name": "default"}})
    for words in (("node", "node1"), ("ns", "default"), ("endpoints", "--all")):
        assert axo("delete", *words).code == 1, words
    assert sandbox.get("Node", "node1", "") is not None
    assert sandbox.get("Namespace", "default", "") is not None


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {%s selector: {app: web}, ports: [{port: 80}]}
"""


def test_a_service_has_its_address_when_apply_returns(axo: Axo, sandbox: Sandbox) -> None:
    planfile.save(Plan(name="default"), sandbox.layout)
    assert axo("apply", "-f", "-", stdin=SERVICE % ("web", "")).code == 0
    before = sandbox.need("Service", "web")["spec"]
    assert before["clusterIP"].startswith("10.96.")
    assert axo("apply", "-f", "-", stdin=SERVICE % ("web", "")).out == "service/web unchanged\n"
    changed = axo("apply", "-f", "-", stdin=SERVICE % ("web", "type: NodePort,"))
    assert changed.out == "service/web configured\n"
    after = sandbox.need("Service", "web")["spec"]
    assert after["clusterIP"] == before["clusterIP"]
    assert 30000 <= after["ports"][0]["nodePort"] <= 32767


def test_an_address_that_another_service_has_is_refused_and_nothing_is_written(
    axo: Axo, sandbox: Sandbox
) -> None:
    planfile.save(Plan(name="default"), sandbox.layout)
    axo("apply", "-f", "-", stdin=SERVICE % ("one", "clusterIP: 10.96.0.77,"))
    both = f"{SERVICE % ('two', '')}---{SERVICE % ('three', 'clusterIP: 10.96.0.77,')}"
    done = axo("apply", "-f", "-", stdin=both)
    assert done.code == 1
    for words in ("Service default/three", "spec.clusterIPs[0]", "10.96.0.77", "service default/one has it"):
        assert words in done.err
    assert sandbox.get("Service", "two") is None
