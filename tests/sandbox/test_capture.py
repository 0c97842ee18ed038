"""`axo capture` in a sandbox: which packets are in the file, what stands beside them; tshark reads it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from runtime import Live, addresses, live

from oracle import pcapng
from oracle.pcapng import Capture

FIN, SYN = 1, 2
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers:
  - {{name: echo, image: axoneme/echo, ports: [{{name: web, containerPort: 8080}}]}}
"""
OBJECTS = """\
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-the-client, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Live]:
    where = {"client": "node1", "other": "node1", "web": "node2"}
    pods = "".join(POD.format(name=name, node=node) for name, node in where.items())
    with live("capture", OBJECTS + pods, nodes=2) as runtime:
        runtime.policies_loaded(1)
        yield runtime


def ask(shop: Live, who: str, address: str, port: int = 8080) -> int:
    """The status that is answered; 0 for none."""
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    done = subprocess.run(
        [
            *("nsenter", f"--net={shop.namespace(who, 'shop')}", "curl", "-s", "-o", "/dev/null"),
            *("-w", "%{http_code}", "-m", "1", url),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout)


@contextmanager
def capturing(shop: Live, file: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """From when it is at work to its end, which it is told."""
    with subprocess.Popen(
        [sys.executable, "-m", "axoneme.cli", "capture", "--sandbox", shop.name, "-w", str(file), *options],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "-- capturing on node1, node2; Ctrl-C ends it\n"
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert " packets, " in said


def web(shop: Live, version: int = 4) -> str:
    return next(each for each in addresses(shop.pod("web", "shop")) if (":" in each) == (version == 6))


def ends_of(found: Capture) -> set[str]:
    return {packet["comments"][0].split("\n")[1] for packet in found.packets}


def test_drops_and_nothing_else(shop: Live, tmp_path: Path) -> None:
    file = tmp_path / "drops.pcapng"
    with capturing(shop, file, "--verdict", "DROPPED"):
        assert ask(shop, "client", web(shop)) == 200
        assert ask(shop, "other", web(shop)) == 0
    found = pcapng.read(file.read_bytes())
    assert found.packets
    for packet in found.packets:
        assert packet["comments"][0].startswith("DROPPED POLICY_DENIED seen by node2\nshop/other:")
        assert "ingress denied by CiliumNetworkPolicy shop/only-the-client" in packet["comments"][0]
        assert packet["verdict"] == (1, 2)
        assert packet["interface"]["name"].startswith("node2:")


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_is_whole_on_both_nodes_each_packet_once(
    shop: Live, tmp_path: Path, version: int
) -> None:
    file = tmp_path / "web.pcapng"
    with capturing(shop, file, "--from-pod", "shop/client", "--port", "8080"):
        assert ask(shop, "client", web(shop, version)) == 200
        assert ask(shop, "other", web(shop, version)) == 0
    found = pcapng.read(file.read_bytes())
    assert {each.split(":")[0] for each in ends_of(found)} == {"shop/client"}
    names = set(found.names.values())
    assert {"client.shop", "web.shop"} <= names
    by_node: dict[str, list[dict[str, Any]]] = {}
    for packet in found.packets:
        by_node.setdefault(packet["interface"]["name"].partition(":")[0], []).append(packet)
    assert set(by_node) == {"node1", "node2"}
    for node, some in by_node.items():
        flags = [tcp_flags(packet["data"]) for packet in some]
        assert flags[0] == SYN, node
        assert sum(each & SYN != 0 for each in flags) == 2, f"one of each end: {flags}"
        assert sum(each & FIN != 0 for each in flags) == 2, f"one of each end: {flags}"
    times = [packet["time"] for packet in found.packets]
    assert times == sorted(times)
    pods = {each["description"] for each in found.interfaces}
    assert "pod shop/client" in pods


def tcp_flags(frame: bytes) -> int:
    at = 14 + (40 if frame[12:14] == b"\x86\xdd" else 20)
    return frame[at + 13] & 0x3F


def test_calls_of_a_service_are_chosen_by_its_name_and_the_file_is_bounded(
    shop: Live, tmp_path: Path
) -> None:
    file = tmp_path / "some.pcapng"
    (address,) = (
        each["spec"]["clusterIP"] for each in shop.every("Service") if each["metadata"]["name"] == "web"
    )
    with capturing(
        shop, file, "--to-service", "shop/web", "--packets", "5", "--snap-length", "96"
    ) as process:
        assert ask(shop, "client", address, 80) == 200
        process.wait(20)
    found = pcapng.read(file.read_bytes())
    assert len(found.packets) == 5
    assert all(len(packet["data"]) <= 96 for packet in found.packets)
    assert "shop/web:80 (service)" in found.packets[0]["comments"][0]


def test_a_connection_that_was_open_before_is_seen_too(shop: Live, tmp_path: Path) -> None:
    file = tmp_path / "open.pcapng"
    client = [sys.executable, "-c", KEPT, web(shop)]
    with subprocess.Popen(
        ["nsenter", f"--net={shop.namespace('client', 'shop')}", *client],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as kept:
        assert kept.stdin and kept.stdout
        assert kept.stdout.readline() == "200\n"
        shop.wait(
            lambda: shop.flows(filters=[{"from_pod": ["shop/client"], "event": ["new"]}]), "it is recorded"
        )
        with capturing(shop, file, "--from-pod", "shop/client", "--packets", "1"):
            kept.stdin.write("\n")
            kept.stdin.flush()
            assert kept.stdout.readline() == "200\n"
            kept.stdin.close()
    assert len(pcapng.read(file.read_bytes()).packets) == 1


KEPT = """
import http.client, sys
talk = http.client.HTTPConnection(sys.argv[1], 8080, timeout=10)
while True:
    talk.request("GET", "/")
    answer = talk.getresponse()
    answer.read()
    print(answer.status, flush=True)
    if not sys.stdin.readline():
        break
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed: apt-get install tshark")
def test_tshark_reads_it(shop: Live, tmp_path: Path) -> None:
    file = tmp_path / "all.pcapng"
    with capturing(shop, file, "--namespace", "shop"):
        assert ask(shop, "client", web(shop)) == 200
        assert ask(shop, "other", web(shop)) == 0
    shown = subprocess.run(
        [
            *("tshark", "-r", file, "-N", "n", "-T", "fields", "-e", "frame.interface_name"),
            *("-e", "frame.comment", "-e", "ip.src_host", "-e", "_ws.malformed"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "node2:" in shown.stdout
    assert "DROPPED POLICY_DENIED" in shown.stdout
    assert "client.shop" in shown.stdout, "addresses have names"
    assert len(shown.stdout.splitlines()) == len(pcapng.read(file.read_bytes()).packets)


def test_top_shows_who_calls_whom_and_what_is_dropped(shop: Live) -> None:
    """In the same sandbox, since a sandbox takes seconds."""
    # In the node's control group, as pods' own processes are: else nothing measures their connections.
    group = yaml.safe_load(shop.layout.node("node1").config.read_text())["cgroup"]
    enter = f'echo $$ > {group}/cgroup.procs; exec nsenter --net=$0 "$@"'
    calls = [
        subprocess.Popen(
            [*("sh", "-c", enter, shop.namespace(who, "shop"), sys.executable, "-c", BUSY, web(shop))],
            stdin=subprocess.PIPE,
        )
        for who in ("client", "other")
    ]
    try:
        command = [sys.executable, "-m", "axoneme.cli", "top", "--sandbox", shop.name, "--once"]
        more = ["--interval", "2.5", "--sort", "drops", "-o", "json"]
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=True)
        rows = {(row["source"], row["destination"]): row for row in json.loads(done.stdout)}
        busy, refused = (rows[f"shop/{who}", "shop/web:8080"] for who in ("client", "other"))
        assert busy["connections"] > 1
        assert busy["sent"] > 100
        assert busy["received"] > 100
        assert busy["rtt"] > 0
        assert busy["handshake"] > 0
        assert busy["drops"] == 0
        assert refused["drops"] > 0
        assert refused["rtt"] == 0
        first = json.loads(done.stdout)[0]
        assert first["drops"] == max(row["drops"] for row in rows.values()), "sorted"
        table = subprocess.run(
            [*command, "--interval", "0.5", "--match", "client web"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "80"},
        ).stdout.splitlines()
        assert table[0].split()[:2] == ["SOURCE", "DESTINATION"]
        assert [line.split()[:2] for line in table[1:]] == [["shop/client", "shop/web:8080"]]
        assert all(len(line) <= 80 for line in table)
    finally:
        for each in calls:
            assert each.stdin
            each.stdin.close()
            each.wait()


#: Calls until its input is closed.
BUSY = """
import select, socket, sys
while not select.select([sys.stdin], [], [], 0.05)[0]:
    try:
        with socket.create_connection((sys.argv[1], 8080), timeout=0.3) as talk:
            talk.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            while talk.recv(4096):
                pass
    except OSError:
        pass
"""
