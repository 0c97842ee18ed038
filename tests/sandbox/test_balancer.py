"""`axo lb` with real packets: a client, balancers and backends in namespaces of their own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
import yaml
from balancers import CHECK, PORT, VIP, Scene, Tunnel, address, backends, eventually, scene, service, shown
from traffic import Pings

from axoneme.balancer.config import load
from axoneme.model.balancer import version as digest

VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def standing() -> Iterator[Scene]:
    """A scene with one balancer that runs; tests leave it with the same file."""
    with scene() as made:
        made.balancers["lb1"].configure(FILE)
        made.balancers["lb1"].start()
        yield made


FILE = {
    "services": [
        service(health=CHECK),
        service(
            "udp",
            frontends=[{"address": VIP[version], "port": 53, "protocol": "UDP"} for version in (4, 6)],
        ),
        service("weighted", frontends=[{"address": VIP[4], "port": 81}], backends=[
            {"name": "b1", "address": address("b1", 4), "port": PORT, "weight": 9},
            {"name": "b2", "address": address("b2", 4), "port": PORT},
        ]),
        service("closed", frontends=[{"address": VIP[v], "port": 82} for v in (4, 6)], backends=[]),
        service("strangers", frontends=[{"address": VIP[4], "port": 83}], backends=backends("b1"),
                source_ranges=["198.51.100.0/24"]),
    ]
}  # fmt: skip


@VERSIONS
def test_clients_get_backends_which_see_the_balancer(standing: Scene, version: int) -> None:
    with standing.connect(version) as talk:
        assert talk.saw == address("lb1", version)
        assert talk.echo("hello")
        found = eventually(standing.balancers["lb1"].connections, "it is listed").connections
        client = standing.balancers["lb1"].connections().connections
        mine = [each for each in client if each.client.endswith(f":{talk.port}")]
        assert len(mine) == 1, shown(found)
        assert mine[0].backend == f"{talk.backend}-v{version}"
        assert mine[0].service == "web"
    assert standing.chosen(version, 30).keys() == {"b1", "b2", "b3"}


@VERSIONS
def test_datagrams_are_balanced(standing: Scene, version: int) -> None:
    answers = [standing.ask(version) for _ in range(30)]
    assert {name for name, _ in answers} == {"b1", "b2", "b3"}
    assert {seen for _, seen in answers} == {address("lb1", version)}
    assert len({standing.ask(version, source=40404)[0] for _ in range(5)}) == 1


def test_weights_are_shares(standing: Scene) -> None:
    found = standing.chosen(4, 100, 81)
    assert found["b1"] > 60
    assert found["b2"] > 0


@VERSIONS
def test_a_service_without_backends_and_a_port_that_is_none_are_refused_at_once(
    standing: Scene, version: int
) -> None:
    for port in (82, 99):
        with pytest.raises(ConnectionRefusedError):
            standing.connect(version, port)


def test_who_is_not_in_the_source_ranges_gets_nothing(standing: Scene) -> None:
    with pytest.raises(TimeoutError):
        standing.connect(4, 83, timeout=1.0)


@VERSIONS
def test_the_frontend_answers_echo(standing: Scene, version: int) -> None:
    ping = Pings("ping", standing.namespaces.path("client"), VIP[version], 0)
    ping.begin()
    ping.say(b"hello")


def test_a_drained_backend_keeps_its_connections_and_gets_no_new_ones(standing: Scene) -> None:
    balancer = standing.balancers["lb1"]
    with standing.connect(4) as talk:
        backend = f"{talk.backend}-v4"
        made = balancer.command("drain", "web", backend)
        assert made.returncode == 0, made.stderr
        assert balancer.states()[backend] == "draining"
        assert talk.backend not in standing.chosen(4, 30)
        assert talk.echo("still here")
        assert f"name: {backend}" in balancer.file.read_text()
        assert balancer.file.read_text().startswith("# By hand.\n")
        waiting = balancer.command("drain", "web", backend, "--wait", "--timeout", "0.1")
        assert waiting.returncode == 3
    assert balancer.command("drain", "web", backend, "--wait").returncode == 0
    assert balancer.command("undrain", "web", backend).returncode == 0
    assert talk.backend in standing.chosen(4, 60)


@pytest.mark.parametrize("how", ["refuses", "answers 503"])
def test_a_backend_that_fails_its_checks_is_out_until_it_is_well(standing: Scene, how: str) -> None:
    balancer, server = standing.balancers["lb1"], standing.servers["b2"]
    eventually(lambda: balancer.states()["b2-v4"] == "up", "b2 is up")
    if how == "refuses":
        server.stop()
    else:
        server.status = 503
    eventually(lambda: balancer.states()["b2-v4"] == "down", "b2 is down")
    eventually(lambda: "b2" not in standing.chosen(4, 30), "clients get others")
    report = next(each for each in balancer.service("web").backends if each.name == "b2-v4")
    assert report.problem == ("Connection refused" if how == "refuses" else "HTTP status 503")
    server.status = 200
    if how == "refuses":
        server.start()
    eventually(lambda: {*balancer.states().values()} == {"up"}, "b2 is up again")
    eventually(lambda: "b2" in standing.chosen(4, 60), "clients get it again")


def test_connections_of_a_backend_that_is_down_are_ended_and_those_of_the_others_are_not(
    standing: Scene,
) -> None:
    balancer = standing.balancers["lb1"]
    eventually(lambda: {*balancer.states().values()} == {"up"}, "all are up")
    talks = [standing.connect(4) for _ in range(12)]
    try:
        standing.servers["b3"].status = 503
        eventually(lambda: balancer.states()["b3-v4"] == "down", "b3 is down")
        eventually(lambda: "b3" not in standing.chosen(4, 30), "the kernel knows")
        for talk in talks:
            if talk.backend != "b3":
                assert talk.echo("on")
                continue
            with pytest.raises(ConnectionResetError):
                talk.echo("on")
    finally:
        standing.servers["b3"].status = 200
        for talk in talks:
            talk.close()
    eventually(lambda: {*balancer.states().values()} == {"up"}, "b3 is up again")


def test_the_file_is_followed_and_a_bad_one_changes_nothing(standing: Scene) -> None:
    balancer = standing.balancers["lb1"]
    before = balancer.status().version
    text = balancer.file.read_text()
    try:
        balancer.file.write_text(text.replace("port: 81", "prot: 81"))
        eventually(lambda: balancer.status().problems, "the mistake is told")
        assert "prot" in "".join(balancer.status().problems.values())
        assert balancer.status().version == before
        assert balancer.command("status").returncode == 1
        assert standing.chosen(4, 1, 81)
        balancer.file.write_text(text.replace("port: 81", "port: 84"))
        eventually(lambda: balancer.status().version != before, "the edit is taken")
        assert not balancer.status().problems
        assert standing.chosen(4, 1, 84)
        with pytest.raises(ConnectionRefusedError):
            standing.connect(4, 81)
    finally:
        balancer.file.write_text(text)
    eventually(lambda: balancer.status().version == before, "as before")


def test_the_commands_show_it(standing: Scene) -> None:
    balancer = standing.balancers["lb1"]
    with standing.connect(6) as talk:
        assert balancer.command("status").returncode == 0
        listed = balancer.command("services").stdout
        assert f"[{VIP[6]}]:80/TCP" in listed
        assert "b1-v6" in balancer.command("backends", "web").stdout
        shown_lines = balancer.command("connections", "--service", "web").stdout.splitlines()
        mine = [line for line in shown_lines if f":{talk.port} " in line]
        assert len(mine) == 1
        assert f"{talk.backend}-v6" in mine[0]
    as_json = json.loads(balancer.command("services", "-o", "json").stdout)
    assert as_json == yaml.safe_load(balancer.command("services", "-o", "yaml").stdout)
    missing = balancer.command("backends", "nothing")
    assert missing.returncode == 1
    assert "there is no service nothing" in missing.stderr


def test_apply_puts_a_file_in_the_place_of_all(standing: Scene) -> None:
    balancer = standing.balancers["lb1"]
    text = balancer.file.read_text()
    other = balancer.folder / "other.yaml"
    other.write_text(text.replace("port: 81", "port: 85"))
    made = balancer.command("apply", "-f", str(other))
    assert "service/weighted configured" in made.stdout, made.stderr
    assert "service/web unchanged" in made.stdout
    assert standing.chosen(4, 1, 85)
    assert digest(load(balancer.file)[1]) == digest(load(other)[1])
    back = balancer.folder / "back.yaml"
    back.write_text(text)
    assert balancer.command("apply", "-f", str(back)).returncode == 0
    assert digest(load(balancer.file)[1]) == digest(load(back)[1])
    balancer.file.write_text(text)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_loses_nothing_and_writes_nothing(standing: Scene, how: signal.Signals) -> None:
    balancer = standing.balancers["lb1"]
    eventually(lambda: {*balancer.states().values()} <= {"up", "unknown"}, "all are up")
    talks = [standing.connect(version) for version in (4, 6) for _ in range(4)]
    standing.servers["b1"].status = 503
    eventually(lambda: [*balancer.states().values()].count("down") == 2, "b1 is down, by both families")
    alive = [talk for talk in talks if talk.backend != "b1"]
    balancer.end(how)
    assert standing.chosen(4, 10)  # nobody is there, and clients are served
    assert all(talk.echo("alone") for talk in alive)
    balancer.start()
    assert balancer.states()["b1-v4"] == "down"  # it remembers, without having tried
    assert balancer.status().writes == 0, balancer.log()
    assert all(talk.echo("again") for talk in alive)
    standing.servers["b1"].status = 200
    eventually(lambda: {*balancer.states().values()} == {"up"}, "b1 is up again")
    for talk in talks:
        talk.close()


@VERSIONS
def test_two_balancers_with_one_file_choose_alike(pair: Scene, version: int) -> None:
    """What sits before them may move a client's packets from one to the other (ECMP)."""
    ports = range(40000, 40040)
    pair.route("lb1")
    first = [pair.ask(version, source=port)[0] for port in ports]
    pair.route("lb2")
    second = [pair.ask(version, source=port)[0] for port in ports]
    assert first == second
    assert {*first} == {"b1", "b2", "b3"}


