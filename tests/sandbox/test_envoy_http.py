"""HTTP through the proxy: what passes, what is refused and how, and that nobody notices it otherwise."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from envoys import FAMILIES, Connection, Proxy, proxy, serve_http
from steered import ADDRESSES

from axoneme.model.l7 import L7, HeaderMatch, HTTPRule, L7Kind, Mismatch, SecretRef
from axoneme.net import kernel, netns, proxying
from axoneme.proxy.envoy.accesslogs import MOST_TOLD
from axoneme.proxy.envoy.process import kernel_of_this_machine
from axoneme.proxy.plan import Listener, SecretData
from axoneme.proxy.sockets import OWN_PORTS

SERVER, LISTENER = 8080, 10000
PUBLIC = HTTPRule(method="GET", path="/public/.*")
EVERYTHING = HTTPRule()
#: What clients are told; it names nobody's policy.
REFUSED = b"Access denied: refused by network policy.\n"


def http(*rules: HTTPRule) -> L7:
    return L7(L7Kind.HTTP, http=rules)


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("envoy")
    with proxy(folder, {SERVER: LISTENER}) as made, ExitStack() as stack:
        serve_http(made, SERVER, stack)
        with netns.opened(made.rig.proxy) as descriptor, kernel.inside(descriptor):
            proxying.lend_ports()
        yield made


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_a_request_is_judged_and_the_connection_lives(
    through: Proxy, family: socket.AddressFamily, direction: str
) -> None:
    through.serve(LISTENER, http(PUBLIC), direction)
    before = through.rig.count(direction), through.rig.count("answers")
    connection = through.connect(SERVER, family)
    seen = connection.ask("/public/a?b=c", Accept="text/x").seen
    client, server, *_ = ADDRESSES[family]
    assert seen["path"] == "/public/a?b=c"
    assert seen["client"][0] == client
    assert seen["client"][1] != connection.socket.getsockname()[1]
    host = f"[{server}]" if family == socket.AF_INET6 else server
    assert dict(seen["headers"]) == {
        "Host": f"{host}:{SERVER}",
        "Accept-Encoding": "identity",
        "Accept": "text/x",
        "x-forwarded-proto": "http",
    }
    for path, method in (("/private", "GET"), ("/public/a", "POST"), ("/public", "GET")):
        answer = connection.ask(path, method)
        assert (answer.status, answer.body) == (403, REFUSED)
        assert "server" not in answer.headers
    assert connection.status("/public/b") == 200
    assert through.rig.count(direction) > before[0]
    assert through.rig.count("answers") > before[1]


def test_a_refused_body_is_read_so_that_the_connection_lives(through: Proxy) -> None:
    through.serve(LISTENER, http(PUBLIC))
    raw = through.call(SERVER)
    raw.sendall(b"POST /private HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
    raw.sendall(b"56789GET /public/a HTTP/1.1\r\nHost: x\r\n\r\n")
    answers = raw.makefile("rb")
    assert answers.readline().startswith(b"HTTP/1.1 403")
    while not answers.readline().startswith(b"HTTP/1.1 200"):
        pass
    # A long one is refused too, and for no other reason.
    answer = through.connect(SERVER).ask("/private", "POST", body=bytes(1 << 20))
    assert (answer.status, answer.body) == (403, REFUSED)


def test_rules_change_under_a_connection(through: Proxy) -> None:
    through.serve(LISTENER, http(PUBLIC))
    connection = through.connect(SERVER)
    assert connection.status("/public/a") == 200
    for rule, public, other in (
        (HTTPRule(path="/other"), 403, 200),
        (EVERYTHING, 200, 200),
        (HTTPRule(method="DELETE"), 403, 403),
        (PUBLIC, 200, 403),
    ):
        through.serve(LISTENER, http(rule))
        assert connection.status("/public/a") == public
        assert connection.status("/other") == other
    through.serve(LISTENER, http())
    assert connection.status("/public/a") == 403


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/public/../private", None),
        ("/public/%2e%2e/private", None),
        ("/public/.%2E/private", None),
        ("/public/./../private", None),
        ("/public/a/../../private", None),
        ("/public//../../private", None),
        (r"/public/..\private", None),
        (r"/public\..\private", None),
        ("/public/..%2fprivate", None),
        ("/public/x%2F..%2Fprivate", None),
        ("/public/..%5Cprivate", None),
        ("/public/%2e%2e%2fprivate", None),
        ("/public/..;/private", None),
        ("/public/..;a=b/private", None),
        ("/public/..%3b/private", None),
        ("/PUBLIC/a", None),
        ("/private?/public/", None),
        ("/private/../public/a", "/public/a"),
        ("/public/a/../b", "/public/b"),
        ("/public/a%2Fb", "/public/a%2Fb"),
        ("/public/..a", "/public/..a"),
        ("/public/...", "/public/..."),
        ("/public//a", "/public//a"),
        ("/public/a?x=/../..%2f", "/public/a?x=/../..%2f"),
        ("/%70ublic/a", "/public/a"),
        ("/public/%C3%A9", "/public/%C3%A9"),
    ],
)
def test_what_is_judged_is_what_arrives(through: Proxy, path: str, arrives: str | None) -> None:
    through.serve(LISTENER, http(PUBLIC))
    answer = through.connect(SERVER).ask(path)
    if arrives is None:
        assert answer.status in (400, 403)
    else:
        assert answer.seen["path"] == arrives


def test_fields_of_a_rule_hold_together_for_their_whole_values(through: Proxy) -> None:
    rule = HTTPRule(method="GET|PUT", path="/a/[0-9]+", host=r"(shop|bank)\.test", headers=())
    through.serve(LISTENER, http(rule, HTTPRule(method="PURGE")))
    connection = through.connect(SERVER)
    connection = Connection(connection.socket, "shop.test")
    assert connection.status("/a/1") == 200
    assert connection.status("/a/1", "PUT") == 200
    assert connection.status("/a/1", "PUTS") == 403
    assert connection.status("/a/1x") == 403
    assert connection.status("/a/1?x") == 403
    assert connection.status("/other", "PURGE") == 200
    other = Connection(connection.socket, "xshop.test")
    assert other.status("/a/1") == 403


def test_headers(through: Proxy) -> None:
    rules = (
        HTTPRule(path="/exact", headers=(HeaderMatch("x-token", value="123"),)),
        HTTPRule(path="/pattern", headers=(HeaderMatch("x-token", pattern="[0-9]+"),)),
        HTTPRule(path="/there", headers=(HeaderMatch("x-token"),)),
        HTTPRule(path="/secret", headers=(HeaderMatch("x-token", secret=SecretRef("default", "key")),)),
        HTTPRule(path="/lost", headers=(HeaderMatch("x-token", secret=SecretRef("default", "lost")),)),
    )
    key = SecretData("default", "key", {"value": b"s3cr3t"})
    through.serve(LISTENER, http(*rules), secrets=(key,))
    connection = through.connect(SERVER)
    passes = {
        ("/exact", "123"): 200,
        ("/exact", "1234"): 403,
        ("/pattern", "1234"): 200,
        ("/pattern", "1a"): 403,
        ("/there", "whatever"): 200,
        ("/secret", "s3cr3t"): 200,
        ("/secret", "S3cr3t"): 403,
        ("/lost", "x"): 403,
    }
    for (path, value), status in passes.items():
        assert connection.status(path, X__Token=value) == status, (path, value)
        assert connection.status(path) == 403, path
    # A server with CGI's interface reads both as one.
    assert connection.status("/exact", X__Token="123", X_Token="4") == 403
    through.serve(LISTENER, http(*rules), secrets=(SecretData("default", "key", {"value": b"other"}),))
    assert connection.status("/secret", X__Token="s3cr3t") == 403
    assert connection.status("/secret", X__Token="other") == 200


def test_headers_that_are_changed(through: Proxy) -> None:
    def rule(path: str, name: str, value: str, mismatch: Mismatch) -> HTTPRule:
        return HTTPRule(path=path, headers=(HeaderMatch(name, value=value, mismatch=mismatch),))

    rules = (
        rule("/all|/replace", "x-replace", "100%", Mismatch.REPLACE),
        rule("/all|/add", "x-add", "right", Mismatch.ADD),
        rule("/all|/delete", "x-delete", "right", Mismatch.DELETE),
        rule("/all|/log", "x-log", "right", Mismatch.LOG),
        PUBLIC,
    )
    through.serve(LISTENER, http(*rules))
    connection = through.connect(SERVER)
    names = ("x-replace", "x-add", "x-delete", "x-log")

    def arrived(path: str, **headers: str) -> dict[str, str]:
        seen = connection.ask(path, **headers).asked
        return {name: seen[name] for name in names if name in seen}

    assert arrived("/replace") == {"x-replace": "100%"}
    assert arrived("/replace", X__Replace="wrong") == {"x-replace": "100%"}
    assert arrived("/add") == {"x-add": "right"}
    assert arrived("/add", X__Add="right") == {"x-add": "right"}
    assert arrived("/delete", X__Delete="wrong") == {}
    assert arrived("/delete", X__Delete="right") == {"x-delete": "right"}
    assert arrived("/log", X__Log="wrong") == {"x-log": "wrong"}
    wrong = {"X__Replace": "wrong", "X__Add": "right", "X__Delete": "wrong", "X__Log": "wrong"}
    assert arrived("/all", **wrong) == {"x-replace": "100%", "x-add": "right", "x-log": "wrong"}
    assert arrived("/public/x", **wrong) == {
        "x-replace": "wrong",
        "x-add": "right",
        "x-delete": "wrong",
        "x-log": "wrong",
    }
    assert through.event(lambda it: it.reason == "x-log has another value").verdict == "FORWARDED"


def test_the_wire_is_as_without_it(through: Proxy) -> None:
    through.serve(LISTENER, http(EVERYTHING))
    connection = through.connect(SERVER)
    assert connection.ask("/a", "HEAD").headers["x-case"] == "Kept"
    assert connection.ask("*", "OPTIONS").status == 404  # Envoy takes paths only
    assert connection.ask("/a", "PURGE").seen["method"] == "PURGE"
    assert connection.ask("/a", "POST", body=bytes(16 << 20)).seen["size"] == 16 << 20
    assert len(connection.ask("/big").body) == 32 << 20
    raw = through.call(SERVER)
    raw.sendall(b"GET /old HTTP/1.0\r\n\r\n")
    assert raw.makefile("rb").readline() == b"HTTP/1.0 200 OK\r\n"
    raw = through.call(SERVER)
    raw.sendall(
        b"POST /chunks HTTP/1.1\r\nHoSt: x\r\nX-CaSe: Kept\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n"
    )
    text = ""
    while "}" not in text:
        text += raw.recv(4096).decode()
    assert '"size": 5' in text
    assert "X-Case: Kept" in text
    assert '["X-CaSe", "Kept"]' in text


@pytest.mark.parametrize(
    "opening",
    [
        b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT there.test:443 HTTP/1.1\r\nHost: there.test:443\r\n\r\n",
    ],
    ids=["websocket", "connect"],
)
def test_a_connection_becomes_something_else(through: Proxy, opening: bytes) -> None:
    allowed = (HTTPRule(method="GET", path="/chat"), HTTPRule(method="CONNECT", host=r"there\.test:443"))
    through.serve(LISTENER, http(*allowed))
    raw = through.call(SERVER)
    raw.sendall(opening)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    assert head.split()[1] in (b"101", b"200")
    raw.sendall(b"words")
    assert raw.recv(100) == b"WORDS"
    through.serve(LISTENER, http(PUBLIC))
    raw = through.call(SERVER)
    raw.sendall(opening)
    assert raw.recv(4096).startswith(b"HTTP/1.1 403")


def test_clients_that_people_use(through: Proxy) -> None:
    through.serve(LISTENER, http(PUBLIC))
    url = f"http://{ADDRESSES[socket.AF_INET][1]}:{SERVER}"
    told = through.curl(
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}:%{num_connects}\\n",
        f"{url}/x",
        "-o",
        "/dev/null",
        f"{url}/public/x",
    )
    assert told.split() == ["403:1", "200:0"]


def test_who_calls_the_listener_itself_gets_nothing(through: Proxy) -> None:
    through.serve(LISTENER, http(EVERYTHING))
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with through.rig.socket(through.rig.proxy, family, socket.SOCK_STREAM) as caller:
            caller.connect((address, LISTENER))
            assert caller.recv(100) == b""


def test_what_envoy_does_not_take_is_said_and_the_rest_is_served(through: Proxy) -> None:
    bad = HTTPRule(path="/(?=look)ahead")
    report = through.follow(
        Listener(LISTENER, "egress", http(PUBLIC)), Listener(LISTENER + 1, "egress", http(bad))
    )
    assert report.ready == (LISTENER,)
    assert "Envoy refuses it" in report.errors[LISTENER + 1]
    assert through.connect(SERVER).status("/public/x") == 200


def test_requests_are_told_of(through: Proxy) -> None:
    through.serve(LISTENER, http(PUBLIC), "ingress")
    connection = through.connect(SERVER)
    connection.status("/public/told?password=hidden", X__Request__Id="7")
    connection.status("/private/told")
    port = connection.socket.getsockname()[1]
    passed = through.event(lambda it: it.http is not None and "/public/told" in it.http.url)
    assert (passed.verdict, passed.type, passed.direction) == ("FORWARDED", "RESPONSE", "ingress")
    assert (passed.source, passed.source_port) == (ADDRESSES[socket.AF_INET][0], port)
    assert (passed.destination, passed.destination_port) == (ADDRESSES[socket.AF_INET][1], SERVER)
    assert passed.http is not None
    assert (passed.http.code, passed.http.method, passed.http.protocol) == (200, "GET", "HTTP/1.1")
    assert "hidden" not in passed.http.url
    assert ("x-request-id", "7") in passed.http.headers
    assert passed.latency_ns > 0
    refused = through.event(lambda it: it.http is not None and "/private/told" in it.http.url)
    assert (refused.verdict, refused.type, refused.reason) == ("DROPPED", "REQUEST", "no rule allows it")
    assert refused.http is not None
    assert refused.http.code == 403


def test_of_a_flood_it_is_told_how_many_are_left_out(through: Proxy) -> None:
    """And it does not hide what passes."""
    through.serve(LISTENER, http(PUBLIC))
    before, asked, raw = through.untold, 0, through.call(SERVER)
    with raw.makefile("rb") as answers:
        while asked < 3 * MOST_TOLD:
            raw.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
            asked += 1
            line = answers.readline()
            assert line.startswith(b"HTTP/1.1 403"), (asked, line)
            while answers.readline() != REFUSED:
                pass
    assert through.connect(SERVER).status("/public/beside") == 200
    through.event(lambda it: it.http is not None and it.http.url.endswith("/public/beside"))
    through.until(lambda: through.told("/flood") + through.untold - before == asked)
    assert through.untold > before


def test_what_would_be_refused_passes_where_policy_is_only_tried(through: Proxy) -> None:
    through.follow(Listener(LISTENER, "egress", http(PUBLIC), audit=True))
    assert through.connect(SERVER).status("/tried") == 200
    tried = through.event(lambda it: it.http is not None and it.http.url.endswith("/tried"))
    assert tried.verdict == "AUDIT"


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_calls_onwards_have_ports_of_their_own(through: Proxy, family: socket.AddressFamily) -> None:
    """Where the node has them (`axoneme.net.proxying`) and the kernel lets a socket choose."""
    if not kernel_of_this_machine().own_ports:
        pytest.skip("the kernel lets no socket choose among ports (Linux 6.3 does)")
    through.serve(LISTENER, http(PUBLIC))
    for _ in range(8):
        assert through.connect(SERVER, family).ask("/public/close").seen["client"][1] in OWN_PORTS


def test_what_is_no_request_is_told_of_too(through: Proxy) -> None:
    through.serve(LISTENER, http(PUBLIC))
    raw = through.call(SERVER)
    raw.sendall(
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert raw.recv(4096).startswith(b"HTTP/1.1 400")
    assert through.event(lambda it: it.verdict == "ERROR").reason
    assert through.connect(SERVER).status("/public/x") == 200
