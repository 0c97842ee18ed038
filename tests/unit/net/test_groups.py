"""The groups by which IPv6 addresses are asked for, as the kernel counts them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from axoneme.net.announcing import Groups, devices

LOOPBACK = "lo"


@pytest.fixture
def groups() -> Iterator[Groups]:
    if not Path("/proc/net/igmp6").exists():
        pytest.skip("needs IPv6")
    made = Groups()
    yield made
    made.close()


def joined() -> set[str]:
    lines = Path("/proc/net/igmp6").read_text().splitlines()
    return {line.split()[2] for line in lines if line.split()[1] == LOOPBACK}


def addresses(count: int) -> list[tuple[IPv6Address, int]]:
    index = socket.if_nametoindex(LOOPBACK)
    return [(IPv6Address(f"2001:db8::ab:{number:x}"), index) for number in range(1, count + 1)]


def test_groups_are_joined_and_left(groups: Groups) -> None:
    assert groups.join(addresses(2)) == []
    assert {"ff0200000000000000000001ffab0001", "ff0200000000000000000001ffab0002"} <= joined()
    assert groups.join(addresses(1)) == []
    assert "ff0200000000000000000001ffab0002" not in joined()
    groups.close()
    assert "ff0200000000000000000001ffab0001" not in joined()


def test_there_may_be_many(groups: Groups) -> None:
    """More than one socket has room for."""
    assert groups.join(addresses(5000)) == []
    assert len({name for name in joined() if name.startswith("ff0200000000000000000001ffab")}) == 5000


def test_a_device_that_is_not_there_is_told(groups: Groups) -> None:
    (problem,) = groups.join([(IPv6Address("2001:db8::ab:1"), 1 << 30)])
    assert problem.startswith("device 1073741824: group ff02::1:ffab:1: ")


def test_devices_without_an_ethernet_address_are_none() -> None:
    assert devices([LOOPBACK, "nonsense"]) == {}
