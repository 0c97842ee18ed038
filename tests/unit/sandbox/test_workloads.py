"""The controllers' pure cores: whatever they start from, they come to what was asked, and then rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.sandbox import scheduler
from axoneme.sandbox.objects import (
    DaemonSet,
    Deployment,
    Job,
    Node,
    ObjectKey,
    Pod,
    ReplicaSet,
    StatefulSet,
    read,
)
from axoneme.sandbox.workloads import daemonset, deployment, job, replicaset, statefulset
from axoneme.sandbox.workloads.changes import Changes, Surroundings

SPEC = {"containers": [{"name": "c", "image": "i"}]}
TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": SPEC}


def surroundings() -> Surroundings:
    numbers = itertools.count()
    return Surroundings(
        now="2026-01-01T00:00:00Z",
        suffix=lambda: f"{next(numbers):05d}",
        uid=lambda: f"uid-{next(numbers)}",
    )


def document(kind: str, **spec: object) -> bytes:
    metadata = {
        "name": "a",
        "namespace": "default",
        "uid": "owner",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return msgspec.json.encode({"kind": kind, "metadata": metadata, "spec": {"template": TEMPLATE, **spec}})


class World:
    """Pods as a kubelet would have them: made, ready, ended."""

    def __init__(self) -> None:
        self.pods: dict[ObjectKey, dict[str, object]] = {}
        self.most = 0

    def list(self) -> list[Pod]:
        return [read(msgspec.json.encode(pod), Pod) for pod in self.pods.values()]

    def apply(self, changes: Changes, phase: str = "Running", node: str = "node1") -> None:
        for new in changes.create:
            assert new.key not in self.pods
            pod = msgspec.json.decode(new.document)
            pod["spec"].setdefault("nodeName", node)
            self.pods[new.key] = pod
            self.set(new.key, phase)
        for gone in changes.delete:
            del self.pods[gone]
        self.most = max(self.most, len(self.pods))

    def set(self, key: ObjectKey, phase: str) -> None:
        ready = "True" if phase == "Running" else "False"
        self.pods[key]["status"] = {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}


def settle(world: World, reconcile: Callable[[], Changes], phase: str = "Running") -> Changes:
    for _ in range(60):
        changes = reconcile()
        if not (changes.create or changes.delete or changes.set):
            return changes
        world.apply(changes, phase)
    raise AssertionError("it does not come to rest")


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["Running", "Pending", "Succeeded", "Failed"]))),
)
def test_replica_set_comes_to_its_number_and_rests(
    numbers: Sequence[int], upsets: Iterable[tuple[int, str]]
) -> None:
    world, around = World(), surroundings()
    for number in numbers:
        workload = read(document("ReplicaSet", replicas=number), ReplicaSet)
        settle(world, lambda workload=workload: replicaset.reconcile(workload, world.list(), around))  # type: ignore[misc]
        assert len(world.pods) == number
        for place, phase in upsets:
            if world.pods:
                world.set(list(world.pods)[place % len(world.pods)], phase)
        settle(world, lambda workload=workload: replicaset.reconcile(workload, world.list(), around))  # type: ignore[misc]
        assert len([pod for pod in world.list() if not pod.finished]) == number == len(world.pods)


def test_too_many_pods_lose_the_unready_then_the_youngest() -> None:
    def pod(name: str, made: int, ready: bool) -> Pod:
        return read(
            msgspec.json.encode(
                {
                    "metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:{made:02d}Z"},
                    "spec": {"nodeName": "node1"},
                    "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
                }
            ),
            Pod,
        )

    pods = [pod("old", 1, True), pod("young", 9, True), pod("sick", 3, False), pod("middle", 5, True)]
    order = [each.metadata.name for each in replicaset.least_useful_first(pods)]
    assert order == ["sick", "young", "middle", "old"]


def test_deployment_brings_the_new_version_up_before_the_old_goes() -> None:
    around = surroundings()
    old = read(document("Deployment", replicas=2), Deployment)
    (made,) = deployment.reconcile(old, [], around).create

    def ready(replica_set: bytes, count: int) -> ReplicaSet:
        value = msgspec.json.decode(replica_set)
        value["status"] = {"replicas": 2, "readyReplicas": count}
        return read(msgspec.json.encode(value), ReplicaSet)

    template = msgspec.json.decode(msgspec.json.encode(TEMPLATE)) | {"metadata": {"labels": {"app": "b"}}}
    new = read(document("Deployment", replicas=2, template=template), Deployment)
    owned = [ready(made.document, 2)]
    first = deployment.reconcile(new, owned, around)
    assert first.delete == ()
    (second,) = first.create
    assert second.key.name != made.key.name
    assert deployment.reconcile(new, [*owned, ready(second.document, 1)], around).delete == ()
    assert deployment.reconcile(new, [*owned, ready(second.document, 2)], around).delete == (made.key,)
    recreate = read(document("Deployment", template=template, strategy={"type": "Recreate"}), Deployment)
    assert deployment.reconcile(recreate, owned, around).delete == (made.key,)


@given(st.integers(0, 6), st.integers(0, 6), st.booleans(), st.integers(0, 5))
def test_stateful_set_names_and_order(before: int, after: int, parallel: bool, start: int) -> None:
    world, around = World(), surroundings()
    policy = "Parallel" if parallel else "OrderedReady"
    for number in (before, after):
        spec = {"replicas": number, "podManagementPolicy": policy, "ordinals": {"start": start}}
        workload = read(document("StatefulSet", **spec), StatefulSet)

        def step(workload: StatefulSet = workload) -> Changes:
            changes = statefulset.reconcile(workload, world.list(), around)
            if not parallel:
                assert len(changes.create) <= 1
                assert len(changes.delete) <= 1
            return changes

        settle(world, step)
        assert [pod.metadata.name for pod in world.list()] == [f"a-{start + each}" for each in range(number)]


def test_stateful_set_waits_for_the_one_before() -> None:
    world, around = World(), surroundings()
    workload = read(document("StatefulSet", replicas=3), StatefulSet)
    world.apply(statefulset.reconcile(workload, world.list(), around), "Pending")
    assert not statefulset.reconcile(workload, world.list(), around).create
    world.set(ObjectKey("Pod", "default", "a-0"), "Running")
    (second,) = statefulset.reconcile(workload, world.list(), around).create
    assert second.key.name == "a-1"


def test_a_changed_template_replaces_stateful_pods_one_at_a_time_from_the_end() -> None:
    world, around = World(), surroundings()
    settle(
        world,
        lambda: statefulset.reconcile(
            read(document("StatefulSet", replicas=3), StatefulSet), world.list(), around
        ),
    )
    template = TEMPLATE | {"metadata": {"labels": {"app": "a", "version": "2"}}}
    workload = read(document("StatefulSet", replicas=3, template=template), StatefulSet)
    order: list[str] = []

    def step() -> Changes:
        changes = statefulset.reconcile(workload, world.list(), around)
        order.extend(key.name for key in changes.delete)
        return changes

    settle(world, step)
    assert order == ["a-2", "a-1", "a-0"]
    assert all(pod.metadata.labels["version"] == "2" for pod in world.list())


def nodes(**labels: dict[str, str]) -> list[Node]:
    return [
        read(msgspec.json.encode({"metadata": {"name": name, "labels": each}}), Node)
        for name, each in labels.items()
    ]


def test_daemon_set_has_one_pod_on_each_node_that_admits_it() -> None:
    world, around = World(), surroundings()
    workload = read(document("DaemonSet"), DaemonSet)
    both = nodes(one={"disk": "ssd"}, two={})
    changes = settle(world, lambda: daemonset.reconcile(workload, world.list(), both, around))
    assert sorted(pod.spec.node_name for pod in world.list()) == ["one", "two"]
    assert changes.status is not None
    spec = {**SPEC, "nodeSelector": {"disk": "ssd"}}
    chosen = read(document("DaemonSet", template={**TEMPLATE, "spec": spec}), DaemonSet)
    settle(world, lambda: daemonset.reconcile(chosen, world.list(), both, around))
    assert [pod.spec.node_name for pod in world.list()] == ["one"]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.lists(st.booleans(), max_size=20))
def test_job_stops_when_enough_have_succeeded_or_too_many_failed(
    completions: int, parallelism: int, limit: int, outcomes: Sequence[bool]
) -> None:
    world, around = World(), surroundings()
    spec = {"completions": completions, "parallelism": parallelism, "backoffLimit": limit}
    workload = read(document("Job", **spec), Job)
    fates = iter([*outcomes, *[True] * 40])
    for _ in range(60):
        changes = job.reconcile(workload, world.list(), around)
        assert isinstance(changes.status, msgspec.Struct)
        conditions = msgspec.to_builtins(changes.status).get("conditions")
        world.apply(changes)
        active = [pod.key for pod in world.list() if not pod.finished]
        if conditions:
            break
        assert len(active) <= parallelism
        if active:
            world.set(active[0], "Succeeded" if next(fates) else "Failed")
    succeeded = sum(pod.status.phase == "Succeeded" for pod in world.list())
    failed = sum(pod.status.phase == "Failed" for pod in world.list())
    assert not active
    if conditions[0]["type"] == "Complete":
        assert succeeded == completions
        assert failed <= limit
    else:
        assert failed == limit + 1


def test_scheduler_spreads_a_workload_before_it_balances_all() -> None:
    def pod(owner: str, node: str = "") -> Pod:
        reference = {"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}
        metadata = {"name": "p", "ownerReferences": [reference]}
        return read(msgspec.json.encode({"metadata": metadata, "spec": {"nodeName": node}}), Pod)

    both = nodes(one={}, two={})
    assert scheduler.choose(pod("a"), both, []) == "one"
    assert scheduler.choose(pod("a"), both, [pod("b", "one")]) == "two"
    assert scheduler.choose(pod("a"), both, [pod("a", "one"), pod("b", "two"), pod("b", "two")]) == "two"


def test_scheduler_says_why_there_is_no_node() -> None:
    pod = read(b'{"metadata":{"name":"p"},"spec":{"nodeSelector":{"disk":"ssd"}}}', Pod)
    with pytest.raises(scheduler.Unschedulable, match="0/1 nodes match the node selector disk=ssd"):
        scheduler.choose(pod, nodes(one={}), [])


def test_scheduler_gives_a_host_port_of_a_node_once() -> None:
    def wanting(protocol: str, host: int = 0, node: str = "", network: bool = False) -> Pod:
        port = {"containerPort": 53, "protocol": protocol, **({"hostPort": host} if host else {})}
        spec = {"containers": [{"name": "c", "ports": [port]}], "nodeName": node, "hostNetwork": network}
        return read(msgspec.json.encode({"metadata": {"name": "p"}, "spec": spec}), Pod)

    both = nodes(one={}, two={})
    there = [wanting("UDP", 53, "one")]
    assert scheduler.choose(wanting("UDP", 53), both, [*there, wanting("UDP", 0, "two")]) == "two"
    assert scheduler.choose(wanting("UDP", network=True), both, there) == "two"
    assert scheduler.choose(wanting("TCP", 53), both, [*there, wanting("UDP", 99, "two")]) == "one"
    with pytest.raises(scheduler.Unschedulable, match="0/2 nodes have the host ports 53/UDP free"):
        scheduler.choose(wanting("UDP", 53), both, [*there, wanting("UDP", 53, "two")])
