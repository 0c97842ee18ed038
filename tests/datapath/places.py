"""Who is where in the tests of the datapath: pods, a remote pod, the outside, this node; by IP version."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from bench_node import Node

NEW, END, DROP = 1, 2, 3
CLIENT, SERVER = 300, 301
NODE = IPv4Address("172.31.0.9")
POD = {4: ip_address("10.244.1.5"), 6: ip_address("fd00:10:244:1::5")}
OTHER = {4: ip_address("10.244.1.6"), 6: ip_address("fd00:10:244:1::6")}
REMOTE = {4: ip_address("10.244.2.5"), 6: ip_address("fd00:10:244:2::5")}
WORLD = {4: ip_address("203.0.113.10"), 6: ip_address("2001:db8:a::10")}
OUR = {4: ip_address("172.31.0.1"), 6: ip_address("fd00:a0::1")}
GATEWAY_MAC = bytes.fromhex("0261786f0001")
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def furnish(made: Node) -> None:
    """As every test finds it: nothing is allowed yet."""
    made.reset()
    for version in (4, 6):
        made.endpoint(POD[version], CLIENT, number=5)
        made.endpoint(OTHER[version], SERVER, ifindex=made.uplink, number=6)
        made.address(REMOTE[version], SERVER, NODE)
