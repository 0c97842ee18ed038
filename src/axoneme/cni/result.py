"""What a runtime is answered, in the form of the version that it asked in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from axoneme.cni.request import LATEST, VERSIONS, CniError


@dataclass(frozen=True, slots=True)
class Interface:
    """A container's interface: its two ends, and each address with its gateway; ``dns`` as configured."""

    host_interface: str
    host_mac: str
    ifname: str
    mac: str
    netns: str
    mtu: int
    addresses: Sequence[tuple[str, int, str]]
    dns: Mapping[str, object] = field(default_factory=dict)


def success(version: str, interface: Interface) -> dict[str, Any]:
    """The result of ADD; before version 1.0 each address names its family."""
    before_one = version.startswith("0.")
    ends: list[dict[str, Any]] = [
        {"name": interface.host_interface, "mac": interface.host_mac},
        {"name": interface.ifname, "mac": interface.mac, "sandbox": interface.netns},
    ]
    if version == "1.1.0":
        for end in ends:
            end["mtu"] = interface.mtu
    return {
        "cniVersion": version,
        "interfaces": ends,
        "ips": [
            {
                **({"version": "6" if ":" in address else "4"} if before_one else {}),
                "address": f"{address}/{length}",
                "gateway": gateway,
                "interface": 1,
            }
            for address, length, gateway in interface.addresses
        ],
        "routes": [
            {"dst": "::/0" if ":" in address else "0.0.0.0/0", "gw": gateway}
            for address, _, gateway in interface.addresses
        ],
        "dns": dict(interface.dns),
    }


def failure(version: str, error: CniError) -> dict[str, Any]:
    found = {
        "cniVersion": version if version in VERSIONS else LATEST,
        "code": int(error.code),
        "msg": error.message,
    }
    return {**found, "details": error.details} if error.details else found
