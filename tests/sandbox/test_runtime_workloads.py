"""Workloads become pods as in a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime import Document, Runtime, addresses, ready, sandbox

TEMPLATE = """
    metadata: {{labels: {{app: {app}}}}}
    spec: {{containers: [{{name: main, image: "{image}", ports: [{{containerPort: 80}}]}}]}}
"""


def workload(kind: str, name: str, replicas: int = 2, image: str = "v1", **spec: object) -> str:
    version = "batch/v1" if kind == "Job" else "apps/v1"
    count = "" if kind in {"DaemonSet", "Job"} else f"replicas: {replicas}"
    more = "\n  ".join(f"{field}: {value}" for field, value in spec.items())
    return f"""
apiVersion: {version}
kind: {kind}
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  {count}
  {more}
  template:{TEMPLATE.format(app=name, image=image)}
"""


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with sandbox("workloads") as made:
        yield made


def ready_pods(runtime: Runtime, app: str, count: int) -> list[Document]:
    def found() -> list[Document] | None:
        pods = runtime.pods(app=app)
        return pods if len(pods) == count and all(map(ready, pods)) else None

    return runtime.wait(found, f"{app} has {count} ready pods")


def gone(runtime: Runtime, app: str) -> None:
    runtime.wait(
        lambda: not any(pod["metadata"].get("labels", {}).get("app") == app for pod in runtime.every("Pod")),
        f"the pods of {app} are gone",
    )


def image(pod: Document) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def test_a_deployment_has_a_replica_set_and_pods_that_scale_and_change(runtime: Runtime) -> None:
    runtime.apply(workload("Deployment", "web"))
    pods = ready_pods(runtime, "web", 2)
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node1", "node2"}
    (replica_set,) = [each for each in runtime.every("ReplicaSet") if "web-" in each["metadata"]["name"]]
    version = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert all(pod["metadata"]["labels"]["pod-template-hash"] == version for pod in pods)
    assert all(pod["metadata"]["name"].startswith(f"web-{version}-") for pod in pods)
    assert all(pod["spec"]["serviceAccountName"] == "default" for pod in pods)
    owner = pods[0]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("ReplicaSet", replica_set["metadata"]["uid"])

    runtime.change("Deployment", "web", lambda web: web["spec"].update(replicas=5))
    kept = {pod["metadata"]["name"] for pod in pods}
    assert kept <= {pod["metadata"]["name"] for pod in ready_pods(runtime, "web", 5)}
    runtime.change("Deployment", "web", lambda web: web["spec"].update(replicas=1))
    ready_pods(runtime, "web", 1)
    runtime.wait(
        lambda: (runtime.get("Deployment", "web") or {})["status"]["readyReplicas"] == 1, "its status follows"
    )

    runtime.apply(workload("Deployment", "web", 1, "v2"))
    runtime.wait(lambda: {image(pod) for pod in runtime.pods(app="web")} == {"v2"}, "all pods are new")
    runtime.delete("Deployment", "web")
    gone(runtime, "web")
    assert not [each for each in runtime.every("ReplicaSet") if "web-" in each["metadata"]["name"]]


def test_a_pod_that_is_deleted_is_replaced(runtime: Runtime) -> None:
    runtime.apply(workload("ReplicaSet", "kept", 1))
    (first,) = ready_pods(runtime, "kept", 1)
    runtime.delete("Pod", first["metadata"]["name"])
    (second,) = runtime.wait(
        lambda: [
            pod for pod in runtime.pods(app="kept") if pod["metadata"]["uid"] != first["metadata"]["uid"]
        ],
        "another pod",
    )
    assert second["metadata"]["name"] != first["metadata"]["name"]
    runtime.delete("ReplicaSet", "kept")
    gone(runtime, "kept")


def test_a_stateful_set_names_its_pods_and_keeps_the_order(runtime: Runtime) -> None:
    runtime.apply(workload("StatefulSet", "db", 3, serviceName="db"))
    pods = ready_pods(runtime, "db", 3)
    assert [pod["metadata"]["name"] for pod in pods] == ["db-0", "db-1", "db-2"]
    labels = pods[1]["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert labels["apps.kubernetes.io/pod-index"] == "1"
    uid = pods[1]["metadata"]["uid"]
    runtime.change(
        "Pod", "db-1", lambda pod: pod["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
    )
    runtime.wait(
        lambda: ready(again := runtime.get("Pod", "db-1")) and again and again["metadata"]["uid"] != uid,
        "db-1 is another one",
    )
    runtime.apply(workload("StatefulSet", "db", 3, "v2", serviceName="db"))
    runtime.wait(
        lambda: [image(pod) for pod in runtime.pods(app="db") if ready(pod)] == ["v2"] * 3, "all pods are new"
    )
    runtime.change("StatefulSet", "db", lambda db: db["spec"].update(replicas=1))
    ready_pods(runtime, "db", 1)
    assert runtime.get("Pod", "db-0")
    runtime.delete("StatefulSet", "db")
    gone(runtime, "db")


def test_a_daemon_set_has_one_pod_on_each_node_that_it_selects(runtime: Runtime) -> None:
    runtime.apply(workload("DaemonSet", "each"))
    pods = ready_pods(runtime, "each", 2)
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node1", "node2"]
    assert "controller-revision-hash" in pods[0]["metadata"]["labels"]
    select = {"kubernetes.io/hostname": "node2"}
    runtime.change(
        "DaemonSet", "each", lambda each: each["spec"]["template"]["spec"].update(nodeSelector=select)
    )
    runtime.wait(
        lambda: [pod["spec"]["nodeName"] for pod in runtime.pods(app="each") if ready(pod)] == ["node2"],
        "only node2 has one",
    )
    runtime.delete("DaemonSet", "each")
    gone(runtime, "each")


def test_a_job_runs_until_enough_have_succeeded(runtime: Runtime, tmp_path: Path) -> None:
    runtime.apply(f"""
