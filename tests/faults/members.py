"""A sandbox of two nodes whose pods all talk to each other, and strangers to whom nobody answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkers import OPEN, Place, Report, between, forbidden, mesh, under_traffic
from runtime import Live, addresses, live_as

from axoneme.sandbox.plan import IPV4_WORLD, IPV6_WORLD

MEMBERS = {"a": "node1", "b": "node1", "c": "node2", "d": "node2"}
STRANGER = "stranger"


def pod(name: str, node: str, role: str) -> str:
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{role: {role}}}}}
spec:
  nodeName: {node}
  containers: [{{name: main, image: echo, ports: [{{containerPort: 7000}}]}}]
"""


PODS = "".join(pod(name, node, "member") for name, node in MEMBERS.items()) + pod(
    STRANGER, "node1", "stranger"
)
POLICY = f"""
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: members}}
spec:
  endpointSelector: {{matchLabels: {{role: member}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{role: member}}}}]
    toPorts: [{{ports: [{{port: "{OPEN}", protocol: TCP}}, {{port: "{OPEN}", protocol: UDP}}]}}]
  - fromEndpoints: [{{matchLabels: {{role: member}}}}]
    icmps: [{{fields: [{{family: IPv4, type: 8}}, {{family: IPv6, type: 128}}]}}]
  - fromEntities: [host]
"""


class Members(Live):
    """The sandbox, and its places for the checker."""

    def place(self, name: str) -> Place:
        found = self.pod(name)
        return Place(name, self.namespace(found), tuple(addresses(found)))

    def host(self, node: str) -> Place:
        plan = next(each for each in self.plan.all_nodes() if each.name == node)
        return Place(node, self.layout.namespace(node), plan.addresses(), watched=False)

    @contextmanager
    def traffic(self, program: Path, fault: str) -> Iterator[Report]:
        """All pairs of members, to the outside, from their hosts; and all that is forbidden."""
        members = [self.place(name) for name in MEMBERS]
        stranger = self.place(STRANGER)
        outside = Place("outside", self.outside, (IPV4_WORLD[0], IPV6_WORLD[0]))
        hosts = {node: self.host(node) for node in dict.fromkeys(MEMBERS.values())}
        streams = [*mesh(members, [outside]), *forbidden(members, [stranger])]
        for place in members:
            streams += between(hosts[MEMBERS[place.name]], place)
        places = [*members, stranger, outside, *hosts.values()]
        with under_traffic(program, fault, places, streams) as report:
            yield report


@contextmanager
def members(name: str) -> Iterator[Members]:
    with live_as(Members, name, PODS) as made:
        made.apply(POLICY)
        made.policies_loaded(1)
        yield made
