"""Which addresses are the node's own: what others can call it by."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address

from bench_node import private_network

from axoneme.net import node


def test_all_that_it_can_be_called_by_first_what_it_calls_from() -> None:
    """An address that is not to be called from, as those of keepalived, is none less for policy."""
    commands = """
        link set lo up
        link add up0 type veth peer name up1
        link set up0 up
        addr add 2001:db8::66/64 dev up0 preferred_lft 0 nodad
        addr add 2001:db8::1/64 dev up0 nodad
        addr add 192.0.2.66/32 dev up0 scope link
        addr add 192.0.2.1/24 dev up0
    """
    with private_network():
        subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
        found = node.addresses()
    assert found["lo"] == []
    for version in (4, 6):
        wanted = {4: ("192.0.2.1", "192.0.2.66"), 6: ("2001:db8::1", "2001:db8::66")}[version]
        assert [each for each in found["up0"] if each.version == version] == list(map(ip_address, wanted))
