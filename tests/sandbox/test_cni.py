"""The CNI plugin as a runtime runs it: the program, a real agent, real network namespaces."""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from one_node import Node, node
from two_nodes import inside

import axoneme.cni
from axoneme.cni.request import VERSIONS

PLUGIN = Path(axoneme.cni.__file__).parent / "bin" / "axo-cni"
ONLY_FRIENDS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "only-friends", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    },
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Node]:
    with node(cni_socket="FOLDER/cni.sock", cni_config="FOLDER/net.d/05-axoneme.conflist") as made:
        made.start()
        yield made


class Runtime:
    """Asks as a container runtime does."""

    def __init__(self, agent: Node) -> None:
        self.agent = agent
        self.socket = str(agent.folder / "cni.sock")

    def ask(
        self,
        command: str,
        container: str = "",
        netns: str | Path = "",
        ifname: str = "eth0",
        args: str = "",
        **config: Any,
    ) -> tuple[int, Any]:
        """Exit code and answer."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": "/opt/cni/bin",
        }
        network = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "axo-cni",
            "socket": self.socket,
            "timeout": 5,
        }
        done = subprocess.run(
            [PLUGIN],
            input=json.dumps(network | config).encode(),
            env={key: value for key, value in environment.items() if value},
            capture_output=True,
            check=False,
        )
        assert not done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def add(self, container: str, netns: Path, **more: Any) -> Any:
        code, result = self.ask("ADD", container, netns, **more)
        assert code == 0, result
        return result

    def remove(self, container: str) -> None:
        assert self.ask("DEL", container) == (0, None)


@pytest.fixture
def runtime(agent: Node) -> Iterator[Runtime]:
    made = Runtime(agent)
    yield made
    assert made.ask("GC", **{"cni.dev/valid-attachments": []}) == (0, None)
    assert agent.client.call("endpoint.list") == []


def links(agent: Node) -> set[str]:
    with inside(agent.namespace):
        return {name for _, name in socket.if_nameindex() if name.startswith("axo") and name != "axo_overlay"}


def reaches(source: Path, address: str) -> bool:
    with inside(source):
        client = socket.socket()
    with client:
        client.settimeout(1)
        try:
            client.connect((address, 80))
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize("version", VERSIONS)
def test_a_container_is_added_checked_and_removed(agent: Node, runtime: Runtime, version: str) -> None:
    netns = agent.namespaces.add(f"v{version.replace('.', '')}")
    result = runtime.add("c1", netns, cniVersion=version)
    assert result["cniVersion"] == version
    host, inner = result["interfaces"]
    assert host["name"] in links(agent) and inner["name"] == "eth0" and inner["sandbox"] == str(netns)
    assert [ip_interface(each["address"]).version for each in result["ips"]] == [4, 6]
    assert all(each["interface"] == 1 for each in result["ips"])
    assert ("version" in result["ips"][0]) == version.startswith("0.")
    assert ("mtu" in inner) == (version == "1.1.0")
    with inside(netns):
        shown = subprocess.run(["ip", "-j", "addr", "show", "eth0"], capture_output=True, check=True).stdout
    there = {each["local"] for each in json.loads(shown)[0]["addr_info"]}
    assert {str(ip_interface(each["address"]).ip) for each in result["ips"]} <= there
    assert runtime.add("c1", netns, cniVersion=version) == result, "a retried ADD is answered as the first"
    assert runtime.ask("CHECK", "c1", netns, prevResult=result, cniVersion=version) == (0, None)
    runtime.remove("c1")
    runtime.remove("c1")
    code, error = runtime.ask("CHECK", "c1", netns, prevResult=result)
    assert (code, error["code"]) == (1, 3)


def test_policies_hold_between_containers(agent: Node, runtime: Runtime) -> None:
    places = {name: agent.namespaces.add(name) for name in ("web", "friend", "stranger")}
    results = {name: runtime.add(name, places[name], labels={"app": name}) for name in ("web", "friend")}
    results["stranger"] = runtime.add(
        "stranger", places["stranger"], args="IgnoreUnknown=1;AXO_LABELS=app=stranger"
    )
    web = str(ip_interface(results["web"]["ips"][0]["address"]).ip)
    assert reaches(places["friend"], web) and reaches(places["stranger"], web)
    since = agent.write({"objects/NetworkPolicy/default/only-friends": ONLY_FRIENDS})
    agent.wait_for_policies(1, since)
    assert reaches(places["friend"], web) and not reaches(places["stranger"], web)
    labels = {each["pod"]: each["labels"] for each in agent.client.call("endpoint.list")}
    assert "k8s:app=stranger" in labels["stranger"]


def test_check_names_what_is_broken(agent: Node, runtime: Runtime) -> None:
    netns = agent.namespaces.add("broken")
    result = runtime.add("c2", netns)
    other = json.loads(json.dumps(result).replace("10.244.", "10.99."))
    code, error = runtime.ask("CHECK", "c2", netns, prevResult=other)
    assert (code, error["code"]) == (1, 101) and "prevResult gives it 10.99." in error["msg"]
    with inside(agent.namespace):
        subprocess.run(["ip", "link", "del", result["interfaces"][0]["name"]], check=True)
    code, error = runtime.ask("CHECK", "c2", netns, prevResult=result)
    assert code == 1 and "has gone" in error["msg"]
    runtime.remove("c2")


def test_gc_leaves_what_is_valid_and_other_networks(agent: Node, runtime: Runtime) -> None:
    for name, network in (("keep", "net"), ("lost", "net"), ("foreign", "other")):
        runtime.add(name, agent.namespaces.add(name), name=network)
    valid = [{"containerID": "keep", "ifname": "eth0"}]
    assert runtime.ask("GC", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert {each["pod"] for each in agent.client.call("endpoint.list")} == {"keep", "foreign"}
    runtime.remove("foreign")


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        ({"command": "ADD"}, 4, "CNI_CONTAINERID is missing"),
        ({"command": "ADD", "container": "c", "netns": "/nowhere"}, 100, "/nowhere does not exist"),
        ({"command": "ADD", "container": "../c", "netns": "/x"}, 4, "CNI_CONTAINERID is '../c'"),
        ({"command": "ADD", "container": "c", "netns": "/x", "ifname": "a/b"}, 4, "CNI_IFNAME is 'a/b'"),
        ({"command": "ADD", "container": "c", "netns": "/x", "args": "x"}, 4, "CNI_ARGS: 'x' is no pair"),
        (
            {"command": "ADD", "container": "c", "netns": "/x", "cniVersion": "2.0.0"},
            1,
            "cniVersion is '2.0.0'",
        ),
        ({"command": "ADD", "container": "c", "netns": "/x", "name": ""}, 7, "has no name"),
        ({"command": "ADD", "container": "c", "netns": "/x", "labels": 1}, 7, "labels"),
        ({"command": "ADD", "container": "c", "netns": "/x", "prevResult": {}}, 7, "prevResult is there"),
        ({"command": "GC"}, 7, "cni.dev/valid-attachments is missing"),
        ({"command": "FLY"}, 4, "CNI_COMMAND is 'FLY'"),
    ],
)
def test_what_is_wrong_is_said_with_the_specifications_code(
    runtime: Runtime, ask: dict[str, Any], code: int, message: str
) -> None:
    status, error = runtime.ask(**ask)
    assert status == 1
    assert error["code"] == code and message in error["msg"]


def test_the_version_needs_no_agent_and_status_tells_of_it(runtime: Runtime) -> None:
    found = runtime.ask("VERSION", socket="/nowhere.sock")
    assert found[0] == 0 and tuple(found[1]["supportedVersions"]) == VERSIONS
    assert runtime.ask("STATUS") == (0, None)


def test_no_agent_is_waited_for_but_not_for_ever(runtime: Runtime) -> None:
    status, error = runtime.ask("ADD", "c", "/x", socket="/run/nobody.sock", timeout=0.1, cniVersion="1.0.0")
    assert status == 1
    assert error == {
        "cniVersion": "1.0.0",
        "code": 11,
        "msg": "the agent does not answer",
        "details": "waited for /run/nobody.sock: No such file or directory; is axoneme-agent running?",
    }


def test_runtimes_find_the_configuration(agent: Node, runtime: Runtime) -> None:
    found = json.loads((agent.folder / "net.d" / "05-axoneme.conflist").read_text())
    assert found["plugins"] == [{"type": "axo-cni", "socket": runtime.socket}]
    assert Path(runtime.socket).stat().st_mode & 0o777 == 0o600


def test_containers_in_random_order_with_the_agent_killed(agent: Node, runtime: Runtime) -> None:
    """Whoever asks while there is no agent waits for the next one; in the end nothing is left."""
    chance = random.Random(7)
    places = {f"r{number}": agent.namespaces.add(f"r{number}") for number in range(12)}
    there: set[str] = set()
    for turn in range(60):
        if turn % 10 == 5:
            agent.kill()
            agent.start()
        name = chance.choice(sorted(places))
        if name in there:
            runtime.remove(name)
            there.discard(name)
        else:
            runtime.add(name, places[name], labels={"app": name[-1]})
            there.add(name)
        assert {each["pod"] for each in agent.client.call("endpoint.list")} == there
    for name in there:
        runtime.remove(name)
    agent.kill()
    agent.start()
    assert links(agent) == set()
