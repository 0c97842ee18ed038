"""Pods that the echo server plays: every port that the manifests name, every protocol, both families."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from runtime import Runtime, addresses, sandbox

from axoneme.net import netns
from axoneme.sandbox import exchange
from axoneme.sandbox.client import Probe, Protocol, Verdict

OBJECTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nowhere.example/web
        ports:
        - {containerPort: 8080, name: http}
        - {containerPort: 5353, protocol: UDP}
        readinessProbe: {httpGet: {port: http, path: /ready}, initialDelaySeconds: 60}
        livenessProbe: {tcpSocket: {port: 9000}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 7000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: grpc, labels: {app: grpc}}
spec:
  containers:
  - name: grpc
    image: nowhere.example/grpc
    readinessProbe: {grpc: {port: 50051}}
---
apiVersion: v1
kind: Pod
metadata: {name: mute}
spec: {containers: [{name: mute, image: nowhere.example/mute}]}
"""


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with sandbox("echo", OBJECTS) as made:
        yield made


def test_every_pod_reaches_every_pod_over_both_families(runtime: Runtime) -> None:
    web = runtime.pods(app="web")
    assert len({pod["spec"]["nodeName"] for pod in web}) == 2
    wishes, expected = [], []
    for source, target in itertools.product(runtime.pods(), web):
        for address in addresses(target):
            wishes.append(Probe(runtime.namespace(source), address, 8080, timeout=5.0, payload=b"x\n"))
            expected.append((target["metadata"]["name"], target["spec"]["nodeName"], addresses(source)))
    for result, (name, node, own) in zip(runtime.probe_all(wishes), expected, strict=True):
        assert result.verdict is Verdict.CONNECTED, result
        assert result.answer is not None
        assert (result.answer.pod, result.answer.node) == (name, node)
        assert result.answer.peer.address in own


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.HTTP2, Protocol.TCP])
def test_one_port_speaks_what_the_client_speaks(runtime: Runtime, protocol: Protocol) -> None:
    target = runtime.pods(app="web")[0]
    result = runtime.probe(runtime.namespace("mute"), addresses(target)[0], 8080, protocol, b"beam me up\n")
    assert result.answer is not None
    spoken = {Protocol.HTTP: "http/1.1", Protocol.HTTP2: "h2", Protocol.TCP: "tcp"}[protocol]
    assert result.answer.request.protocol == spoken
    assert result.answer.request.body == "beam me up\n"
    assert result.answer.namespace == "default"


def test_udp_is_answered_from_the_address_that_was_asked(runtime: Runtime) -> None:
    target = runtime.pods(app="web")[0]
    for address in addresses(target):
        result = runtime.probe(runtime.namespace("mute"), address, 5353, Protocol.UDP)
        assert result.answer is not None
        assert result.answer.server.address == address


def test_ports_come_from_probes_and_services_too_and_others_are_refused(runtime: Runtime) -> None:
    address = addresses(runtime.pods(app="web")[0])[0]
    source = runtime.namespace("mute")
    for port, verdict in (
        (9000, Verdict.CONNECTED),
        (7000, Verdict.CONNECTED),
        (80, Verdict.REFUSED),
    ):
        assert runtime.probe(source, address, port).verdict is verdict, port
    assert runtime.probe(source, address, 53, Protocol.UDP).verdict is Verdict.REFUSED


def test_a_service_that_comes_later_opens_its_port_and_closes_it_when_it_goes(runtime: Runtime) -> None:
    address, source = addresses(runtime.pod("mute"))[0], runtime.namespace("grpc")
    assert runtime.probe(source, address, 6379).verdict is Verdict.REFUSED
    runtime.change("Pod", "mute", lambda pod: pod["metadata"].update(labels={"app": "mute"}))
    runtime.apply("""
apiVersion: v1
kind: Service
metadata: {name: mute}
spec: {selector: {app: mute}, ports: [{port: 6379}]}
""")

    def meets(wanted: Verdict) -> bool:
        return runtime.probe(source, address, 6379).verdict is wanted

    runtime.wait(lambda: meets(Verdict.CONNECTED), "the service's port is served")
    runtime.delete("Service", "mute")
    runtime.wait(lambda: meets(Verdict.REFUSED), "the service's port is closed")


def test_any_grpc_call_succeeds_and_health_says_serving(runtime: Runtime) -> None:
    address, source = addresses(runtime.pod("grpc"))[0], runtime.namespace("mute")

    async def call(path: str) -> exchange.Response:
        with netns.open_socket(source, socket.AF_INET, socket.SOCK_STREAM) as connection:
            await asyncio.get_running_loop().sock_connect(connection, (address, 50051))
            headers = (("content-type", "application/grpc"), ("te", "trailers"))
            request = exchange.Request(address, path, "POST", headers, b"\0\0\0\0\0")
            return await exchange.http2(connection, request)

    health = asyncio.run(call("/grpc.health.v1.Health/Check"))
    other = asyncio.run(call("/hipstershop.CartService/GetCart"))
    assert (health.headers["grpc-status"], health.body) == ("0", b"\0\0\0\0\2\x08\1")
    assert (other.headers["grpc-status"], other.body) == ("0", b"\0\0\0\0\0")


def test_plain_bytes_come_back_after_the_introduction(runtime: Runtime) -> None:
    address, source = addresses(runtime.pods(app="web")[0])[1], runtime.namespace("mute")
    with netns.open_socket(source, socket.AF_INET6, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        connection.connect((address, 9000))
        with connection.makefile("rwb") as stream:
            for text in (b"*1\r\n", b"$4\r\n", b"PING\r\n"):
                stream.write(text)
                stream.flush()
                if text == b"*1\r\n":
                    assert b'"pod":"web-' in stream.readline()
                assert stream.readline() == text


def test_the_world_answers_on_each_of_its_addresses_and_reaches_pods(runtime: Runtime) -> None:
    source = runtime.namespace("mute")
    # The fake agent does not masquerade, so the world needs its routes to the pods for its answers.
    runtime.wait(
        lambda: runtime.probe(runtime.outside, addresses(runtime.pod("grpc"))[0], 50051).answer,
        "the world reaches a pod",
    )
    for address in runtime.plan.world_addresses():
        for port, protocol in ((80, Protocol.HTTP), (443, Protocol.UDP), (0, Protocol.ICMP)):
            result = runtime.probe(source, address, port, protocol)
            assert result.verdict is Verdict.CONNECTED, (address, port, result)
            if protocol is not Protocol.ICMP:
                assert result.answer is not None
                assert (result.answer.pod, result.answer.server.address) == ("world", address)


def test_the_echo_server_comes_back_when_it_dies(runtime: Runtime) -> None:
    address, source = addresses(runtime.pods(app="web")[0])[0], runtime.namespace("mute")
    record = runtime.layout.directory / "echo.pid"
    before = record.read_bytes()
    os.kill(int(before.split(b":")[1].split(b",")[0]), signal.SIGKILL)
    runtime.wait(lambda: record.read_bytes() != before, "a new echo server")
    runtime.wait(lambda: runtime.probe(source, address, 8080).answer, "it plays the pods again")
