"""Rules of the kernel's packet filters and queues that may drop what nodes send each other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axoneme.datapath.clsact import HANDLE
from axoneme.health.answering import PORT


@dataclass(frozen=True, slots=True)
class Rule:
    """One that drops; ``ours`` when it names a port of ours, else it may mean anybody."""

    text: str
    ours: bool


def rules(overlay_port: int) -> tuple[Rule, ...]:
    """In this network namespace, by ``nft`` or else ``iptables-save``; none where there is neither."""
    ports = (overlay_port, PORT)
    if ruleset := _output("nft", "list", "ruleset"):
        return tuple(of_nft(ruleset, ports))
    return tuple(
        rule
        for command in ("iptables-save", "ip6tables-save")
        for rule in of_iptables(command.removesuffix("-save"), _output(command, "-c"), ports)
    )


def of_nft(ruleset: str, ports: Collection[int]) -> Iterator[Rule]:
    """From ``nft list ruleset``. Pure.

    >>> list(of_nft("table inet t {\\n chain c {\\n  udp dport 8472 drop\\n }\\n}", {8472}))
    [Rule(text='table inet t, chain c: udp dport 8472 drop', ours=True)]
    """
    table = chain = ""
    for line in map(str.strip, ruleset.splitlines()):
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:-1])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif {"drop", "drop;", "reject"} & set(words):
            named = _ports(words, "dport")
            if named is None or _meets(named, ports):
                yield Rule(f"table {table}, chain {chain}: {line}", named is not None)


def of_iptables(program: str, saved: str, ports: Collection[int]) -> Iterator[Rule]:
    """From ``iptables-save -c``: with how many packets each rule has met. Pure.

    >>> list(of_iptables("iptables", "[4:240] -A INPUT -p udp --dport 8472 -j DROP", {8472}))
    [Rule(text='iptables: -A INPUT -p udp --dport 8472 -j DROP (4 packets)', ours=True)]
    """
    for line in saved.splitlines():
        words = line.split()
        if line.startswith(":") and words[1] == "DROP":
            yield Rule(f"{program}: chain {words[0][1:]} drops what no rule accepts", False)
        elif words[1:2] == ["-A"] and {"DROP", "REJECT"} & set(words):
            named = _ports(words, "--dport") or _ports(words, "--dports")
            if named is None or _meets(named, ports):
                packets = words[0].strip("[]").partition(":")[0]
                yield Rule(f"{program}: {' '.join(words[1:])} ({packets} packets)", named is not None)


def _ports(words: Sequence[str], option: str) -> str | None:
    """What stands behind a word for ports, a set in braces as a whole."""
    if option not in words:
        return None
    rest = words[words.index(option) + 1 :]
    end = rest.index("}") if rest[:1] == ["{"] else 1
    return " ".join(rest[:end])


def _meets(text: str, ports: Collection[int]) -> bool:
    for part in text.replace(",", " ").replace(":", "-").split():
        first, _, last = part.partition("-")
        if first.isdigit() and any(int(first) <= port <= int(last or first) for port in ports):
            return True
    return False


#: What kube-proxy makes: chains of its iptables mode, its table of nftables mode, its device of IPVS mode.
_CHAIN, _TABLE = "KUBE-SERVICES", "kube-proxy"


def kube_proxy() -> tuple[str, ...]:
    """Traces of kube-proxy in this network namespace."""
    found = [*of_kube_proxy_nft(_output("nft", "list", "tables") + _output("nft", "list", "chains"))]
    for command in ("iptables-save", "ip6tables-save"):
        found += of_kube_proxy_iptables(command, _output(command, "-t", "nat"))
    with suppress(OSError):  # there when the module is loaded
        services = [
            line for line in Path("/proc/net/ip_vs").read_text().splitlines()[3:] if line[:1].isalpha()
        ]
        if services:
            found.append(f"IPVS has {len(services)} virtual services")
    return tuple(dict.fromkeys(found))


def of_kube_proxy_nft(listed: str) -> Iterator[str]:
    """From ``nft list tables`` and ``nft list chains``. Pure.

    >>> list(of_kube_proxy_nft("table ip kube-proxy\ntable ip nat {\n\tchain KUBE-SERVICES {\n"))
    ['table ip kube-proxy', 'table ip nat, chain KUBE-SERVICES']
    """
    table = ""
    for words in map(str.split, listed.splitlines()):
        if words[:1] == ["table"]:
            table = " ".join(words[:3])
            if words[2:3] == [_TABLE]:
                yield table
        elif words[:2] == ["chain", _CHAIN]:
            yield f"{table}, chain {_CHAIN}"


def of_kube_proxy_iptables(program: str, saved: str) -> Iterator[str]:
    """From ``iptables-save -t nat``: the chain counts when something is in it. Pure."""
    rules = sum(line.startswith(f"-A {_CHAIN} ") for line in saved.splitlines())
    if rules:
        yield f"{program.removesuffix('-save')}: chain {_CHAIN} has {rules} rules"


def filters(device: str) -> tuple[str, ...]:
    """tc filters of others on a device, and queues that hold back or lose packets."""
    found: list[str] = []
    for point in ("ingress", "egress"):
        found += of_tc(point, _json("tc", "-json", "filter", "show", "dev", device, point))
    for each in _json("tc", "-json", "qdisc", "show", "dev", device):
        if each.get("kind") in ("netem", "tbf"):
            found.append(f"queue: {each['kind']} {json.dumps(each.get('options', {}))}")
    return tuple(found)


def of_tc(point: str, listing: Iterable[dict[str, Any]]) -> Iterator[str]:
    """From ``tc -json filter show``, which lists each priority once more, without options. Pure."""
    for each in listing:
        options = each.get("options")
        if not options or options.get("handle") == hex(HANDLE):
            continue
        name = options.get("bpf_name") or ", ".join(a.get("kind", "?") for a in options.get("actions", ()))
        yield f"{point}: {each.get('kind')} filter {name}, preference {each.get('pref')}"


def _json(*command: str) -> list[dict[str, Any]]:
    text = _output(*command)
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [each for each in found if isinstance(each, dict)]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
