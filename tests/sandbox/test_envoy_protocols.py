"""HTTP/2 and gRPC through the proxy, with the clients and servers that people use."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from envoys import FAMILIES, Proxy, proxy, serve_http
from steered import ADDRESSES

from axoneme.model.l7 import L7, HTTPRule, L7Kind

GRPC, WEB, LISTENER = 50051, 8080, 10000
SCRIPT = str(Path(__file__).with_name("grpcs.py"))


def grpc_rules(*methods: str) -> L7:
    rules = (HTTPRule(method="POST", path=f"/test\\.Greeter/{method}") for method in methods)
    return L7(L7Kind.HTTP, http=tuple(rules))


def place(family: socket.AddressFamily, port: int) -> str:
    host = ADDRESSES[family][1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("envoy")
    with proxy(folder, {None: LISTENER}) as made, ExitStack() as stack:
        serve_http(made, WEB, stack)
        server = subprocess.Popen(
            [
                *("nsenter", f"--net={made.rig.server}", sys.executable, SCRIPT, "serve"),
                *(place(family, GRPC) for family in FAMILIES),
            ],
            stdout=subprocess.PIPE,
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield made
        server.stdout.close()


def call(through: Proxy, family: socket.AddressFamily, *methods: str) -> list[dict[str, Any]]:
    said = through.rig.run(
        through.rig.client, " ".join((sys.executable, SCRIPT, "call", place(family, GRPC), *methods))
    )
    answers: list[dict[str, Any]] = json.loads(said)
    return answers


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_methods_of_grpc(through: Proxy, family: socket.AddressFamily) -> None:
    through.serve(LISTENER, grpc_rules("Hello", "Echo", "Broken"))
    hello, secret, echo, broken, again = call(through, family, "Hello", "Secret", "Echo", "Broken", "Hello")
    client = ADDRESSES[family][0]
    assert hello["code"] == "OK"
    assert hello["trailers"]["x-trailer"] == "t"
    assert client in hello["answer"].replace("%5B", "[")
    assert secret == {
        "code": "PERMISSION_DENIED",
        "details": "Access denied: refused by network policy.\n",
    }
    assert echo == {"code": "OK", "answer": "ABC"}
    assert broken == {"code": "FAILED_PRECONDITION", "details": "as it should be"}
    # The server has seen one connection, before the refusal and after it.
    assert again["answer"] == hello["answer"]
    refused = through.event(lambda it: it.http is not None and it.http.url.endswith("/test.Greeter/Secret"))
    assert (refused.verdict, refused.type) == ("DROPPED", "REQUEST")
    failed = through.event(lambda it: it.http is not None and it.http.url.endswith("/test.Greeter/Broken"))
    assert failed.http is not None
    assert (failed.verdict, failed.http.grpc_status, failed.http.protocol) == ("FORWARDED", 9, "HTTP/2")


def test_both_versions_at_one_listener(through: Proxy) -> None:
    """To a server, the proxy speaks what the client speaks: neither of these two knows the other version."""
    through.serve(LISTENER, L7(L7Kind.HTTP, http=(HTTPRule(path="/test.*"),)))
    assert [each["code"] for each in call(through, socket.AF_INET, "Hello")] == ["OK"]
    url = f"http://{place(socket.AF_INET, WEB)}"
    assert json.loads(through.curl(f"{url}/test"))["path"] == "/test"
    told = through.curl("--http2-prior-knowledge", "-w", "%{http_code}:%{http_version}", f"{url}/other")
    assert told == "Access denied: refused by network policy.\n403:2"
