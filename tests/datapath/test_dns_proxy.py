"""The DNS proxy's process between resolvers and a name server that know nothing of it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
from dnsproxied import MANY, NameServer, Proxy, agent
from steered import ADDRESSES, Rig, rig_in

from axoneme.model.l7 import NameMatch
from axoneme.proxy.names import JOURNAL, read_journal

FAMILIES = pytest.mark.parametrize("family", ADDRESSES, ids=["ipv4", "ipv6"])
#: Prints the addresses of a name in order, or why there are none.
RESOLVER = r"""
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	char text[64];
	int error = getaddrinfo(argv[argc - 1], NULL, &hints, &found);

	if (error) {
		printf("%s\n", gai_strerror(error));
		return 0;
	}
	for (; found; found = found->ai_next) {
		getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
		printf("%s ", text);
	}
	return 0;
}
"""
SEARCH = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2\n"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_in(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="module")
def server(rig: Rig) -> Iterator[NameServer]:
    made = NameServer(rig)
    yield made
    made.close()


@pytest.fixture(scope="module")
def proxy(rig: Rig, server: NameServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = Proxy(rig, tmp_path_factory.mktemp("proxy"))
    yield made
    made.kill()


@FAMILIES
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_allowed_names_are_asked_in_the_clients_name_and_others_refused(
    proxy: Proxy, server: NameServer, family: socket.AddressFamily, tcp: bool
) -> None:
    server.askers.clear()
    said = proxy.ask("Www.Test", family=family, tcp=tcp)
    assert [each.to_text() for each in said.answer] == ["Www.Test. 60 IN A 192.0.2.1"]
    (asker,) = server.askers
    assert asker[0] == ADDRESSES[family][0] and asker[1] >= 61000
    refused = proxy.ask("www.example", family=family, tcp=tcp)
    assert refused.rcode() == dns.rcode.REFUSED and refused.edns == 0
    assert len(server.askers) == 1


def test_an_answer_that_is_too_large_is_asked_for_by_tcp(proxy: Proxy) -> None:
    assert proxy.ask("many.test").flags & dns.flags.TC
    assert sorted(each.address for each in proxy.ask("many.test", tcp=True).answer[0]) == sorted(MANY)


def test_what_is_of_interest_is_told_before_it_is_let_out(proxy: Proxy) -> None:
    with agent(proxy) as heard:
        proxy.ask("alias.told.test")
        assert heard.told == {"alias.told.test": {"192.0.2.3": 30}}
        proxy.ask("a.told.test", "AAAA", family=socket.AF_INET6)
        assert heard.told["a.told.test"] == {"2001:db8::1": 60}
        proxy.ask("many.told.test", tcp=True)
        assert len(heard.told["many.told.test"]) == 500
        proxy.ask("other.test")
        assert "other.test" not in heard.told


def test_nothing_is_lost_while_the_agent_is_away_or_the_proxy_is_killed(proxy: Proxy) -> None:
    assert proxy.ask("b.told.test").answer
    proxy.kill()
    proxy.start()
    assert proxy.ask("www.example").rcode() == dns.rcode.REFUSED
    assert proxy.ask("c.told.test").answer
    names = {each.name for each in read_journal(proxy.folder / JOURNAL)}
    assert {"b.told.test", "c.told.test"} <= names
    with agent(proxy) as heard:
        proxy.until(lambda: "c.told.test" in heard.told)


def test_rules_change_in_place(proxy: Proxy) -> None:
    proxy.replan(NameMatch("only.test"))
    assert proxy.ask("www.test").rcode() == dns.rcode.REFUSED
    assert proxy.ask("only.test").answer
    proxy.replan()
    assert proxy.ask("www.test").answer


def test_ten_thousand_questions_without_an_answer_exhaust_nothing(proxy: Proxy, server: NameServer) -> None:
    before = server.queries
    wire = dns.message.make_query("silent.test", "A").to_wire()
    with proxy.rig.socket(proxy.rig.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ADDRESSES[socket.AF_INET][1], 53))
        for number in range(10_000):
            client.send(number.to_bytes(2) + wire[2:])
            if number % 2500 == 2499:
                assert proxy.ask(f"{number}.test").answer
    assert server.queries - before > 5_000
    descriptors = len(list(Path(f"/proc/{proxy.process.pid}/fd").iterdir()))
    assert descriptors < 200
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 100_000, f"{resident} KiB"


def test_garbage_does_not_stop_it(proxy: Proxy) -> None:
    with proxy.rig.socket(proxy.rig.client, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ADDRESSES[socket.AF_INET][1], 53))
        for size in (0, 1, 11, 12, 13, 500, 5000):
            client.send(os.urandom(size) if size != 12 else bytes(12))
    with proxy.rig.socket(proxy.rig.client, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect((ADDRESSES[socket.AF_INET][1], 53))
        client.sendall(b"\0\5GET /")
        assert client.recv(100) == b""
    assert proxy.ask("www.test").answer


def test_it_ends_with_its_plan(proxy: Proxy) -> None:
    (proxy.folder / "plan.json").unlink()
    assert proxy.process.wait(20) == 0
    proxy.plan()
    proxy.start()


def built(compiler: str, folder: Path) -> Path:
    """A program with the resolver of glibc, or of musl."""
    (folder / "resolver.c").write_text(RESOLVER)
    options = [] if compiler == "gcc" else ["-static"]
    subprocess.run(
        [compiler, *options, "-o", str(folder / "resolver"), str(folder / "resolver.c")], check=True
    )
    return folder / "resolver"


def resolve(proxy: Proxy, program: Path, family: socket.AddressFamily, options: str, name: str) -> set[str]:
    conf = program.with_name("resolv.conf")
    conf.write_text(f"nameserver {ADDRESSES[family][1]}\n{options}\n")
    script = f"mount --bind {conf} /etc/resolv.conf && exec {program} {name}"
    return set(proxy.rig.run(proxy.rig.client, ["unshare", "-m", "sh", "-c", script]).split())


@FAMILIES
@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_resolvers_find_what_they_may_through_their_search_lists(
    proxy: Proxy, tmp_path: Path, compiler: str, family: socket.AddressFamily
) -> None:
    program = built(compiler, tmp_path)
    proxy.replan(NameMatch("www.test"), NameMatch("web.ns2.svc.cluster.local"))
    try:
        for name in ("www.test", "web.ns2"):
            assert resolve(proxy, program, family, SEARCH, name) == {"192.0.2.1", "2001:db8::1"}
        assert "192.0.2.1" not in resolve(proxy, program, family, SEARCH, "other.test")
    finally:
        proxy.replan()


def test_a_resolver_that_asks_by_tcp_gets_all_addresses(proxy: Proxy, tmp_path: Path) -> None:
    found = resolve(proxy, built("gcc", tmp_path), socket.AF_INET, "options use-vc", "many.test")
    assert found == {*MANY, "2001:db8::1"}