def test_when_all_are_down_a_service_refuses_or_gives_any() -> None:
    with scene() as made:
        balancer = made.balancers["lb1"]
        for server in made.servers.values():
            server.status = 503
        file = {"services": [
            service(health=CHECK),
            service("any", frontends=[{"address": VIP[4], "port": 81}], health=CHECK, when_all_down="all"),
        ]}  # fmt: skip
        balancer.configure(file)
        balancer.start()
        eventually(lambda: {*balancer.states().values()} == {"down"}, "all are down")

        def refused() -> bool:
            try:
                made.connect(4).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(refused, "clients are refused")
        assert made.chosen(4, 3, 81)


@VERSIONS
def test_with_direct_return_backends_see_clients_and_connections_move_between_balancers(
    pair: Scene, version: int
) -> None:
    pair.route("lb1")
    with pair.connect(version, PORT) as talk:
        assert talk.saw == address("client", version)
        assert talk.echo("by the first")
        listed = pair.balancers["lb1"].connections().connections
        mine = [each for each in listed if each.client.endswith(f":{talk.port}")]
        assert [each.backend for each in mine] == [f"{talk.backend}-v{version}"], shown(listed)
        pair.route("lb2")
        assert talk.echo("by the second, which has never heard of it")
        pair.route("lb1")
        assert talk.echo("and back")
    assert pair.chosen(version, 30, PORT).keys() == {"b1", "b2", "b3"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Scene]:
    """Two balancers with one file, but for the order of backends. Those of `web` answer clients directly."""
    with scene("lb1", "lb2") as made:
        tunnels = [Tunnel(made.namespaces.path(name)) for name in made.servers]
        frontends = [{"address": VIP[version], "port": PORT} for version in (4, 6)]
        datagrams = [{"address": VIP[version], "port": 53, "protocol": "UDP"} for version in (4, 6)]
        found = backends("b1", "b2", "b3")
        for each in made.balancers.values():
            without_ports = [{key: value for key, value in one.items() if key != "port"} for one in found]
            each.configure({"services": [
                service(frontends=frontends, backends=without_ports, mode="dsr"),
                service("udp", frontends=datagrams, backends=found),
            ]})  # fmt: skip
            each.start()
            found = found[::-1]
        try:
            yield made
        finally:
            for tunnel in tunnels:
                tunnel.close()
