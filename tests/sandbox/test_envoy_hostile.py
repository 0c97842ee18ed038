"""Clients that want more of the proxy for HTTP than rules allow, or do not want to be seen."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from envoys import Proxy, proxy
from steered import ADDRESSES

from axoneme.model.l7 import L7, HeaderMatch, HTTPRule, L7Kind, Mismatch
from axoneme.proxy.plan import Listener

SERVER, LISTENER = 8080, 10000
CLIENT, ADDRESS, *_ = ADDRESSES[socket.AF_INET]
PUBLIC = HTTPRule(path="/public/.*")


class Plain(http.server.BaseHTTPRequestHandler):
    """Knows of no upgrades. ``seen`` are the requests: method, path, values of ``X-Token``."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, tuple[str, ...]]] = []  # noqa: RUF012

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.command, self.path, tuple(self.headers.get_all("x-token", ()))))
        self.send_response(204)
        if self.path.endswith("/status"):
            self.send_header("grpc-status", "9" * 5000)
        self.end_headers()

    do_GET = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(tmp_path_factory.mktemp("envoy"), {SERVER: LISTENER}) as made, ExitStack() as stack:
        listening = stack.enter_context(made.rig.socket(made.rig.server, socket.AF_INET, socket.SOCK_STREAM))
        listening.bind((ADDRESS, SERVER))
        listening.listen(64)
        listening.settimeout(None)
        server = http.server.ThreadingHTTPServer(("", 0), Plain, bind_and_activate=False)
        server.socket.close()
        server.socket = listening
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        yield made


def rules(*given: HTTPRule) -> L7:
    return L7(L7Kind.HTTP, http=given)


def status(through: Proxy, *lines: str) -> int:
    """Of the answer to a request, which is the last of its connection."""
    with through.call(SERVER) as caller:
        head = (*lines, "Host: a", "Connection: close", "", "")
        caller.sendall("\r\n".join(head).encode("latin-1"))
        return int(caller.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("match", [{"value": "1"}, {"pattern": "[0-9]+"}], ids=["value", "pattern"])
def test_several_headers_of_one_name_are_one_value(through: Proxy, match: dict[str, str]) -> None:
    """Whichever of them a server takes."""
    rule = HTTPRule(headers=(HeaderMatch("x-token", **match),))
    through.serve(LISTENER, rules(rule))
    assert status(through, "GET / HTTP/1.1", "X-Token: 1") == 204
    for other in ("evil", "1", ""):
        assert status(through, "GET / HTTP/1.1", "X-Token: 1", f"X-Token: {other}") == 403
        assert status(through, "GET / HTTP/1.1", f"X-Token: {other}", "X-Token: 1") == 403


def test_several_headers_of_one_name_are_replaced_together(through: Proxy) -> None:
    rule = HTTPRule(headers=(HeaderMatch("x-token", value="1", mismatch=Mismatch.REPLACE),))
    through.serve(LISTENER, rules(rule))
    assert status(through, "GET /both HTTP/1.1", "X-Token: 1", "X-Token: evil") == 204
    assert Plain.seen[-1] == ("GET", "/both", ("1",))


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "tcp", "SPDY/3.1", "CONNECT", "h2c"])
@pytest.mark.parametrize("length", ["", "Content-Length: 0", "Transfer-Encoding: chunked"])
def test_what_follows_an_upgrade_is_no_request_to_who_knows_of_none(
    through: Proxy, upgrade: str, length: str
) -> None:
    through.serve(LISTENER, rules(PUBLIC))
    Plain.seen.clear()
    head = ["GET /public/a HTTP/1.1", "Host: a", "Connection: Upgrade", f"Upgrade: {upgrade}", length]
    with through.call(SERVER) as caller:
        caller.sendall("\r\n".join((*filter(None, head), "", "")).encode())
        caller.sendall(b"DELETE /private HTTP/1.1\r\nHost: a\r\n\r\n")
        assert caller.recv(4096).startswith((b"HTTP/1.1 204", b"HTTP/1.1 400", b"HTTP/1.1 403"))
    # By the same way onwards, if there is one.
    assert status(through, "GET /public/after HTTP/1.1") == 204
    assert [path for _, path, _ in Plain.seen][-1] == "/public/after"
    assert "/private" not in {path for _, path, _ in Plain.seen}


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ("X-Forwarded-For: 192.0.2.9", "1"),
        ("X-Forwarded-For: 10.9.9.9", "2"),
        ("X-Envoy-Original-Path: /public/innocent", "3"),
        ("Forwarded: for=192.0.2.9", "4"),
        ("X-Envoy-External-Address: 192.0.2.9", "5"),
    ],
)
def test_who_is_refused_cannot_say_that_it_was_another(through: Proxy, extra: str, path: str) -> None:
    through.serve(LISTENER, rules(PUBLIC))
    assert status(through, f"GET /private/{path} HTTP/1.1", extra) == 403
    refused = through.event(lambda it: it.http is not None and it.http.url == f"http://a/private/{path}")
    assert (refused.verdict, refused.source) == ("DROPPED", CLIENT)
    assert refused.source_port


def test_a_servers_answer_does_not_keep_others_from_being_told_of(through: Proxy) -> None:
    through.serve(LISTENER, rules(PUBLIC))
    assert status(through, "GET /public/status HTTP/1.1") == 204
    assert through.event(lambda it: it.http is not None and it.http.url.endswith("/public/status"))
    assert through.event(lambda it: it.http is not None and it.http.grpc_status is None)


def test_what_envoy_does_not_take_is_not_shown_with_its_values(through: Proxy) -> None:
    rule = HTTPRule(headers=(HeaderMatch("x-token", value="sEcReT\nvalue", mismatch=Mismatch.ADD),))
    report = through.follow(Listener(LISTENER, "egress", rules(rule)))
    assert "sEcReT" not in report.errors[LISTENER], report.errors
    assert "sEcReT" not in through.log.read_text()
