"""Real pods of containerd on our network, by its CRI as a kubelet uses it, and containers of ``ctr``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from containerd import Containerd
from cri import CriError
from machine import IMAGE, SERVE, machine, missing, network, plugin
from one_node import Node, node
from test_cni import ONLY_FRIENDS, links, reaches

from axoneme.cni.request import ANNOTATIONS

lacking = missing("containerd", "ctr", "runc")
pytestmark = pytest.mark.skipif(bool(lacking), reason=lacking)


@pytest.fixture(scope="module")
def agent() -> Iterator[Node]:
    with node(cni_socket="FOLDER/cni.sock") as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def containerd(agent: Node) -> Iterator[Containerd]:
    ours = network("axoneme", plugin(agent.folder / "cni.sock", capabilities={ANNOTATIONS: True}))
    with machine(agent.namespace, "containerd", {"05-axoneme.conflist": ours}) as made:
        found = Containerd(made)
        try:
            yield found
        finally:
            found.close()


def test_pods_get_their_labels_from_annotations_or_objects(agent: Node, containerd: Containerd) -> None:
    containerd.start("web", {"axoneme.io/labels": "app=web"}, SERVE)
    with pytest.raises(CriError, match="there is no Pod default/friend: create it first"):
        containerd.start("friend", {})
    assert {each["pod"] for each in agent.client.call("endpoint.list")} == {"web"}
    labels = {"app": "friend"}
    pod = {"metadata": {"name": "friend", "namespace": "default", "uid": "uid-friend", "labels": labels}}
    agent.write({"objects/Pod/default/friend": pod})
    containerd.start("friend", {})
    containerd.start("stranger", {"axoneme.io/labels": "app=stranger"})
    found = {each["pod"]: each for each in agent.client.call("endpoint.list")}
    assert "k8s:app=friend" in found["friend"]["labels"]
    records = [json.loads(path.read_text()) for path in (agent.folder / "state" / "endpoints").iterdir()]
    namespaces = {
        record["state"]["pod"]: containerd.machine.path(record["namespace_path"])
        for record in records
        if "pod" in record["state"]  # the health endpoint is none
    }
    since = agent.write({"objects/NetworkPolicy/default/only-friends": ONLY_FRIENDS})
    agent.wait_for_policies(1, since)
    web = found["web"]["addresses"][0]
    assert reaches(namespaces["friend"], web)
    assert not reaches(namespaces["stranger"], web)
    for name in ("web", "friend", "stranger"):
        containerd.remove(name)
    assert agent.client.call("endpoint.list") == []
    assert links(agent) == set()


def test_ctr_runs_containers_with_its_network(agent: Node, containerd: Containerd) -> None:
    """``ctr run --cni`` reads /etc/cni/net.d and has no labels; it names the namespace by a process."""
    machine = containerd.machine
    containerd.ctr(
        "images", "import", "--snapshotter", "native", str(machine.folder / "containerd/image.tar")
    )
    command = ("ctr", "--address", str(machine.folder / "containerd/containerd.sock"), "run", "--cni", "--rm")
    options = ("--snapshotter", "native", "--cgroup", f"{machine.cgroup}/by-ctr")
    done = subprocess.run(
        machine.words(*command, *options, IMAGE, "by-ctr", "sh", "-c", "sleep 1; busybox ip addr show eth0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + containerd.log()
    assert "10.244." in done.stdout and "fd00:10:244:" in done.stdout
    assert agent.client.call("endpoint.list") == []
    assert links(agent) == set()
