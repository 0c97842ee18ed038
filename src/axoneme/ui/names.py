"""What can be chosen and completed: the filters that there are, and names of what is in the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import msgspec

from axoneme.datapath.schema import Schema
from axoneme.flows.events import TrafficDirection, Verdict, Vocabulary
from axoneme.flows.flowfilter import FIELDS, Field
from axoneme.model.labels import K8S
from axoneme.model.state import EndpointState
from axoneme.ui import api

_MOST = 50
_PROTOCOLS = ["tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6", "http", "dns", "kafka"]
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_STATUSES = ["2+", "3+", "4+", "5+", "200", "404", "500", "503"]


class Names:
    """``endpoints`` and ``services``: as they are now."""

    def __init__(self, nodes: Iterable[str]) -> None:
        vocabulary = _vocabulary()
        self.nodes = list(nodes)
        self._fixed: dict[str, list[str]] = {
            "verdict": [each.name for each in Verdict if each],
            "protocol": _PROTOCOLS,
            "direction": [each.name.lower() for each in TrafficDirection if each],
            "event": ["new", "end", "drop", "request", "response"],
            "type": ["l7", "drop", "policy-verdict", "trace"],
            "reason": sorted(set(vocabulary.reasons.values())),
        }
        self._likely = {
            "identity": sorted(vocabulary.reserved.values()),
            "http_method": _METHODS,
            "http_status": _STATUSES,
        }

    def filters(self) -> list[api.Filter]:
        return [
            api.Filter(
                name=each.name,
                sided=each.sided,
                help=each.help,
                values=self._fixed.get(each.name, msgspec.UNSET),
            )
            for each in FIELDS
        ]

    def complete(
        self,
        field: str,
        text: str,
        endpoints: Iterable[EndpointState],
        services: Iterable[tuple[str, str]],
        namespaces: Iterable[str],
    ) -> list[str]:
        """What ``text`` may become: what begins so before what only holds it."""
        name = field.removeprefix("from_").removeprefix("to_")
        found = dict.fromkeys(self._offered(name, endpoints, services, namespaces))
        lower = text.lower()
        begun = [each for each in found if each.lower().startswith(lower)]
        held = [each for each in found if lower in each.lower() and not each.lower().startswith(lower)]
        return [*begun, *held][:_MOST]

    def _offered(
        self,
        name: str,
        endpoints: Iterable[EndpointState],
        services: Iterable[tuple[str, str]],
        namespaces: Iterable[str],
    ) -> Iterator[str]:
        yield from self._fixed.get(name, ())
        yield from self._likely.get(name, ())
        match name:
            case "node":
                yield from self.nodes
            case "namespace":
                yield from namespaces
            case "pod":
                yield from (f"{each}/" for each in namespaces)
                yield from (f"{each.namespace}/{each.pod}" for each in endpoints)
            case "workload":
                yield from (each.workload or each.pod for each in endpoints)
            case "label":
                labels = (label for each in endpoints for label in each.labels)
                yield from sorted({label.removeprefix(f"{K8S}:") for label in labels if ":io." not in label})
            case "identity":
                yield from map(str, sorted({each.identity for each in endpoints}))
            case "ip":
                yield from (address for each in endpoints for address in each.addresses)
            case "port":
                yield from map(str, sorted({port.port for each in endpoints for port in each.named_ports}))
            case "service":
                yield from (f"{namespace}/{service}" for namespace, service in services)


@cache
def _vocabulary() -> Vocabulary:
    schema = Schema.load()
    return Vocabulary.read(schema.struct("event"), schema.enums)


def is_field(name: str) -> bool:
    return any(name in _spellings(each) for each in FIELDS)


def _spellings(field: Field) -> tuple[str, ...]:
    return (field.name, f"from_{field.name}", f"to_{field.name}") if field.sided else (field.name,)
