"""Random services, clients, and changes: the programs do what the naive model says, packet by packet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from balancing import ANY, EXTERNAL, RANGES, Balancer
from bench_node import PASS, REDIRECT, SHOT, Node
from places import NODE, OTHER, OUR, POD, REMOTE, WORLD
from test_services import ELSEWHERE, SERVICE, balancer, packet, sound

from axoneme.datapath.plane import unpacked
from axoneme.services.maglev import Shares
from oracle.packets import ACK, RST, SCTP, SYN, TCP, UDP, Address, dissect
from oracle.services import (
    MAGLEV,
    NO_BACKEND,
    NO_TUPLE,
    RANDOM,
    WEIGHTED,
    Connection,
    End,
    Frontend,
    Model,
    Service,
    Tuple,
    murmur3,
    tuple_hash,
)

__all__ = ["balancer"]

ROUNDS, STEPS = 40, 120
NAT_PORTS = range(1024, 32768)
OTHER_NODE = {4: NODE, 6: ip_address("fd00:a0::9")}
SECOND = {4: ip_address("203.0.113.200"), 6: ip_address("2001:db8:a::200")}
PORTS = (80, 443, 30080)
CLIENT_PORTS = (40000, 40001)


class World:
    """One random set of services in the kernel and in the model, and packets to both."""

    def __init__(self, kernel: Node, balancer: Balancer, rng: random.Random) -> None:
        self.kernel, self.balancer, self.rng = kernel, balancer, rng
        self.model = Model(
            own={*OUR.values()},
            pods={*POD.values(), *OTHER.values()},
            cluster={*REMOTE.values(), *OTHER_NODE.values()},
        )
        self.seen: Counter[str] = Counter()
        self.next_backend = 1
        self.protocols: dict[int, int] = {}
        self.versions: dict[int, int] = {}
        self.places: dict[int, Shares] = {}
        number = 1
        for version in (4, 6):
            for protocol in (TCP, UDP, SCTP):
                for _ in range(rng.randint(1, 3)):
                    self.add_service(number, version, protocol)
                    number += 2
        self.write_places()

    # ---- tables --------------------------------------------------------------------------------

    def add_service(self, number: int, version: int, protocol: int) -> None:
        """With a view of its own for callers from outside, sometimes."""
        rng = self.rng
        outside = number + rng.randint(0, 1)
        for each in {number, outside}:
            self.protocols[each], self.versions[each] = protocol, version
            self.model.services[each] = Service([], rng.choice((RANDOM, MAGLEV, WEIGHTED)))
            for _ in range(rng.choice((0, 1, 1, 2, 5))):
                self.add_backend(each)
            self.write(each)
        address = rng.choice((ANY[version], OUR[version], SERVICE[version], SERVICE[version]))
        ranges: tuple[IPv4Network | IPv6Network, ...] | None = None
        if rng.random() < 0.2:
            ranges = (ip_network((WORLD[version], 25 if version == 4 else 121), strict=False),)
        frontend = Frontend(number, outside, rng.random() < 0.85, ranges)
        port = rng.choice(PORTS)
        key = (address, port, protocol)
        if key in self.model.frontends:
            return
        self.model.frontends[key] = frontend
        self.balancer.frontend(
            address,
            port,
            protocol,
            number,
            EXTERNAL * frontend.external | RANGES * (ranges is not None),
            outside,
        )
        for network in ranges or ():
            self.balancer.source_range(outside, network.network_address, network.prefixlen)

    def add_backend(self, service: int) -> None:
        version, protocol = self.versions[service], self.protocols[service]
        where = self.rng.choice((POD, OTHER, OTHER, REMOTE, ELSEWHERE, OUR))[version]
        number, self.next_backend = self.next_backend, self.next_backend + 1
        self.model.backends[number] = End(where, self.rng.choice((8080, 8081, 8082)))
        self.balancer.backend(number, *self.model.backends[number], protocol)
        self.model.services[service].backends.append(number)

    def write(self, number: int) -> None:
        """The same to both."""
        service = self.model.services[number]
        if service.backends and service.algorithm != RANDOM:
            each = ((f"{backend}", self.rng.randint(1, 3), backend) for backend in service.backends)
            self.places[number] = shares = Shares(tuple(each))
            service.places = shares.places().tolist()
        self.balancer.service(number, service.backends, service.algorithm)

    def write_places(self) -> None:
        """All that have changed at once: the kernel takes its time for each call."""
        self.kernel.plane.maglev.write(self.places)
        self.places = {}

    def change(self) -> None:
        """A service gets a backend, or one leaves: at once, or when its connections have ended."""
        number = self.rng.choice(list(self.model.services))
        service = self.model.services[number]
        if not service.backends or self.rng.random() < 0.5:
            self.add_backend(number)
            self.write(number)
            self.write_places()
            return
        gone = service.backends.pop(self.rng.randrange(len(service.backends)))
        self.write(number)
        self.write_places()
        if self.rng.random() < 0.6:
            del self.model.backends[gone]
            self.balancer.remove_backend(gone)

    # ---- packets -------------------------------------------------------------------------------

    def send(self, sender: Address, data: bytes) -> tuple[int, bytes]:
        """From where this sender's packets come."""
        program, ifindex = {
            **dict.fromkeys(POD.values(), ("from_pod", 1)),
            **dict.fromkeys(OTHER.values(), ("from_pod", self.kernel.uplink)),
        }.get(sender, ("from_uplink", self.kernel.uplink))
        run = self.kernel.send(program, data, ifindex)
        return run.value, run.data

    def some_call(self) -> Tuple:
        version, protocol = self.rng.choice((4, 6)), self.rng.choice((TCP, UDP, SCTP))
        to = End(self.rng.choice((OUR, SERVICE))[version], self.rng.choice(PORTS))
        if self.rng.random() < 0.9:
            address, port, protocol = self.rng.choice(list(self.model.frontends))
            version = address.version
            to = End(OUR[version] if address == ANY[version] else address, port)
        client = self.rng.choice((WORLD, WORLD, SECOND, OTHER_NODE, POD, POD, OTHER))[version]
        return Tuple(End(client, self.rng.choice(CLIENT_PORTS)), to, protocol)

    def call(self) -> None:
        """A packet of a client, the first or another one."""
        call, model = self.some_call(), self.model
        first = call not in model.connections
        flags = SYN if first and self.rng.random() < 0.8 else ACK
        data = packet(
            call.source.address,
            call.destination.address,
            call.protocol,
            (call.source.port, call.destination.port),
            flags=flags,
        )
        lost = model.lost(call)
        if lost:
            del model.connections[call]
        known = model.known(call)
        if lost and call.protocol == TCP and flags != SYN:
            self.dropped(call, data, NO_BACKEND)
        elif known is not None:
            value, out = self.send(call.source.address, data)
            self.arrives(out, known.there)
            assert value == (PASS if known.backend.address in model.own else REDIRECT)
            self.seen["again"] += 1
        else:
            self.first(call, data)

    def first(self, call: Tuple, data: bytes) -> None:
        model = self.model
        judged = model.judged(call)
        if judged is None:
            if call.source.address in model.pods:
                return  # it would begin a connection without a service
            assert self.send(call.source.address, data) == (PASS, data), call
            self.seen["not ours"] += 1
        elif isinstance(judged, int):
            self.dropped(call, data, judged)
        else:
            value, out = self.send(call.source.address, data)
            if value == SHOT and model.may_be_refused(call):
                assert self.reasons() == [NO_TUPLE]
                return
            assert value in (PASS, REDIRECT), (call, self.reasons())
            self.begins(call, judged, out)

    def begins(self, call: Tuple, allowed: set[int], out: bytes) -> None:
        model, seen = self.model, sound(out)
        backend = End(seen.destination, seen.ports[1])
        numbers = {number for number in allowed if model.backends[number] == backend}
        assert numbers, (call, backend, {model.backends[number] for number in allowed})
        (event,) = [event for event in self.kernel.events() if int(event["kind"]) == 1]
        assert unpacked(bytes(event["frontend"])) == call.destination.address
        assert int(event["frontend_port"]) == call.destination.port
        number = int(event["backend"])
        assert number in numbers
        source = End(seen.source, seen.ports[0])
        speaks_as = model.changes_source(call, number)
        if speaks_as["itself"]:
            assert source == call.source
        else:
            address = call.destination.address if speaks_as["service"] else OUR[seen.source.version]
            assert source.address == address
            assert source.port in NAT_PORTS
        made = Connection(call.source, call.destination, backend, number, call.protocol, source)
        model.begin(made.own)
        assert made.answer not in {each.answer for each in model.connections.values()}, "ends are told apart"
        model.connections[call] = made
        self.seen["began"] += 1
        self.seen[next(kind for kind, so in speaks_as.items() if so)] += 1

    def answer(self) -> None:
        """A backend answers its client."""
        if not self.model.connections:
            return
        call = self.rng.choice(list(self.model.connections))
        if self.model.lost(call):
            return
        made = self.model.connections[call]
        (source, destination, protocol) = made.answer
        data = packet(
            source.address, destination.address, protocol, (source.port, destination.port), flags=SYN | ACK
        )
        if source.address in self.model.own:
            if made.client.address in self.model.pods:
                ifindex = 1 if made.client.address in POD.values() else self.kernel.uplink
                run = self.kernel.send("to_pod", data, ifindex)
            else:
                run = self.kernel.send("to_uplink", data, self.kernel.uplink)
            value, out = run.value, run.data
            assert value == PASS
        else:
            value, out = self.send(source.address, data)
            assert value == REDIRECT, (made, self.reasons())
        self.arrives(out, made.back)
        self.seen["answered"] += 1

    def plain_call(self) -> None:
        """A pod calls a backend by its own address: it may be in the way of a service's connection."""
        number, service = self.rng.choice(list(self.model.services.items()))
        if not service.backends:
            return
        to, protocol = self.model.backends[self.rng.choice(service.backends)], self.protocols[number]
        client = End(POD[to.address.version], self.rng.choice(CLIENT_PORTS))
        call = Tuple(client, to, protocol)
        if to.address not in {*OTHER.values(), *REMOTE.values()}:
            return  # the others are masqueraded, or the node's and its own
        data = packet(client.address, to.address, protocol, (client.port, to.port))
        value, out = self.send(call.source.address, data)
        if protocol == TCP and any(made.own == call for made in self.model.connections.values()):
            assert value == SHOT
            assert self.reasons() == [NO_TUPLE]
            self.seen["in the way"] += 1
        else:
            assert value == REDIRECT
            self.arrives(out, call)
            self.model.begin(call)
            self.model.plain.add(call)

    def arrives(self, data: bytes, wanted: Tuple) -> None:
        seen = sound(data)
        assert (End(seen.source, seen.ports[0]), End(seen.destination, seen.ports[1])) == wanted[:2]

    def dropped(self, call: Tuple, data: bytes, reason: int) -> None:
        value, out = self.send(call.source.address, data)
        reasons = self.reasons()
        assert reasons == [reason], (call, value)
        if reason == NO_BACKEND:
            if value == REDIRECT:  # answers are limited
                assert dissect(out).destination == call.source.address
                assert call.protocol != TCP or dissect(out).l4[13] & RST
        else:
            assert value == SHOT
        self.seen[f"dropped {reason}"] += 1

    def reasons(self) -> list[int]:
        return [int(event["reason"]) for event in self.kernel.events() if int(event["kind"]) == 3]


