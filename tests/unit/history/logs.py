"""A log with some of everything in it, and records for it."""

from __future__ import annotations

import numpy as np

from axoneme.flows.events import Records, Verdict
from axoneme.flows.flow import DNS, HTTP, HTTPHeader, Kafka, Layer7
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.store import FlowStore
from axoneme.identity.prefixes import address_bytes
from axoneme.model.policy import PolicyRef
from unit.flows import records as made

START = 1_760_000_000_000_000_000


def some_log(node: str = "node1") -> FlowLog:
    names = made.some_names()
    client = End(("k8s:app=client", "k8s:tier=a,b"), "shop", "client-1", "Deployment", "client", node)
    web = End(("k8s:app=web",), "shop", "web-1", "Deployment", "web", "node2")
    names.put("client", [address_bytes("10.0.0.1"), address_bytes("2001:db8::1")], client)
    names.put("web", [address_bytes("10.0.0.2")], web)
    services = ServiceNames()
    services.put(9, ServicePort("shop/web", "http"))
    services.put(10, ServicePort("shop/web", "8080/TCP"))
    rules = {
        7: (PolicyRef("NetworkPolicy", "shop", "web", "spec.ingress[0]"),),
        8: (
            PolicyRef("CiliumClusterwideNetworkPolicy", "", "all", "spec.egress[1]"),
            PolicyRef("NetworkPolicy", "shop", "web", "spec.egress[0]"),
        ),
    }
    return FlowLog(
        node, FlowStore(made.DTYPE, 64, 64), names, rules.get, services, Requests(), made.VOCABULARY
    )


ASKED = (
    (Layer7("REQUEST", http=HTTP(403, "GET", "http://web/<b>", "HTTP/1.1")), Verdict.DROPPED),
    (
        Layer7(
            "RESPONSE",
            1_500_000,
            http=HTTP(200, "GET", "http://web/a", "HTTP/2", (HTTPHeader("host", "web"),), 0),
        ),
        Verdict.FORWARDED,
    ),
    (Layer7("REQUEST", dns=DNS("web.shop.svc.cluster.local.", qtypes=("A",))), Verdict.FORWARDED),
    (
        Layer7("RESPONSE", 3, dns=DNS("x.test.", ("10.0.0.9",), 30, (), "proxy", 0, ("A",), ("A",))),
        Verdict.AUDIT,
    ),
    (Layer7("REQUEST", kafka=Kafka(0, 7, "produce", 4, "orders", "me")), Verdict.FORWARDED),
)


def some_records(log: FlowLog, offset: int = START) -> Records:
    """Of each kind one."""
    masquerade = {"nat_address": "192.0.2.7", "nat_port": 61000}
    served = {"flags": made.SERVED, "frontend": "10.96.0.1", "frontend_port": 80}
    events = [
        made.event(ingress_rule=7, egress_rule=8, tcp_flags=2, source_endpoint=5, hook=3),
        made.event(service=9, **served),
        made.event(service=10, **{**served, "flags": made.SERVED | made.REPLY}),
        made.event(source="2001:db8::1", destination="2001:db8::99", protocol=17, destination_identity=2),
        made.event(protocol=1, icmp_type=8, source_port=0, destination_port=0, destination="192.0.2.1"),
        made.event(flags=made.MASQUERADED, destination="192.0.2.1", **masquerade),
        made.event(flags=made.PROXIED, nat_port=12345, ingress_rule=7),
        made.event(flags=made.AUDITED_INGRESS | made.INGRESS, ingress_rule=7, egress_rule=8),
        made.event(flags=made.AUDITED_EGRESS),
        made.event(ingress_rule=77),
        made.event(kind=made.END, packets=[3, 4], bytes=[5, 1 << 40], time=10_000, started=4_000),
        made.event(
            kind=made.END, time=10_500, started=1, handshake=250, rtt=90, min_rtt=80, retransmissions=[2, 1]
        ),
        made.event(kind=made.END, protocol=132, time=11_000, started=1_000),
        made.event(kind=made.DROP, reason=made.DEFAULT_DENY, flags=made.INGRESS, ingress_rule=7, time=12_000),
        made.event(
            kind=made.DROP, reason=made.DENY, egress_rule=8, packets=[1, 0], bytes=[60, 0], time=13_000
        ),
        made.event(kind=made.DROP, reason=made.INVALID_SOURCE, time=14_000, protocol=99),
        made.event(kind=made.DROP, reason=17, time=14_500),
    ]
    flags = {"REQUEST": 0, "RESPONSE": made.REPLY}
    for number, (asked, verdict) in enumerate(ASKED):
        events.append(
            made.event(
                kind=129,
                reason=verdict,
                time=15_000 + number,
                flags=flags[asked.type] | (made.AUDITED_EGRESS if verdict is Verdict.AUDIT else 0),
                ingress_rule=7,
            )
        )
    found = made.records(*events, offset=offset, names=log.names)
    places = np.flatnonzero(found["kind"] == 129)
    for place, (asked, verdict) in zip(places.tolist(), ASKED, strict=True):
        found["request"][place] = log.requests.put(asked, verdict is Verdict.DROPPED)
    return found
