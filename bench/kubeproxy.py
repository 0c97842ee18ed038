"""What kube-proxy writes into a node for the same services, in its two modes, as baselines.

The structure of chains, maps and rules is that of kube-proxy 1.33 (`pkg/proxy/iptables/proxier.go`,
`pkg/proxy/nftables/proxier.go`), for services of type ClusterIP: the path of a packet through them is the
same, rule by rule. Names are shorter, comments are left out.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PODS = "10.244.0.0/16"
MASQUERADE = "0x4000"


@dataclass(frozen=True, slots=True)
class Service:
    """One port of a ClusterIP service over TCP; backends are addresses and ports."""

    address: str
    port: int
    backends: Sequence[tuple[str, int]]


def iptables(services: Sequence[Service]) -> Iterator[str]:
    """Lines for ``iptables-restore``."""
    yield "*filter"
    yield from (":KUBE-FORWARD - [0:0]", ":KUBE-FIREWALL - [0:0]")
    yield "-A FORWARD -j KUBE-FORWARD"
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield f"-A KUBE-FORWARD -m mark --mark {MASQUERADE}/{MASQUERADE} -j ACCEPT"
    yield "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "COMMIT"
    yield "*nat"
    yield from (":KUBE-SERVICES - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-MARK-MASQ - [0:0]")
    for n, service in enumerate(services):
        yield f":KUBE-SVC-{n} - [0:0]"
        yield from (f":KUBE-SEP-{n}-{b} - [0:0]" for b in range(len(service.backends)))
    yield "-A PREROUTING -j KUBE-SERVICES"
    yield "-A OUTPUT -j KUBE-SERVICES"
    yield "-A POSTROUTING -j KUBE-POSTROUTING"
    yield f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN"
    yield f"-A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE}"
    yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    yield f"-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE}"
    for n, service in enumerate(services):
        yield f"-A KUBE-SERVICES {_to(service)} -j KUBE-SVC-{n}"
        yield from _rules(n, service)
    yield "COMMIT"


def _to(service: Service) -> str:
    return f"-d {service.address}/32 -p tcp -m tcp --dport {service.port}"


def _rules(n: int, service: Service) -> Iterator[str]:
    """Of a service's own chains."""
    yield f"-A KUBE-SVC-{n} ! -s {PODS} {_to(service)} -j KUBE-MARK-MASQ"
    for b, (address, port) in enumerate(service.backends):
        chance = len(service.backends) - b
        choice = f"-m statistic --mode random --probability {1 / chance:.10f} " if chance > 1 else ""
        yield f"-A KUBE-SVC-{n} {choice}-j KUBE-SEP-{n}-{b}"
        yield f"-A KUBE-SEP-{n}-{b} -s {address}/32 -j KUBE-MARK-MASQ"
        yield f"-A KUBE-SEP-{n}-{b} -p tcp -m tcp -j DNAT --to-destination {address}:{port}"


#: Of so many services nftables gets the chains in one transaction: the kernel looks through all chains of a
#: transaction again and again, and takes minutes for ten thousand services at once.
TRANSACTION = 1000


def nftables(services: Sequence[Service]) -> Iterator[list[str]]:
    """Transactions for ``nft -f``, as lines: the endpoints' and services' chains, then the way to them."""
    yield _table(
        "chain mark-for-masquerade { mark set mark or 0x4000; }",
        "chain masquerading { mark and 0x4000 == 0 return; mark set mark xor 0x4000; masquerade fully-random; }",
    )
    for first in range(0, len(services), TRANSACTION):
        part = enumerate(services[first : first + TRANSACTION], first)
        yield _table(*(line for n, service in part for line in _chains(n, service)))
    yield _table(
        "map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = {",
        ",\n".join(f"{s.address} . tcp . {s.port} : goto service-{n}" for n, s in enumerate(services)),
        "}; }",
        "chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }",
        "chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }",
        "chain nat-output { type nat hook output priority -100; jump services; }",
        "chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }",
    )


def _table(*lines: str) -> list[str]:
    return ["table ip kube-proxy {", *lines, "}"]


def _chains(n: int, service: Service) -> Iterator[str]:
    for b, (address, port) in enumerate(service.backends):
        yield (
            f"chain endpoint-{n}-{b} {{ ip saddr {address} jump mark-for-masquerade; "
            f"meta l4proto tcp dnat to {address}:{port}; }}"
        )
    choices = ", ".join(f"{b} : goto endpoint-{n}-{b}" for b in range(len(service.backends)))
    yield (
        f"chain service-{n} {{ ip daddr {service.address} tcp dport {service.port} "
        f"ip saddr != {PODS} jump mark-for-masquerade; "
        f"numgen random mod {len(service.backends)} vmap {{ {choices} }}; }}"
    )


def load_iptables(namespace: Path, services: Sequence[Service]) -> None:
    _load(namespace, ["iptables-legacy-restore"], iptables(services))


def load_nftables(namespace: Path, services: Sequence[Service]) -> None:
    for transaction in nftables(services):
        _load(namespace, ["nft", "-f", "-"], transaction)


def change_iptables(namespace: Path, number: int, service: Service) -> None:
    """A service has other backends: its chains anew, as a partial sync does it (KEP-3453)."""
    chains = [f":KUBE-SVC-{number} - [0:0]"]
    chains += [f":KUBE-SEP-{number}-{b} - [0:0]" for b in range(len(service.backends))]
    lines = ["*nat", *chains, *_rules(number, service), "COMMIT"]
    _load(namespace, ["iptables-legacy-restore", "--noflush"], iter(lines))


def change_nftables(namespace: Path, number: int, service: Service) -> None:
    """A service has other backends: its chain anew, in one transaction."""
    flushed = [f"flush chain ip kube-proxy service-{number}"]
    last = list(_chains(number, service))[-1]
    _load(namespace, ["nft", "-f", "-"], [*flushed, *_table(last)])


def _load(namespace: Path, command: Sequence[str], lines: Iterable[str]) -> None:
    argv = ["nsenter", f"--net={namespace}", "--", *command]
    subprocess.run(argv, check=True, text=True, input="\n".join(lines) + "\n")
