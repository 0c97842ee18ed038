"""A node's record with all kinds of flows, made from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from axoneme.flows.events import L7, Records
from axoneme.flows.flow import DNS, HTTP, HTTPHeader, Kafka, Layer7
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.store import FlowStore
from axoneme.hubble.parts import Site
from axoneme.identity.prefixes import address_bytes
from axoneme.model.policy import PolicyRef
from unit.flows import records as made
from unit.flows.records import DTYPE, VOCABULARY

SITE = Site("prod/n1", "prod", ("kubernetes.io/hostname=n1", "zone=a"), "9.9.9")
PODS = {
    "10.0.0.1": End(("k8s:app=web", "k8s:tier=front"), "shop", "web-1", "Deployment", "web", "n1"),
    "10.0.0.2": End(("k8s:app=web",), "shop", "web-2", "Deployment", "web", "n2"),
    "fd00::4": End(("k8s:app=db",), "data", "db-0", "StatefulSet", "db", "n1"),
    "172.31.0.2": End(("reserved:remote-node",), node="n2"),
}
WORLD = ("192.0.2.7", "2001:db8::9")
RULES = {
    7: (PolicyRef("CiliumNetworkPolicy", "shop", "l7", "spec.ingress[0]"),),
    8: (PolicyRef("NetworkPolicy", "shop", "in"), PolicyRef("CiliumClusterwideNetworkPolicy", "", "all")),
}
TRACE = "0af7651916cd43dd8448eb211c80319c"
REQUESTS = (
    Layer7(
        "RESPONSE",
        2_000_000,
        http=HTTP(
            503,
            "GET",
            "http://web/api/a?b=1",
            "HTTP/1.1",
            (HTTPHeader("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), HTTPHeader("host", "web")),
            14,
        ),
    ),
    Layer7("REQUEST", http=HTTP(0, "POST", "http://web/", "HTTP/2"), reason="no rule allows it"),
    Layer7("RESPONSE", dns=DNS("a.example.", ("192.0.2.7",), 30, (), "proxy", 0, ("A",), ("A",))),
    Layer7("REQUEST", kafka=Kafka(29, 3, "produce", 9, "orders", "me")),
    Layer7("REQUEST", server_name="a.example"),
)


def log(room: int = 64) -> FlowLog:
    """``room``: how many flows it keeps, and how many drops."""
    names = made.some_names()
    for address, end in PODS.items():
        names.put(address, [address_bytes(address)], end)
    services = ServiceNames()
    services.put(5, ServicePort("shop/web", "http"))
    services.put(6, ServicePort("edge", "80/TCP"))
    requests = Requests()
    return FlowLog("n1", FlowStore(DTYPE, room, room), names, RULES.get, services, requests, VOCABULARY)


def flows(log: FlowLog, seed: int, count: int = 40) -> Records:
    """Named; what does not belong together may meet, as long as it can be told."""
    rng = np.random.default_rng(seed)
    some = [
        made.event(**_fields(rng), time=10_000_000_000 + n * int(1e9) + int(rng.integers(0, 1000)))
        for n in range(count)
    ]
    records = made.records(*some, offset=1_700_000_000_123_456_789, names=log.names)
    for place in np.flatnonzero(rng.random(count) < 0.3):
        request = REQUESTS[int(rng.integers(0, len(REQUESTS)))]
        records["kind"][place] = L7
        records["reason"][place] = rng.choice([1, 2, 5])
        records["flags"][place] &= 0xFF ^ made.REPLY
        records["flags"][place] |= made.REPLY * (request.type == "RESPONSE")
        records["request"][place] = log.requests.put(request, bool(rng.random() < 0.3))
    return records


def _measured(rng: np.random.Generator) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {}
    times = {name: int(rng.choice([0, 90, (1 << 32) - 1])) for name in ("handshake", "rtt", "min_rtt")}
    return {**times, "retransmissions": rng.choice([0, 3, 65535], 2).tolist()}


def _fields(rng: np.random.Generator) -> dict[str, Any]:
    source = str(rng.choice([*PODS, *WORLD]))
    same = [each for each in (*PODS, *WORLD) if (":" in each) == (":" in source)]
    flags = (made.REPLY, made.INGRESS, made.MASQUERADED, made.SERVED, made.PROXIED)
    audits = (made.AUDITED_EGRESS, made.AUDITED_INGRESS)
    some = sum(int(flag) for flag in flags if rng.random() < 0.3)
    protocol = int(rng.choice([6, 6, 17, 132, 1, 58, 47]))
    ports = protocol in (6, 17, 132)
    return {
        "source": source,
        "destination": str(rng.choice(same)),
        "source_port": int(rng.choice([80, 443, 40000])) if ports else 0,
        "destination_port": int(rng.choice([53, 80, 8080, 65535])) if ports else 0,
        "protocol": protocol,
        "kind": int(rng.choice([made.NEW, made.END, made.DROP])),
        "reason": int(rng.choice([made.DEFAULT_DENY, made.DENY, made.INVALID_SOURCE])),
        "flags": some + sum(int(flag) for flag in audits if rng.random() < 0.1),
        "source_identity": int(rng.choice([1, 2, 300, 301])),
        "destination_identity": int(rng.choice([1, 2, 300, 301])),
        "source_endpoint": int(rng.choice([0, 3])),
        "destination_endpoint": int(rng.choice([0, 4])),
        "egress_rule": int(rng.choice([0, 7, 8, 99])),
        "ingress_rule": int(rng.choice([0, 0, 7, 8])),
        "packets": rng.integers(0, 1 << 32, 2).tolist(),
        "bytes": rng.integers(0, 1 << 62, 2).tolist(),
        "tcp_flags": int(rng.choice([0, 2, 0x12, 0xFF])),
        "icmp_type": int(rng.choice([0, 8, 128])),
        "icmp_code": int(rng.choice([0, 1])),
        "zone": int(rng.choice([0, 1])),
        "hook": int(rng.choice([0, 1, 1 << 31 | 1, 7])),
        "nat_port": int(rng.choice([0, 10001])),
        "nat_address": "172.31.0.9" if ":" not in source else "fd00::99",
        "frontend": "10.96.0.1" if ":" not in source else "fd00:10::1",
        "frontend_port": 80,
        "service": int(rng.choice([5, 6, 77])) if some & made.SERVED else 0,
        "started": 1_000,
        **_measured(rng),
    }
