"""What rules above L4, and policies that are only tried, make of packets: naive judge and programs agree."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from bench_node import PASS, REDIRECT, SHOT, Node, node
from test_policy_oracle import DROP, NEW, REASONS, address_of, populate

from axoneme.model.policy import Direction
from axoneme.net.commands import ip
from axoneme.policy.arrays import entry_arrays
from axoneme.policy.lookup import Outcome, evaluate
from axoneme.policy.table import Key, Value
from oracle.packets import TCP, UDP, frame
from oracle.policy import judge
from oracle.scenarios import Scenario, some_packet, some_scenario

SCENARIOS, PACKETS = 30, 200
PROXIED, AUDITED_EGRESS, AUDITED_INGRESS = 1 << 4, 1 << 5, 1 << 6  # enum event_flag
NO_PROXY, TO_PROXY = 178, 0x0200


@contextmanager
def listening(ports: Iterable[int]) -> Iterator[None]:
    with ExitStack() as stack:
        for port in ports:
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    made = stack.enter_context(socket.socket(family, kind))
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x0900)  # a proxy's
                    made.bind((address, port))
                    if kind == socket.SOCK_STREAM:
                        made.listen()
        yield


def write(kernel: Node, table: dict[Key, Value], ports: dict[int, int]) -> None:
    policies = kernel.plane.policies
    policies.clear()
    policies.write(*entry_arrays(list(table.items()), policies.key, policies.value, ports))
    kernel.plane.raise_all()


def compare(
    kernel: Node, rng: random.Random, scenario: Scenario
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many packets went to a proxy, passed only because policies are tried, and were dropped."""
    engine, world = scenario.engine(rng), scenario.world()
    engine.changes()
    table = dict(engine.table)
    listeners = sorted({value.listener for value in table.values()} - {0})
    ports = {each: 10000 + index for index, each in enumerate(listeners)}
    peers = dict(scenario.peers(engine))
    parties = {number: scenario.party(number) for number in scenario.subjects}
    proxied = audited = dropped = 0
    with listening(ports.values()):
        write(kernel, table, ports)
        populate(kernel, scenario, list(peers))
        for index in range(PACKETS):
            subject, direction = rng.choice(sorted(parties)), rng.choice(list(Direction))
            number = rng.choice(sorted(peers))
            protocol, port = some_packet(rng)
            if protocol not in (TCP, UDP):
                continue
            wanted = judge(world, parties[subject], direction, peers[number], protocol, port)
            port_wanted = ports.get(evaluate(table, subject, direction, number, protocol, port).listener, 0)
            assert bool(port_wanted) == bool(wanted.above)
            version = rng.choice((4, 6))
            here = address_of(subject, version) + (1 << 24 if version == 4 else 1 << 40)
            there = address_of(number, version)
            kernel.endpoint(here, subject)
            out = direction is Direction.EGRESS
            ends = (here, there) if out else (there, here)
            run = kernel.send("from_pod" if out else "to_pod", frame(*ends, protocol, 1024 + index, port))
            case = (subject, direction.name, number, protocol, port, str(here), str(there))
            event, *more = kernel.events()
            kernel.remove_endpoint(here)
            if wanted.outcome is not Outcome.ALLOWED:
                assert (run.value, event["kind"]) == (SHOT, DROP), case
                assert event["reason"] == REASONS[wanted.outcome], case
                dropped += 1
                continue
            assert event["kind"] == NEW, case
            tried = int(event["flags"]) & (AUDITED_EGRESS if out else AUDITED_INGRESS)
            assert bool(tried) == wanted.audit, case
            assert bool(int(event["flags"]) & PROXIED) == bool(wanted.above), case
            proxied += bool(wanted.above)
            audited += wanted.audit
            if not wanted.above:
                assert (run.value in (PASS, REDIRECT), more) == (True, []), case
                continue
            assert int(event["nat_port"]) == port_wanted, case
            if out:  # a test run is not on its way in, where alone a socket can be assigned
                assert [each["reason"] for each in more] == [NO_PROXY], case
            else:
                assert int(run.context["mark"]) == TO_PROXY | port_wanted << 16, case
    return [proxied, audited, dropped]


def test_kernel_and_oracle_agree_on_what_goes_to_proxies(tmp_path: Path) -> None:
    rng = random.Random(20261127)
    with node(tmp_path / "bpf", flows=2048, half_open=512) as kernel:
        ip(["link set lo up"])  # to have ::1
        counts = np.zeros(3, np.int64)
        for _ in range(SCENARIOS):
            kernel.forget_flows()
            counts += compare(kernel, rng, some_scenario(rng, above=True))
        assert (counts > SCENARIOS * PACKETS / 100).all(), counts
