"""How a pod's processes find names: /etc/resolv.conf by the pod's policy, as a kubelet writes it, and
/etc/nsswitch.conf, so that they ask what is written there and no service of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from axoneme.sandbox.dns.domain import DOMAIN
from axoneme.sandbox.objects import Pod

#: What libraries read of a file, and a kubelet writes into it, at most (resolv.conf(5)).
_MOST_SERVERS: Final = 3
_HOSTS: Final = re.compile(r"^hosts:.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NameServers:
    """Addresses of the cluster's DNS, none where there is none, and of the world's name servers."""

    cluster: Sequence[str] = ()
    world: Sequence[str] = ()


@dataclass(slots=True)
class _Resolver:
    servers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)


def resolv_conf(pod: Pod, known: NameServers) -> str:
    """By ``dnsPolicy``, with what ``dnsConfig`` adds to it."""
    made = _by_policy(pod, known)
    if config := pod.spec.dns_config:
        made.servers += [each for each in config.nameservers if each not in made.servers]
        made.searches += [each for each in config.searches if each not in made.searches]
        made.options |= {each.name: each.value for each in config.options}
    return "".join(f"{line}\n" for line in _lines(made))


def _by_policy(pod: Pod, known: NameServers) -> _Resolver:
    policy = pod.spec.dns_policy
    if policy == "None":
        return _Resolver()
    if policy == "Default" or (policy == "ClusterFirst" and pod.spec.host_network):
        return _Resolver(servers=list(known.world))
    searches = [f"{pod.metadata.namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN]
    return _Resolver(list(known.cluster[:1]), searches, {"ndots": "5"})


def _lines(made: _Resolver) -> Iterable[str]:
    yield from (f"nameserver {each}" for each in made.servers[:_MOST_SERVERS])
    if made.searches:
        yield f"search {' '.join(made.searches)}"
    if made.options:
        options = (name if value is None else f"{name}:{value}" for name, value in made.options.items())
        yield f"options {' '.join(options)}"


def nsswitch_conf(machine: str) -> str:
    """The machine's file, but host names come from the pod's own files and name servers."""
    ours = "hosts: files dns"
    return _HOSTS.sub(ours, machine) if _HOSTS.search(machine) else f"{machine}\n{ours}\n"
