"""Real containers of podman on our network, by its CNI backend, with a policy between them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from machine import SERVE, machine, missing, network, plugin
from one_node import Node, node
from podman import Podman
from test_cni import ONLY_FRIENDS, links, reaches

lacking = missing("podman", "runc")
pytestmark = pytest.mark.skipif(bool(lacking), reason=lacking)
ROLES = ("web", "friend", "stranger")


@pytest.fixture(scope="module")
def agent() -> Iterator[Node]:
    with node(cni_socket="FOLDER/cni.sock") as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def podman(agent: Node) -> Iterator[Podman]:
    socket = agent.folder / "cni.sock"
    networks = {
        **{f"{role}.conflist": network(role, plugin(socket, labels={"app": role})) for role in ROLES},
        "plain.conflist": network("plain", plugin(socket)),
        "hasty.conflist": network("hasty", plugin(socket, timeout=0.5)),
        "tuned.conflist": network("tuned", plugin(socket), {"type": "tuning", "mac": "02:00:00:00:00:07"}),
    }
    with machine(agent.namespace, "podman", networks) as made:
        found = Podman(made)
        try:
            yield found
        finally:
            found.close()


def test_containers_talk_as_policies_allow(agent: Node, podman: Podman) -> None:
    for role in ROLES:
        podman.start(role, role, SERVE)
    places = {each["pod"]: each for each in agent.client.call("endpoint.list")}
    assert set(places) == set(ROLES), "a container's name is the pod's"

    def fetch(role: str, address: str) -> bool:
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 7000"
        return "hello" in podman.run("exec", role, "sh", "-c", ask, check=False)

    web = places["web"]["addresses"]
    deadline = time.monotonic() + 10
    while not all(fetch("friend", address) and fetch("stranger", address) for address in web):
        assert time.monotonic() < deadline, "the server does not listen"
    since = agent.write({"objects/NetworkPolicy/default/only-friends": ONLY_FRIENDS})
    agent.wait_for_policies(1, since)
    for address in web:
        assert fetch("friend", address)
        assert not fetch("stranger", address)
    assert reaches(agent.namespace, web[0]), "the node reaches its own"
    agent.kill()
    assert fetch("friend", web[0]), "the agent is not needed for that"
    agent.start()
    assert not fetch("stranger", web[0])
    podman.remove(*ROLES)
    assert agent.client.call("endpoint.list") == []
    assert links(agent) == set()


def test_a_container_without_labels_is_one_all_the_same(agent: Node, podman: Podman) -> None:
    podman.start("someone", "plain")
    found = agent.client.call("endpoint.list")
    assert [each["pod"] for each in found] == ["someone"]
    address = podman.inspect("someone")["NetworkSettings"]["Networks"]["plain"]["IPAddress"]
    assert address in found[0]["addresses"]
    podman.remove("someone")


def test_other_plugins_may_follow(agent: Node, podman: Podman) -> None:
    """tuning, of the CNI project, changes the MAC address; our CHECK has another opinion on that."""
    podman.start("tuned", "tuned")
    networks = podman.inspect("tuned")["NetworkSettings"]["Networks"]
    assert networks["tuned"]["MacAddress"] == "02:00:00:00:00:07"
    cached = list(podman.machine.path("/var/lib/cni/results").iterdir())
    assert json.loads(cached[0].read_text())["networkName"] == "tuned"
    podman.remove("tuned")
    assert agent.client.call("endpoint.list") == []


def test_a_container_that_went_without_an_agent_leaves_nothing(agent: Node, podman: Podman) -> None:
    """podman does not mind that DEL fails (code 11); the next agent finds the link gone."""
    podman.start("short", "hasty")
    agent.kill()
    podman.remove("short")
    assert podman.run("ps", "--all", "--quiet") == ""
    agent.start()
    assert agent.client.call("endpoint.list") == []
    assert links(agent) == set()