apiVersion: batch/v1
kind: Job
metadata: {{name: count}}
spec:
  completions: 3
  parallelism: 2
  template:
    metadata: {{labels: {{app: count}}}}
    spec:
      restartPolicy: Never
      containers: [{{name: main, image: x, command: [sh, -c, "echo one >> {tmp_path}/done"]}}]
---
apiVersion: batch/v1
kind: Job
metadata: {{name: fail}}
spec:
  backoffLimit: 1
  template:
    metadata: {{labels: {{app: fail}}}}
    spec: {{restartPolicy: Never, containers: [{{name: main, image: x, command: ["false"]}}]}}
""")

    def ending(name: str) -> Document | None:
        conditions = (runtime.get("Job", name) or {}).get("status", {}).get("conditions", [])
        return conditions[0] if conditions else None

    assert runtime.wait(lambda: ending("count"), "the job ends")["type"] == "Complete"
    assert (tmp_path / "done").read_text().split() == ["one"] * 3
    job = runtime.get("Job", "count")
    assert job is not None
    assert (job["status"]["succeeded"], "completionTime" in job["status"]) == (3, True)
    assert len(runtime.pods(**{"batch.kubernetes.io/job-name": "count"})) == 3
    failed = runtime.wait(lambda: ending("fail"), "the other job fails")
    assert (failed["type"], failed["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert len(runtime.pods(app="fail")) == 2
    for name in ("count", "fail"):
        runtime.delete("Job", name)
        gone(runtime, name)


def test_a_namespace_is_made_when_it_is_used_and_takes_all_along_when_it_goes(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: settler, namespace: new-land}
spec: {containers: [{name: main, image: x}]}
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "settler", "new-land")), "the pod is ready")
    namespace = runtime.get("Namespace", "new-land")
    assert namespace is not None
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "new-land"}
    runtime.delete("Namespace", "new-land")
    runtime.wait(lambda: runtime.get("Pod", "settler", "new-land") is None, "the pod is gone")
    assert runtime.get("Namespace", "new-land") is None


def test_node_name_and_node_selector_are_kept(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: here}
spec: {nodeName: node2, containers: [{name: main, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: selected}
spec: {nodeSelector: {kubernetes.io/hostname: node2}, containers: [{name: main, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec: {nodeSelector: {disk: ssd}, containers: [{name: main, image: x}]}
""")
    for name in ("here", "selected"):
        runtime.wait(lambda name=name: ready(runtime.get("Pod", name)), f"{name} is ready")  # type: ignore[misc]
        pod = runtime.pod(name)
        assert pod["spec"]["nodeName"] == "node2"
        assert pod["status"]["hostIP"] == "172.31.0.2"
        assert addresses(pod)[0].startswith("10.244.2.")

    def complaint() -> str | None:
        conditions = runtime.pod("nowhere").get("status", {}).get("conditions", [])
        return conditions[0]["message"] if conditions else None

    assert runtime.wait(complaint, "it says why it waits") == "0/2 nodes match the node selector disk=ssd"
    runtime.change("Node", "node1", lambda node: node["metadata"]["labels"].update(disk="ssd"))
    runtime.wait(lambda: ready(runtime.get("Pod", "nowhere")), "it runs once a node has the label")
    for name in ("here", "selected", "nowhere"):
        runtime.delete("Pod", name)


def test_an_object_that_is_none_hurts_nobody(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: broken}
spec: {containers: [{name: main, image: x, ports: [{containerPort: many}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: fine}
spec: {containers: [{name: main, image: x, ports: }]}
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "fine")), "the other pod is ready")
    assert "Pod default/broken cannot be used: Expected `int`, got `str`" in runtime.log()
    runtime.delete("Pod", "broken")
    runtime.delete("Pod", "fine")


def test_a_status_that_somebody_replaces_is_mended(runtime: Runtime) -> None:
    runtime.apply("""
apiVersion: v1
kind: Pod
metadata: {name: robbed}
spec: {containers: [{name: main, image: x}]}
""")
    runtime.wait(lambda: ready(runtime.get("Pod", "robbed")), "the pod is ready")
    runtime.change("Pod", "robbed", lambda pod: pod.update(status={}))
    runtime.wait(lambda: ready(runtime.get("Pod", "robbed")), "the pod says so again")
    runtime.delete("Pod", "robbed")
