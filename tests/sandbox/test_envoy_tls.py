"""TLS through the proxy: by the name that the client asks for, and opened."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from authorities import Authority
from envoys import Connection, Proxy, proxy, serve_http
from steered import ADDRESSES

from axoneme.model.l7 import L7, HTTPRule, L7Kind, SecretRef, TLSContext
from axoneme.proxy.plan import Listener, SecretData

SERVER, PLAIN, LISTENER = 8443, 8080, 10000
NAMES = L7(L7Kind.TLS, server_names=("shop.test", "*.one.test", "**.many.test"))
PUBLIC = (HTTPRule(method="GET", path="/public/.*"),)
OURS, THEIRS = (TLSContext(SecretRef("default", name)) for name in ("ours", "theirs"))


class Opened:
    """The proxy, and who signs for whom."""

    def __init__(self, through: Proxy, folder: Path) -> None:
        self.through = through
        self.servers = Authority(folder, "servers")
        self.proxies = Authority(folder, "proxies")
        self.ours = self.certified("shop.test")
        self.theirs = SecretData("default", "theirs", {"ca.crt": self.servers.certificate.read_bytes()})

    def certified(self, name: str) -> SecretData:
        """What clients find who call it."""
        certificate, key = self.proxies.issue(name)
        return SecretData(
            "default", "ours", {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes()}
        )

    def call(self, name: str | None, trusted: Authority, *, port: int = SERVER) -> Connection:
        context = ssl.create_default_context(cafile=str(trusted.certificate))
        if name is None:
            context.check_hostname = False
        called = context.wrap_socket(self.through.call(port), server_hostname=name)
        return Connection(called, name or "nobody.test")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("envoy")
    with proxy(folder, {None: LISTENER}) as through, ExitStack() as stack:
        made = Opened(through, folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def by_name(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            certificate, key = made.servers.issue(name or "nobody.test")
            other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            other.load_cert_chain(certificate, key)
            sock.context = other

        context.load_cert_chain(*made.servers.issue("nobody.test"))
        context.sni_callback = by_name  # type: ignore[assignment]
        serve_http(through, SERVER, stack, context)
        serve_http(through, PLAIN, stack)
        yield made


@pytest.mark.parametrize("name", ["shop.test", "SHOP.test", "a.one.test", "a.many.test", "a.b.many.test"])
def test_an_allowed_name_passes_unread(opened: Opened, name: str) -> None:
    opened.through.serve(LISTENER, NAMES)
    connection = opened.call(name, opened.servers)
    assert connection.ask("/whatever").seen["client"][0] == ADDRESSES[socket.AF_INET][0]


@pytest.mark.parametrize("name", ["xshop.test", "a.shop.test", "one.test", "a.b.one.test", "many.test", None])
def test_another_name_or_none_is_reset(opened: Opened, name: str | None) -> None:
    opened.through.serve(LISTENER, NAMES)
    with pytest.raises(ConnectionResetError):
        opened.call(name, opened.servers)
    told = opened.through.event(lambda it: it.server_name == (name or "") and it.verdict == "DROPPED")
    assert told.reason == ("no rule allows this server name" if name else "no server name")


def test_what_is_not_tls_is_reset(opened: Opened) -> None:
    opened.through.serve(LISTENER, NAMES)
    plain = opened.through.call(SERVER)
    plain.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        plain.recv(100)


def test_names_change_under_connections_of_others(opened: Opened) -> None:
    opened.through.serve(LISTENER, NAMES)
    stays, goes = opened.call("shop.test", opened.servers), opened.call("a.one.test", opened.servers)
    assert (stays.status("/"), goes.status("/")) == (200, 200)
    opened.through.serve(LISTENER, L7(L7Kind.TLS, server_names=("shop.test", "new.test")))
    assert opened.call("new.test", opened.servers).status("/") == 200
    with pytest.raises(ConnectionResetError):
        opened.call("a.one.test", opened.servers)
    # Whose name is no longer allowed is cut off.
    goes.socket.settimeout(20)
    assert goes.socket.recv(1) == b""
    assert stays.status("/") == 200


def test_rules_hold_inside_of_tls(opened: Opened) -> None:
    rules = L7(L7Kind.HTTP, http=PUBLIC, server_names=("shop.test",), terminating=OURS, originating=THEIRS)
    opened.through.serve(LISTENER, rules, secrets=(opened.ours, opened.theirs))
    connection = opened.call("shop.test", opened.proxies)
    seen = connection.ask("/public/a").seen
    assert seen["client"][0] == ADDRESSES[socket.AF_INET][0]
    assert connection.status("/private") == 403
    assert connection.status("/public/b") == 200
    with pytest.raises(ConnectionResetError):
        opened.call("other.test", opened.proxies)
    told = opened.through.event(lambda it: it.http is not None and it.http.url.endswith("/private"))
    assert (told.server_name, told.http and told.http.url) == ("shop.test", "https://shop.test/private")


def test_servers_that_are_not_who_they_say_get_nothing(opened: Opened) -> None:
    rules = L7(L7Kind.HTTP, http=PUBLIC, terminating=OURS, originating=THEIRS)
    bank = opened.certified("bank.test")  # nobody has called it before: there is no connection to it
    wrong = SecretData("default", "theirs", {"ca.crt": opened.proxies.certificate.read_bytes()})
    opened.through.serve(LISTENER, rules, secrets=(bank, wrong))
    assert opened.call("bank.test", opened.proxies).status("/public/a") == 503
    # Another Secret takes effect without another listener, and under the connection.
    connection = opened.call("bank.test", opened.proxies)
    opened.through.serve(LISTENER, rules, secrets=(bank, opened.theirs))
    assert connection.status("/public/a") == 200


def test_tls_on_one_side_alone(opened: Opened) -> None:
    ending = L7(L7Kind.HTTP, http=PUBLIC, terminating=OURS)
    opened.through.serve(LISTENER, ending, secrets=(opened.ours,))
    assert opened.call("shop.test", opened.proxies, port=PLAIN).status("/public/a") == 200
    beginning = L7(L7Kind.HTTP, http=PUBLIC, originating=THEIRS)
    opened.through.serve(LISTENER, beginning, secrets=(opened.theirs,))
    connection = Connection(opened.through.call(SERVER), "shop.test")
    assert connection.status("/public/a") == 200
    assert connection.status("/private") == 403


def test_a_secret_that_is_not_there_is_named(opened: Opened) -> None:
    rules = L7(L7Kind.HTTP, http=PUBLIC, terminating=OURS)
    report = opened.through.follow(Listener(LISTENER, "egress", rules))
    assert report.ready == ()
    assert report.errors == {LISTENER: "Secret default/ours is not there"}
    half = SecretData("default", "ours", {"tls.crt": opened.ours.data["tls.crt"]})
    report = opened.through.follow(Listener(LISTENER, "egress", rules), secrets=(half,))
    assert report.errors == {LISTENER: "Secret default/ours has no key 'tls.key'"}
    nonsense = SecretData("default", "ours", {"tls.crt": b"x", "tls.key": b"y"})
    report = opened.through.follow(Listener(LISTENER, "egress", rules), secrets=(nonsense,))
    assert "Envoy refuses it" in report.errors[LISTENER]
