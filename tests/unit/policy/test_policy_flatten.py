"""Rules to entries: the fewest prefixes, deny over allow, every rule named."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from axoneme.model.policy import Authentication, PolicyRef, PortRange, Protocol, Rank, Tier
from axoneme.policy.flatten import Contribution, Ruling, flatten
from axoneme.policy.grants import HOST, Grant, open_but_for
from axoneme.policy.ports import EVERYTHING, Prefix, prefixes, wider
from axoneme.policy.table import Verdict

A, B, C = (PolicyRef("NetworkPolicy", "shop", name, "spec.ingress[0]") for name in "abc")
TCP_80, TCP_443, TCP, ICMP_ECHO = Prefix(6, 80, 96), Prefix(6, 443, 96), Prefix(6, 0, 80), Prefix(1, 8, 96)


def rule(
    ref: PolicyRef | None,
    *ranges: PortRange,
    deny: bool = False,
    tier: Tier = Tier.NORMAL,
    rank: Rank = (0, "", 0),
    passes: bool = False,
) -> Contribution:
    covered = prefixes(ranges)
    return covered, Grant(covered, frozenset(), deny, ref, tier, rank, passes)


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
    assert found == {TCP: Ruling(Verdict.DENY, (A,))}


def test_a_narrow_deny_cuts_a_hole_into_a_wide_allow() -> None:
    found = flatten([rule(A, PortRange(Protocol.ANY)), rule(B, PortRange(Protocol.TCP, 80, 80), deny=True)])
    assert found == {EVERYTHING: Ruling(Verdict.ALLOW, (A,)), TCP_80: Ruling(Verdict.DENY, (B,))}


def test_each_port_names_all_rules_that_give_its_verdict() -> None:
    wide = rule(A, PortRange(Protocol.TCP))
    both = rule(B, PortRange(Protocol.TCP, 80, 80), PortRange(Protocol.TCP, 443, 443))
    assert flatten([both, wide, rule(C, PortRange(Protocol.TCP, 443, 443), deny=True)]) == {
        TCP: Ruling(Verdict.ALLOW, (A,)),
        TCP_80: Ruling(Verdict.ALLOW, (A, B)),
        TCP_443: Ruling(Verdict.DENY, (C,)),
    }


def test_a_rule_that_adds_nothing_makes_no_entry_and_nobody_is_not_named() -> None:
    same = rule(A, PortRange(Protocol.TCP, 80, 80))
    assert flatten([rule(A, PortRange(Protocol.TCP)), same]) == {TCP: Ruling(Verdict.ALLOW, (A,))}
    assert flatten([rule(None, PortRange(Protocol.ANY))]) == {EVERYTHING: Ruling(Verdict.ALLOW, ())}
    assert flatten([rule(None, PortRange(Protocol.ANY)), same])[TCP_80] == Ruling(Verdict.ALLOW, (A,))
    assert flatten([]) == {}


def test_an_admins_narrow_allow_stands_inside_his_wider_deny_and_before_any_other() -> None:
    first = rule(A, PortRange(Protocol.TCP, 80, 80), tier=Tier.ADMIN, rank=(5, "a", 0))
    then = rule(B, PortRange(Protocol.TCP), deny=True, tier=Tier.ADMIN, rank=(5, "a", 1))
    normal = rule(C, PortRange(Protocol.ANY), deny=True)
    assert flatten([normal, then, first]) == {
        EVERYTHING: Ruling(Verdict.DENY, (C,)),
        TCP: Ruling(Verdict.DENY, (B,)),
        TCP_80: Ruling(Verdict.ALLOW, (A,)),
    }


def test_priority_comes_before_name_and_name_before_place() -> None:
    last = rule(A, PortRange(Protocol.TCP), tier=Tier.ADMIN, rank=(6, "a", 0))
    second = rule(B, PortRange(Protocol.TCP), tier=Tier.ADMIN, rank=(5, "b", 0))
    first = rule(C, PortRange(Protocol.TCP), deny=True, tier=Tier.ADMIN, rank=(5, "a", 1))
    assert flatten([last, second, first]) == {TCP: Ruling(Verdict.DENY, (C,))}
    assert flatten([last, second]) == {TCP: Ruling(Verdict.ALLOW, (B,))}


def test_what_is_passed_is_for_the_other_tiers_also_where_they_say_nothing() -> None:
    passed = rule(A, PortRange(Protocol.TCP, 80, 80), tier=Tier.ADMIN, rank=(1, "a", 0), passes=True)
    allow = rule(B, PortRange(Protocol.TCP), tier=Tier.ADMIN, rank=(1, "a", 1))
    assert flatten([passed, allow]) == {
        TCP: Ruling(Verdict.ALLOW, (B,)),
        TCP_80: Ruling(Verdict.NONE, ()),
    }
    normal = rule(C, PortRange(Protocol.ANY), deny=True)
    assert flatten([passed, allow, normal])[TCP_80] == Ruling(Verdict.DENY, (C,))
    baseline = rule(C, PortRange(Protocol.ANY), deny=True, tier=Tier.BASELINE)
    assert flatten([passed, allow, baseline])[TCP_80] == Ruling(Verdict.DENY, (C,))


def test_the_baseline_comes_after_all_policies_and_before_the_open_direction() -> None:
    open_ = rule(None, PortRange(Protocol.ANY))
    deny = rule(A, PortRange(Protocol.TCP), deny=True, tier=Tier.BASELINE)
    allow = rule(B, PortRange(Protocol.TCP, 80, 80))
    assert flatten([open_, deny, allow]) == {
        EVERYTHING: Ruling(Verdict.ALLOW, ()),
        TCP: Ruling(Verdict.DENY, (A,)),
        TCP_80: Ruling(Verdict.ALLOW, (B,)),
    }


def test_the_baseline_speaks_where_no_policy_would_close_the_direction() -> None:
    """Such as that of an endpoint without labels yet, which is only tried."""
    _, baseline = rule(B, PortRange(Protocol.ANY), tier=Tier.BASELINE)
    everything = frozenset({EVERYTHING})

    def ruling(closing: tuple[PolicyRef, ...]) -> Ruling:
        said = [(everything, open_but_for(closing)), (everything, baseline)]
        return flatten(said, audited=True)[EVERYTHING]

    assert ruling((A,)) == Ruling(Verdict.ALLOW, (A,), audit=True)
    assert not ruling(()).audit


def asking(
    ref: PolicyRef, mode: Authentication | None, *ranges: PortRange, audit: bool = False
) -> Contribution:
    covered = prefixes(ranges)
    grant = Grant(covered, frozenset(), deny=False, ref=ref, audit=audit, authentication=mode)
    return covered, grant


def modes(*contributions: Contribution) -> dict[Prefix, Authentication]:
    return {prefix: ruling.authentication for prefix, ruling in flatten(contributions).items()}


DISABLED, REQUIRED, ALWAYS_FAIL = Authentication


def test_the_narrowest_rule_that_speaks_of_authentication_decides_and_silent_ones_follow_wider_ones() -> None:
    wide = asking(A, REQUIRED, PortRange(Protocol.TCP))
    silent = asking(B, None, PortRange(Protocol.TCP, 80, 80))
    free = asking(C, DISABLED, PortRange(Protocol.TCP, 443, 443))
    assert modes(silent, free, wide) == {TCP: REQUIRED, TCP_80: REQUIRED, TCP_443: DISABLED}
    assert modes(silent) == {TCP_80: DISABLED}


def test_of_rules_for_the_same_ports_the_strictest_decides() -> None:
    port = PortRange(Protocol.TCP, 80, 80)
    rules = [asking(A, DISABLED, port), asking(B, REQUIRED, port), asking(C, None, port)]
    assert modes(*rules) == modes(*reversed(rules)) == {TCP_80: REQUIRED}
    assert modes(*rules, asking(C, ALWAYS_FAIL, port)) == {TCP_80: ALWAYS_FAIL}


def test_a_policy_that_is_only_tried_asks_nobody_for_authentication() -> None:
    port = PortRange(Protocol.TCP, 80, 80)
    assert modes(asking(A, None, port), asking(B, REQUIRED, port, audit=True)) == {TCP_80: DISABLED}


def test_the_node_reaches_its_pods_without_authentication() -> None:
    asks = asking(A, REQUIRED, PortRange(Protocol.ANY))
    assert modes(asks, (HOST.prefixes, HOST)) == {EVERYTHING: DISABLED}
    assert modes(asks) == {EVERYTHING: REQUIRED}
