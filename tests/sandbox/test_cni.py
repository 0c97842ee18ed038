"""The CNI plugin as a runtime runs it: the program, a real agent, real network namespaces."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from one_node import Node, node
from two_nodes import inside

import axoneme.cni
from axoneme.cni.request import VERSIONS
from axoneme.datapath.maps import Table
from axoneme.datapath.schema import Schema
from axoneme.net.commands import ip
from axoneme.net.pods import is_pod_link

PLUGIN = Path(axoneme.cni.__file__).parent / "bin" / "axo-cni"
OWN = "/proc/self/ns/net"  # another than the agent's, and what is wrong is found before it is used
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

    def remove(self, container: str, **more: Any) -> None:
        assert self.ask("DEL", container, **more) == (0, None)


@pytest.fixture
def runtime(agent: Node) -> Iterator[Runtime]:
    made = Runtime(agent)
    yield made
    assert made.ask("GC", **{"cni.dev/valid-attachments": []}) == (0, None)
    assert agent.client.call("endpoint.list") == []


def links(agent: Node) -> set[str]:
    with inside(agent.namespace):
        return {name for _, name in socket.if_nameindex() if is_pod_link(name)}


def endpoints(agent: Node) -> Table:
    schema = Schema.load()
    path = agent.folder / "bpf" / "maps" / "endpoints"
    return Table.pinned(path, schema.struct("address_key"), schema.struct("endpoint"))


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
    code, error = runtime.ask("CHECK", "c1", netns, prevResult=result, cniVersion=version)
    assert (code, error and error["code"]) == ((1, 1) if version.startswith("0.3") else (0, None))
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


def test_the_first_packet_arrives(agent: Node, runtime: Runtime) -> None:
    """Also the one that is sent the moment ADD returns: with nobody to send it again."""
    for number in range(20):
        netns = agent.namespaces.add(f"first{number}")
        with inside(netns):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with inside(agent.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            result = runtime.add(f"first{number}", netns)
            address = str(ip_interface(result["ips"][0]["address"]).ip)
            with receiver:
                receiver.settimeout(5)
                receiver.bind((address, 80))
                sender.sendto(b"to the pod", (address, 80))
                _, node_address = receiver.recvfrom(100)
                receiver.sendto(b"and back", node_address)
                sender.settimeout(5)
                assert sender.recv(100) == b"and back"
        runtime.remove(f"first{number}")


def test_check_names_what_is_broken(agent: Node, runtime: Runtime) -> None:
    netns = agent.namespaces.add("broken")
    result = runtime.add("c2", netns)
    host = result["interfaces"][0]["name"]
    address = result["ips"][0]["address"]

    def check(expected: str, **config: Any) -> None:
        code, error = runtime.ask(
            "CHECK", "c2", config.pop("netns", netns), **({"prevResult": result} | config)
        )
        assert (code, error["code"]) == (1, 101) and expected in error["msg"]

    check(
        "prevResult gives it 10.99.", prevResult=json.loads(json.dumps(result).replace("10.244.", "10.99."))
    )
    check("there is no eth0 inside", netns=agent.namespaces.add("another"))
    check("its network namespace /nowhere has gone", netns="/nowhere")
    ip([f"addr del {address} dev eth0"], netns)
    check(f"eth0 has no address {address.partition('/')[0]}")
    ip([f"addr add {address} dev eth0", "link set eth0 down"], netns)
    check("eth0 is down")
    ip([f"link del {host}"], agent.namespace)
    check(f"its link {host} has gone")
    result = runtime.add("c2", netns)  # a repeated ADD makes it anew
    assert runtime.ask("CHECK", "c2", netns, prevResult=result) == (0, None)
    runtime.remove("c2")


def test_check_mends_what_is_the_nodes_own(agent: Node, runtime: Runtime) -> None:
    netns = agent.namespaces.add("mended")
    result = runtime.add("c3", netns, labels={"app": "web"})
    host, address = result["interfaces"][0]["name"], result["ips"][0]["address"].partition("/")[0]
    with inside(agent.namespace):
        ifindex = socket.if_nametoindex(host)
    (agent.folder / "state" / "endpoints" / f"{host}.json").unlink()
    with endpoints(agent) as table:
        keys, values = table.read_all()
        assert table.delete(keys[values["ifindex"] == ifindex]) == 2
    ip([f"route del {address}"], agent.namespace)
    subprocess.run(
        ["nsenter", f"--net={agent.namespace}", "tc", "qdisc", "del", "dev", host, "clsact"], check=True
    )
    with pytest.raises(OSError, match="unreachable"):
        reaches(agent.namespace, address)
    assert runtime.ask("CHECK", "c3", netns, prevResult=result) == (0, None)
    assert reaches(agent.namespace, address)
    said = (agent.folder / "agent.log").read_text()
    for words in ("has no programs", f"does not know {address}", "record has gone", f"no route to {address}"):
        assert words in said
    agent.kill()
    agent.start()
    assert reaches(agent.namespace, address)
    runtime.remove("c3")


def test_what_lost_its_namespace_is_made_anew(agent: Node, runtime: Runtime) -> None:
    netns = agent.namespaces.add("again")
    first = runtime.add("c4", netns)
    subprocess.run(["ip", "netns", "del", netns.name], check=True)
    subprocess.run(["ip", "netns", "add", netns.name], check=True)
    second = runtime.add("c4", netns)
    assert runtime.ask("CHECK", "c4", netns, prevResult=second) == (0, None)
    assert second["interfaces"] == first["interfaces"]
    code, error = runtime.ask("ADD", "c4", netns, name="other")
    assert (code, error["code"]) == (1, 100) and "is of network net" in error["msg"]
    assert runtime.ask("DEL", "c4", netns, name="other") == (0, None), "nothing of that network is there"
    assert runtime.ask("CHECK", "c4", netns, prevResult=second) == (0, None)


def test_gc_leaves_what_is_valid_and_other_networks(agent: Node, runtime: Runtime) -> None:
    for name, network in (("keep", "net"), ("lost", "net"), ("foreign", "other")):
        runtime.add(name, agent.namespaces.add(name), name=network)
    valid = [{"containerID": "keep", "ifname": "eth0"}]
    assert runtime.ask("GC", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert {each["pod"] for each in agent.client.call("endpoint.list")} == {"keep", "foreign"}
    runtime.remove("foreign", name="other")


def test_gc_removes_what_nobody_accounts_for(agent: Node, runtime: Runtime) -> None:
    """Broken on purpose: a namespace gone without DEL, a link and an entry that no record names."""
    kept, gone = (runtime.add(name, agent.namespaces.add(name)) for name in ("kept", "gone"))
    subprocess.run(["ip", "netns", "del", agent.namespaces.path("gone").name], check=True)
    ip(["link add axodeadbeef type veth peer name nobody"], agent.namespace)
    with endpoints(agent) as table:
        keys, values = table.read_all()
        assert len(keys) == 6, "two of them the health endpoint's"
        keys[0]["address"] = 7
        table.write(keys[:1], values[:1])
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    assert runtime.ask("GC", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert {each["pod"] for each in agent.client.call("endpoint.list")} == {"kept"}
    assert links(agent) == {kept["interfaces"][0]["name"]}
    with endpoints(agent) as table:
        assert len(table.read_all()[0]) == 4
    code, error = runtime.ask("CHECK", "gone", "/gone", prevResult=gone)
    assert (code, error["code"]) == (1, 3)
    assert runtime.ask("CHECK", "kept", agent.namespaces.path("kept"), prevResult=kept) == (0, None)
    runtime.remove("kept")


def test_a_record_that_vanished_while_no_agent_ran(agent: Node, runtime: Runtime) -> None:
    """Whose container it is nobody knows then: it is cut off, and the runtime hears of it."""
    netns = agent.namespaces.add("unknown")
    result = runtime.add("unknown", netns)
    agent.kill()
    host = result["interfaces"][0]["name"]
    (agent.folder / "state" / "endpoints" / f"{host}.json").unlink()
    agent.start()
    assert links(agent) == set()
    code, error = runtime.ask("CHECK", "unknown", netns, prevResult=result)
    assert (code, error["code"]) == (1, 3)
    runtime.remove("unknown")
    again = runtime.add("unknown", netns)
    assert runtime.ask("CHECK", "unknown", netns, prevResult=again) == (0, None)
    runtime.remove("unknown")


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        ({"command": "ADD"}, 4, "CNI_CONTAINERID is missing"),
        ({"command": "ADD", "container": "c", "netns": "/nowhere"}, 4, "CNI_NETNS cannot be opened"),
        ({"command": "ADD", "container": "c", "netns": "/dev/null"}, 4, "CNI_NETNS is no network namespace"),
        ({"command": "CHECK", "container": "c", "netns": OWN}, 7, "prevResult is missing"),
        ({"command": "ADD", "container": "../c", "netns": OWN}, 4, "CNI_CONTAINERID is '../c'"),
        ({"command": "ADD", "container": "c", "netns": OWN, "ifname": "a/b"}, 4, "CNI_IFNAME is 'a/b'"),
        ({"command": "ADD", "container": "c", "netns": OWN, "args": "x"}, 4, "CNI_ARGS: 'x' is no pair"),
        (
            {"command": "ADD", "container": "c", "netns": OWN, "cniVersion": "2.0.0"},
            1,
            "cniVersion is '2.0.0'",
        ),
        ({"command": "ADD", "container": "c", "netns": OWN, "name": ""}, 7, "name is ''"),
        ({"command": "ADD", "container": "c", "netns": OWN, "labels": 1}, 7, "labels"),
        ({"command": "ADD", "container": "c", "netns": OWN, "lables": {"app": "web"}}, 2, 'lables is {"app"'),
        ({"command": "ADD", "container": "c", "netns": OWN, "timeout": "soon"}, 7, "timeout"),
        ({"command": "ADD", "container": "c", "netns": OWN, "socket": 1}, 7, "socket"),
        ({"command": "ADD", "container": "c", "netns": OWN, "prevResult": {}}, 7, "prevResult is there"),
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


def test_the_version_is_told_in_the_version_asked_in(runtime: Runtime) -> None:
    assert runtime.ask("VERSION", cniVersion="0.4.0")[1]["cniVersion"] == "0.4.0"
    assert runtime.ask("VERSION", cniVersion='1"x')[1]["cniVersion"] == "1.1.0"


@pytest.mark.parametrize(
    ("environment", "text", "code"),
    [
        ({}, b"{}", 4),
        ({"CNI_COMMAND": "ADD"}, b"x" * 10_000_000, 7),
        ({"CNI_COMMAND": "VERSION"}, b"x" * 10_000_000, 7),
        ({"CNI_COMMAND": "DEL"}, b'{"socket":"/a\nb"}', 7),
        ({"CNI_COMMAND": "DEL"}, b'{"socket":"' + b"x" * 200 + b'"}', 7),
        ({"CNI_COMMAND": "DEL"}, b'{"timeout":601}', 7),
        ({"CNI_COMMAND": "ADD", "CNI_NETNS": '/"\\\n'}, b"{}", 4),
        ({"CNI_COMMAND": "STATUS"}, b'{"socket":"/run/nobody.sock","timeout":600}', 50),
        # A label of that name is no socket.
        ({"CNI_COMMAND": "STATUS"}, b'{"labels":{"socket":1},"socket":"/run/nobody.sock"}', 50),
        ({"CNI_COMMAND": "STATUS"}, b"", 50),
    ],
)
def test_what_needs_no_agent_is_refused_at_once(environment: dict[str, str], text: bytes, code: int) -> None:
    done = subprocess.run([PLUGIN], input=text, env=environment, capture_output=True, check=False, timeout=10)
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["code"] == code


@pytest.mark.parametrize(
    ("head", "tail"),
    [(b"1", b""), (b"2CNI_COMMAND=DEL\0\0", b"{}"), (b"", b""), (b"1" + b"x" * 5_000_000, b"")],
)
def test_the_socket_outlives_nonsense(runtime: Runtime, head: bytes, tail: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(runtime.socket)
        with contextlib.suppress(BrokenPipeError):
            client.sendall(head + tail)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(65536)[:1] == b"\1"
    assert runtime.ask("STATUS") == (0, None)


def test_a_question_that_died_with_the_agent_is_asked_again(tmp_path: Path) -> None:
    """The first to listen dies without a word, the second answers."""
    path = tmp_path / "cni.sock"
    asked = []

    def serve() -> None:
        for answer in (b"", b"\0"):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
                server.listen()
                connection, _ = server.accept()
            path.unlink()
            with connection:
                question = bytearray()
                while part := connection.recv(65536):
                    question += part
                asked.append(bytes(question))
                connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    config = json.dumps({"cniVersion": "1.1.0", "name": "net", "socket": str(path)}).encode()
    done = subprocess.run([PLUGIN], input=config, env={"CNI_COMMAND": "GC"}, capture_output=True, check=False)
    server.join()
    assert (done.returncode, done.stdout) == (0, b"")
    assert asked == [b"1CNI_COMMAND=GC\0\0" + config] * 2


def test_no_agent_is_waited_for_but_not_for_ever(runtime: Runtime) -> None:
    status, error = runtime.ask("ADD", "c", OWN, socket="/run/nobody.sock", timeout=0.1, cniVersion="1.0.0")
    assert status == 1
    assert error == {
        "cniVersion": "1.0.0",
        "code": 11,
        "msg": "the agent does not answer",
        "details": "waited for /run/nobody.sock: No such file or directory; is axoneme-agent running?",
    }


def test_runtimes_find_the_configuration(agent: Node, runtime: Runtime) -> None:
    found = json.loads((agent.folder / "net.d" / "05-axoneme.conflist").read_text())
    assert found["plugins"] == [
        {
            "type": "axo-cni",
            "socket": runtime.socket,
            "capabilities": {"io.kubernetes.cri.pod-annotations": True},
        }
    ]
    assert Path(runtime.socket).stat().st_mode & 0o777 == 0o600
