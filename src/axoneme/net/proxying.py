"""What brings packets to the node's proxies: a rule for their mark, by which every address is the node's own.

The datapath marks what a proxy has to look at (``enum mark`` of bpf/tables.h) and lets it into the node's
stack, which would forward it: the address that it is for is another's. By this rule it finds the proxy's
socket instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from axoneme.net.commands import NetworkError, ip, show
from axoneme.net.node import PROTOCOL

#: ``MARK_TO_PROXY`` and ``MARK_PROXY_MASK``; a test compares them.
MARK, MASK = 0x0200, 0x0F00
#: The routing table that has nothing but the loopback device, and where its rule stands: behind the kernel's
#: for the node's own addresses (0), before what others put there.
TABLE: Final = "1786"
PREFERENCE: Final = 96
#: The last of the ports from which proxies call servers (`axoneme.proxy.sockets.OWN_PORTS`), above those of
#: clients. A socket can choose among them (IP_LOCAL_PORT_RANGE) if they are in the node's range at all.
LAST_PORT: Final = 65535
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of both families


def missing(versions: Iterable[int]) -> list[str]:
    """What is not there of it, in words, for these versions of IP."""
    found = []
    for version in sorted(versions):
        if not _has_rule(version):
            found.append(f"the IPv{version} rule for what proxies look at")
        if not _has_route(version):
            found.append(f"the IPv{version} route to proxies")
    if _last_port() < LAST_PORT:
        found.append("the ports of proxies")
    return found


def direct(versions: Iterable[int]) -> list[str]:
    """Makes what is missing; what that was. `NetworkError` when the kernel refuses."""
    found = []
    for version in sorted(versions):
        if not _has_route(version):
            ip([f"route replace local default dev lo table {TABLE} proto {PROTOCOL}"], version=version)
            found.append(f"the IPv{version} route to proxies")
        if not _has_rule(version):
            ip([f"rule add {_rule()} protocol {PROTOCOL}"], version=version)
            found.append(f"the IPv{version} rule for what proxies look at")
    if lend_ports():
        found.append("the ports of proxies")
    return found


def lend_ports() -> bool:
    """Has the range of local ports end with those of proxies; whether it did not yet. It stays so."""
    if _last_port() >= LAST_PORT:
        return False
    first = _PORTS.read_text().split()[0]
    _PORTS.write_text(f"{first} {LAST_PORT}")
    return True


def _last_port() -> int:
    return int(_PORTS.read_text().split()[1])


def withdraw() -> bool:
    """Takes it away again, in both families; whether there was any of it."""
    there = [version for version in (4, 6) if _has_rule(version) or _has_route(version)]
    for version in there:
        ip([f"rule del {_rule()}", f"route flush table {TABLE}"], force=True, version=version)
    return bool(there)


def _rule() -> str:
    return f"pref {PREFERENCE} fwmark {MARK:#x}/{MASK:#x} lookup {TABLE}"


def _has_rule(version: int) -> bool:
    wanted = {"fwmark": f"{MARK:#x}", "fwmask": f"{MASK:#x}", "table": TABLE}
    return any(
        wanted.items() <= rule.items()
        for rule in show(f"-{version}", "rule", "show", "pref", str(PREFERENCE))
    )


def _has_route(version: int) -> bool:
    try:
        routes = show(f"-{version}", "route", "show", "table", TABLE)
    except NetworkError:  # IPv4: a table that has never had a route does not exist
        return False
    return any(route.get("type") == "local" and route.get("dst") == "default" for route in routes)