@pytest.fixture
def balanced(kernel: Node, balancer: Balancer) -> Iterator[Balancer]:
    for version in (4, 6):
        kernel.address(OTHER_NODE[version], 6, OTHER_NODE[version], 1)
    yield balancer
    kernel.plane.maglev.delete(kernel.plane.maglev.adopt())


def test_the_hash_is_murmurhash3() -> None:
    """By vectors of the reference implementation."""
    assert murmur3(b"") == 0
    assert murmur3(b"test") == 0xBA6BD213
    assert murmur3(b"Hello, w") != murmur3(b"Hello, x")
    call = Tuple(End(WORLD[4], 40000), End(SERVICE[4], 80), TCP)
    assert tuple_hash(call) == tuple_hash(call)


def test_programs_and_model_agree(kernel: Node, balanced: Balancer) -> None:
    rng = random.Random(20261127)
    seen: Counter[str] = Counter()
    for _ in range(ROUNDS):
        balanced.clear()
        kernel.plane.maglev.delete(kernel.plane.maglev.adopt())
        kernel.forget_flows()
        for table in (kernel.plane.translations, kernel.plane.half_open_translations):
            table.clear()
        world = World(kernel, balanced, rng)
        for _ in range(STEPS):
            kernel.events()
            rng.choices((world.call, world.answer, world.change, world.plain_call), weights=(10, 6, 1, 3))[
                0
            ]()
        seen += world.seen
    for kind in ("began", "again", "answered", "itself", "node", "service", "not ours", "in the way"):
        assert seen[kind] >= (5 if kind == "in the way" else 20), seen
    for reason in (158, 177, 191):
        assert seen[f"dropped {reason}"], seen
