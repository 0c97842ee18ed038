from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.ipam import pool as pool_module
from axoneme.ipam.pool import Address, AddressInUse, NotInPool, Pool, PoolExhausted, gateway
from axoneme.ipam.pools import AddressPools


def pool(*prefixes: str, excluded: tuple[str, ...] = ()) -> Pool:
    return Pool([ip_network(prefix) for prefix in prefixes], [ip_address(each) for each in excluded])


def take(pool: Pool, count: int) -> list[str]:
    return [str(pool.allocate()) for _ in range(count)]


def test_the_lowest_address_comes_first_after_network_and_gateway() -> None:
    assert take(pool("10.1.2.0/24"), 3) == ["10.1.2.2", "10.1.2.3", "10.1.2.4"]
    assert take(pool("fd00::/64"), 2) == ["fd00::2", "fd00::3"]
    assert gateway(ip_network("10.1.2.0/24")) == ip_address("10.1.2.1")


def test_neither_network_nor_broadcast_nor_gateway_nor_what_is_excluded_is_given_out() -> None:
    small = pool("10.0.0.0/29", excluded=("10.0.0.3",))
    assert small.capacity == 4
    assert take(small, 4) == ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(PoolExhausted):
        small.allocate()
    for never in ("10.0.0.0", "10.0.0.1", "10.0.0.3", "10.0.0.7", "10.0.0.8", "fd00::2"):
        with pytest.raises(NotInPool, match=r"10\.0\.0\.0/29"):
            pool("10.0.0.0/29", excluded=("10.0.0.3",)).allocate(ip_address(never))


def test_ipv6_has_no_broadcast_address() -> None:
    small = pool("fd00::/126")
    assert take(small, small.capacity) == ["fd00::2", "fd00::3"]


def test_an_address_given_back_comes_last_and_the_longest_waiting_first() -> None:
    small = pool("10.0.0.0/29")
    assert take(small, 3) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    for address in ("10.0.0.3", "10.0.0.2"):
        assert small.release(ip_address(address))
    assert take(small, 4) == ["10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"]


def test_only_the_newest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_WAITING", 2)
    wide = pool("fd00::/64")
    for address in [wide.allocate() for _ in range(4)]:
        wide.release(address)
    # ::2 and ::3 have been pushed out by ::4 and ::5, so the lowest is theirs again.
    assert take(wide, 3) == ["fd00::2", "fd00::3", "fd00::6"]


def test_prefixes_are_used_one_after_the_other() -> None:
    two = pool("10.0.0.0/30", "10.0.1.0/30")
    assert take(two, 2) == ["10.0.0.2", "10.0.1.2"]


def test_an_address_can_be_asked_for_once() -> None:
    wide = pool("10.0.0.0/24")
    assert wide.allocate(ip_address("10.0.0.9")) == ip_address("10.0.0.9")
    with pytest.raises(AddressInUse, match=r"10\.0\.0\.9"):
        wide.allocate(ip_address("10.0.0.9"))
    wide.release(ip_address("10.0.0.9"))
    assert wide.allocate(ip_address("10.0.0.9")) == ip_address("10.0.0.9")


def test_releasing_twice_is_told() -> None:
    wide = pool("10.0.0.0/24")
    address = wide.allocate()
    assert wide.release(address)
    assert not wide.release(address)


def test_after_a_restart_addresses_in_use_are_left_alone() -> None:
    wide = pool("10.0.0.0/24")
    for text in ("10.0.0.2", "10.0.0.4", "192.168.7.7"):  # the last is from another pool, long ago
        wide.reserve(ip_address(text))
    assert take(wide, 2) == ["10.0.0.3", "10.0.0.5"]
    with pytest.raises(AddressInUse):
        wide.reserve(ip_address("10.0.0.4"))
    assert wide.release(ip_address("192.168.7.7"))


def test_exhaustion_tells_the_numbers() -> None:
    small = pool("10.0.0.0/29", "10.0.1.0/30")
    take(small, 6)
    with pytest.raises(
        PoolExhausted, match=r"no IPv4 address is left: 6 of 6 in 10\.0\.0\.0/29, 10\.0\.1\.0/30"
    ):
        small.allocate()


@pytest.mark.parametrize(
    ("prefixes", "words"),
    [
        ([], "at least one"),
        (["10.0.0.0/31"], "too small"),
        (["fd00::/127"], "too small"),
        (["10.0.0.0/24", "fd00::/64"], "other"),
        (["10.0.0.0/24", "10.0.0.128/25"], "overlaps"),
    ],
)
def test_prefixes_that_make_no_pool_are_refused(prefixes: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pool(*prefixes)


@given(st.lists(st.one_of(st.none(), st.integers(0, 15))), st.booleans())
def test_a_pool_agrees_with_one_that_knows_every_address(steps: list[int | None], six: bool) -> None:
    """None allocates; a number releases the address with that offset."""
    prefix = ip_network("fd00::/124") if six else ip_network("10.0.0.0/28")
    real = Pool([prefix])
    fresh = [prefix[offset] for offset in range(2, 16 if six else 15)]
    given_back: list[Address] = []
    used: set[Address] = set()
    assert real.capacity == len(fresh)
    for step in steps:
        if step is None:
            if fresh:
                expected = fresh.pop(0)
            elif given_back:
                expected = given_back.pop(0)
            else:
                with pytest.raises(PoolExhausted):
                    real.allocate()
                continue
            assert real.allocate() == expected
            used.add(expected)
        else:
            address = prefix[step]
            assert real.release(address) == (address in used)
            if address in used:
                used.remove(address)
                given_back.append(address)
        assert real.used == used


# ---- both families -----------------------------------------------------------------------------


def test_a_pod_gets_one_address_of_each_family() -> None:
    pools = AddressPools([ip_network("fd00::/64"), ip_network("10.0.0.0/24")])
    assert pools.allocate() == (ip_address("10.0.0.2"), ip_address("fd00::2"))
    assert pools.allocate([ip_address("fd00::9")]) == (ip_address("10.0.0.3"), ip_address("fd00::9"))
    assert AddressPools([ip_network("fd00::/64")]).allocate() == (ip_address("fd00::2"),)


def test_a_pod_gets_all_or_nothing() -> None:
    pools = AddressPools([ip_network("10.0.0.0/24"), ip_network("fd00::/126")])
    pools.allocate()
    pools.allocate()
    for _ in range(3):
        with pytest.raises(PoolExhausted, match="IPv6"):
            pools.allocate()
    assert len(pools.pools[4].used) == 2


def test_families_that_the_node_lacks_cannot_be_asked_for() -> None:
    pools = AddressPools([ip_network("10.0.0.0/24")])
    with pytest.raises(NotInPool, match="each family in IPv4"):
        pools.allocate([ip_address("fd00::9")])
    with pytest.raises(NotInPool):
        pools.allocate([ip_address("10.0.0.7"), ip_address("10.0.0.8")])
    assert pools.pools[4].used == frozenset()


def test_what_is_reserved_and_released_follows_the_families() -> None:
    pools = AddressPools([ip_network("10.0.0.0/24")])
    both = [ip_address("10.0.0.2"), ip_address("fd00::2")]
    pools.reserve(both)
    assert pools.allocate() == (ip_address("10.0.0.3"),)
    pools.release(both)
    assert pools.pools[4].used == {ip_address("10.0.0.3")}


def test_a_node_without_ranges_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pod range"):
        AddressPools([])
