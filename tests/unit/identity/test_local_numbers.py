from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.identity.local import (
    LocalNumbers,
    LocalNumbersExhausted,
    Named,
    Network,
    Nodes,
    holder_of,
)
from axoneme.identity.numbers import is_node_local
from axoneme.identity.prefixes import PrefixSet, address_bytes, network_of, prefix_of
from axoneme.model.labels import Label, Labels
from axoneme.policy.identities import outside

PREFIXES: list[Network] = [ip_network(f"10.{n}.0.0/16") for n in range(8)]


def test_a_prefix_keeps_its_number_while_it_is_held() -> None:
    numbers = LocalNumbers()
    first, second = numbers.acquire(PREFIXES[0]), numbers.acquire(PREFIXES[1])
    assert is_node_local(first)
    assert first != second
    assert numbers.acquire(PREFIXES[0]) == first
    assert numbers.holder(second) == PREFIXES[1]
    assert len(numbers) == 2


def test_what_the_kernel_holds_stays_as_it_is_after_a_restart() -> None:
    before = LocalNumbers()
    held = {prefix: before.acquire(prefix) for prefix in PREFIXES[:3]}
    del held[PREFIXES[1]]
    after = LocalNumbers(held)
    assert {prefix: after.acquire(prefix) for prefix in held} == held
    # The number in the gap may still be written somewhere.
    assert after.acquire(PREFIXES[5]) > max(held.values())


def test_who_is_remembered_gets_his_number_back_until_the_others_are_forgotten() -> None:
    remembered = dict(zip(PREFIXES[:3], (102, 103, 100), strict=True))
    numbers = LocalNumbers({PREFIXES[4]: 100}, remembered, first=100, last=109)
    assert numbers.acquire(PREFIXES[0]) == 102
    assert numbers.acquire(PREFIXES[2]) == 104, "another has the number meanwhile"
    numbers.forget_others()
    assert numbers.acquire(PREFIXES[1]) == 105


@pytest.mark.parametrize("around", ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0"])
def test_who_has_a_number_is_read_back_from_labels(around: str) -> None:
    named = Named(ip_network(around), frozenset({"a.io", "*.io", "*"}))
    names = [Label("fqdn", text) for text in named.selectors]
    assert holder_of(outside(7, named.around, names).labels.texts()) == named
    nodes = Labels.parse(["node:disk=ssd", "node:topology.kubernetes.io/zone=a", "node:control-plane"])
    assert holder_of([*nodes.texts(), "reserved:remote-node"]) == Nodes(nodes)
    mere = named.around if named.around.prefixlen else None
    assert holder_of(outside(7, named.around, ()).labels.texts()) == mere
    assert holder_of(["k8s:app=web"]) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 31), st.integers(96, 128))), st.integers(0, 31))
def test_the_longest_prefix_around_an_address(steps: list[tuple[bool, int, int]], last: int) -> None:
    prefixes, model = PrefixSet(), set[Network]()
    for put, host, bits in steps:
        network = ip_network((f"10.0.0.{host}", bits - 96), strict=False)
        (prefixes.add if put else prefixes.discard)(prefix_of(network))
        (model.add if put else model.discard)(network)
    address = ip_address(f"10.0.0.{last}")
    around = [network for network in model if address in network]
    found = prefixes.longest(address_bytes(str(address)))
    assert (network_of(found) if found else None) == max(around, key=lambda n: n.prefixlen, default=None)
    assert bool(prefixes) == bool(model)


def test_a_number_given_back_is_given_out_again_last() -> None:
    numbers = LocalNumbers(first=100, last=103)
    for prefix in PREFIXES[:3]:
        numbers.acquire(prefix)
    assert numbers.release(PREFIXES[2]) == 102
    assert numbers.release(PREFIXES[2]) is None
    assert numbers.holder(102) is None
    assert numbers.acquire(PREFIXES[3]) == 103
    assert numbers.acquire(PREFIXES[4]) == 102


def test_running_out_is_an_error_with_the_number() -> None:
    numbers = LocalNumbers(first=100, last=101)
    numbers.acquire(PREFIXES[0])
    numbers.acquire(PREFIXES[1])
    with pytest.raises(LocalNumbersExhausted, match="all 2 numbers"):
        numbers.acquire(PREFIXES[2])


@pytest.mark.parametrize("held", [{PREFIXES[0]: 99}, {PREFIXES[0]: 100, PREFIXES[1]: 100}])
def test_a_kernel_table_that_cannot_be_is_refused(held: dict[Network, int]) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/16"):
        LocalNumbers(held, first=100, last=200)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(PREFIXES))))
def test_numbers_are_never_shared(steps: list[tuple[bool, Network]]) -> None:
    numbers, model = LocalNumbers(first=100, last=109), dict[Network, int]()
    for acquire, prefix in steps:
        if acquire:
            number = numbers.acquire(prefix)
            assert model.setdefault(prefix, number) == number
        else:
            assert numbers.release(prefix) == model.pop(prefix, None)
        assert len(set(model.values())) == len(model)
        assert {numbers.get(each) for each in model} == set(model.values())
