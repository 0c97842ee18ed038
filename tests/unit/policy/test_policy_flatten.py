"""Rules to entries: the fewest prefixes, deny over allow, every rule named."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from axoneme.model.policy import PolicyRef, PortRange, Protocol
from axoneme.policy.flatten import Contribution, Ruling, flatten
from axoneme.policy.ports import EVERYTHING, Prefix, prefixes, wider

A, B, C = (PolicyRef("NetworkPolicy", "shop", name, "spec.ingress[0]") for name in "abc")
TCP_80, TCP_443, TCP, ICMP_ECHO = Prefix(6, 80, 96), Prefix(6, 443, 96), Prefix(6, 0, 80), Prefix(1, 8, 96)


def rule(ref: PolicyRef | None, *ranges: PortRange, deny: bool = False) -> Contribution:
    return Contribution(prefixes(ranges), deny, ref)


def test_a_range_takes_the_fewest_prefixes() -> None:
    assert prefixes([PortRange(Protocol.TCP, 80, 80)]) == {TCP_80}
    assert prefixes([PortRange(Protocol.TCP)]) == {TCP}
    assert prefixes([PortRange(Protocol.TCP, 1024, 65535)]) == {
        Prefix(6, 1 << k, 80 + 16 - k) for k in range(10, 16)
    }
    assert len(prefixes([PortRange(Protocol.TCP, 1, 65534)])) == 30


def test_adjacent_and_overlapping_ranges_are_one() -> None:
    ranges = [
        PortRange(Protocol.TCP, 82, 83),
        PortRange(Protocol.TCP, 80, 81),
        PortRange(Protocol.TCP, 81, 82),
    ]
    assert prefixes(ranges) == {Prefix(6, 80, 94)}


def test_any_protocol_means_every_packet_alone_and_three_protocols_with_a_port() -> None:
    assert prefixes([PortRange(Protocol.ANY), PortRange(Protocol.TCP, 80, 80)]) == {EVERYTHING}
    assert prefixes([PortRange(Protocol.ANY, 80, 80)]) == {Prefix(p, 80, 96) for p in (6, 17, 132)}


def test_icmp_types_stand_where_ports_stand() -> None:
    assert prefixes([PortRange(Protocol.ICMP, 8, 8)]) == {ICMP_ECHO}


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), min_size=1, max_size=4))
@example([(0, 65535)])
@example([(0, 0), (65535, 65535)])
def test_prefixes_cover_exactly_the_ports(bounds: list[tuple[int, int]]) -> None:
    covered: list[int] = []
    for _, port, length in prefixes([PortRange(Protocol.UDP, min(b), max(b)) for b in bounds]):
        covered += range(port, port + (1 << 96 - length))
    assert len(covered) == len(set(covered))
    assert set(covered) == {port for b in bounds for port in range(min(b), max(b) + 1)}


def test_wider_prefixes_come_longest_first() -> None:
    around = list(wider(TCP_80))
    assert [p.length for p in around] == [*range(95, 79, -1), 72]
    assert around[-2:] == [TCP, EVERYTHING]
    assert list(wider(EVERYTHING)) == []


def test_a_narrow_allow_inside_a_wide_deny_leaves_no_entry() -> None:
    found = flatten([rule(A, PortRange(Protocol.TCP), deny=True), rule(B, PortRange(Protocol.TCP, 80, 80))])
    assert found == {TCP: Ruling(True, (A,))}


def test_a_narrow_deny_cuts_a_hole_into_a_wide_allow() -> None:
    found = flatten([rule(A, PortRange(Protocol.ANY)), rule(B, PortRange(Protocol.TCP, 80, 80), deny=True)])
    assert found == {EVERYTHING: Ruling(False, (A,)), TCP_80: Ruling(True, (B,))}


def test_each_port_names_all_rules_that_give_its_verdict() -> None:
    wide = rule(A, PortRange(Protocol.TCP))
    both = rule(B, PortRange(Protocol.TCP, 80, 80), PortRange(Protocol.TCP, 443, 443))
    assert flatten([both, wide, rule(C, PortRange(Protocol.TCP, 443, 443), deny=True)]) == {
        TCP: Ruling(False, (A,)),
        TCP_80: Ruling(False, (A, B)),
        TCP_443: Ruling(True, (C,)),
    }


def test_a_rule_that_adds_nothing_makes_no_entry_and_nobody_is_not_named() -> None:
    same = rule(A, PortRange(Protocol.TCP, 80, 80))
    assert flatten([rule(A, PortRange(Protocol.TCP)), same]) == {TCP: Ruling(False, (A,))}
    assert flatten([rule(None, PortRange(Protocol.ANY))]) == {EVERYTHING: Ruling(False, ())}
    assert flatten([rule(None, PortRange(Protocol.ANY)), same])[TCP_80] == Ruling(False, (A,))
    assert flatten([]) == {}
