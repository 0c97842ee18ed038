"""The objects with which kube-proxy's behaviour is tried: pods, services, and the ports they have."""

from __future__ import annotations

import sys

HTTP, NAMES = 80, 53
EXTERNAL = {"ipv4": "198.18.0.10", "ipv6": "2001:db8:c::10"}
BALANCER = {"ipv4": "198.18.1.10", "ipv6": "2001:db8:d::10"}
NODE_PORT, LOCAL_PORT, EMPTY_PORT, SCTP_PORT, STICKY_PORT, NO_PORT, ZONE_PORT, INSIDE_PORT = range(
    30080, 30088
)
HOST_PORT = 18080
#: What a service would like to have as its load balancer's address.
WISHED = "198.18.1.99"
#: Where the world calls from, and where else.
PARTNER, STRANGER = "203.0.113.10", "203.0.113.20"

#: Says who it is, and does not end when it is asked to.
STUBBORN = """
import json, os, signal, socket, threading
signal.signal(signal.SIGTERM, lambda *_: None)
def serve(talk):
    while talk.recv(4096):
        talk.sendall(json.dumps({"pod": os.uname().nodename}).encode() + b"\\n")
server = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def pod(name: str, app: str, node: str, more: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  containers:
  - name: main
    image: echo
    ports: [{{name: http, containerPort: 8080{more}}}, {{name: names, containerPort: 5353, protocol: UDP}}]
"""


def stubborn(name: str, node: str, app: str = "leave", more: str = "") -> str:
    script = "".join(f"\n      {line}" for line in STUBBORN.splitlines())
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 60
  containers:
  - name: main
    image: python
    command: ["{sys.executable}", "-c"]
    args:
    - |{script}
    ports: [{{name: http, containerPort: 8080}}]{more}
"""


def service(
    name: str, spec: str = "", app: str = "web", ports: str = "", node_ports: str = "", metadata: str = ""
) -> str:
    ports = ports or (
        f"[{{name: http, port: {HTTP}, targetPort: http{node_ports}}},"
        f" {{name: names, port: {NAMES}, targetPort: names, protocol: UDP{node_ports}}}]"
    )
    selector = f"selector: {{app: {app}}}" if app else ""
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, {metadata}}}
spec:
  ipFamilyPolicy: PreferDualStack
  ports: {ports}
  {selector}
  {spec}
"""


def told_slice(name: str, service: str, *endpoints: str) -> str:
    """An EndpointSlice that somebody else than the controller has written."""
    return f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{", ".join(endpoints)}]
"""


def hinted(address: str, node: str, zone: str) -> str:
    return (
        f'{{addresses: ["{address}"], hints: {{forNodes: [{{name: {node}}}], forZones: [{{name: {zone}}}]}}}}'
    )


def plain(name: str, spec: str = "", metadata: str = "") -> str:
    """A service of one port, whose endpoints slices tell."""
    return service(name, spec, app="", ports=f"[{{name: http, port: {HTTP}}}]", metadata=metadata)


MANIFESTS = "".join(
    (
        pod("client", "client", "node1"),
        pod("far", "client", "node3"),
        pod("web-1", "web", "node1"),
        pod("web-2", "web", "node2"),
        pod("host", "host", "node1", f", hostPort: {HOST_PORT}"),
        stubborn("leave-1", "node1"),
        stubborn("leave-2", "node2"),
        # Their own: a client that is translated packet by packet cannot call one backend by two services from
        # the same port, and with affinity it gets no other one.
        pod("sticky-1", "sticky", "node1"),
        pod("sticky-2", "sticky", "node2"),
        pod("gone-1", "gone", "node1"),
        pod("gone-2", "gone", "node2"),
        service("cluster"),
        service("node", "type: NodePort", node_ports=f", nodePort: {NODE_PORT}"),
        service("external", f'externalIPs: ["{EXTERNAL["ipv4"]}", "{EXTERNAL["ipv6"]}"]'),
        service("balancer", "type: LoadBalancer\n  loadBalancerClass: test/none"),
        service(
            "ranges",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n"
            f'  loadBalancerSourceRanges: ["{PARTNER}/32"]',
        ),
        service(
            "local",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n  externalTrafficPolicy: Local",
            node_ports=f", nodePort: {LOCAL_PORT}",
        ),
        service("proxied", "type: LoadBalancer\n  loadBalancerClass: test/none"),
        service("others", metadata="labels: {service.kubernetes.io/service-proxy-name: another}"),
        service(
            "shut",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n"
            f'  loadBalancerSourceRanges: ["{PARTNER}/32"]',
            metadata="annotations: {service.cilium.io/src-ranges-policy: deny}",
        ),
        service(
            "balanced",
            "type: LoadBalancer\n  loadBalancerClass: test/none",
            node_ports=f", nodePort: {NO_PORT}",
            metadata="annotations: {service.cilium.io/type: LoadBalancer}",
        ),
        service(
            "zone-a",
            "type: NodePort",
            node_ports=f", nodePort: {ZONE_PORT}",
            metadata="annotations: {service.cilium.io/node-selector: topology.kubernetes.io/zone=a}",
        ),
        service(
            "portless",
            "type: LoadBalancer\n  loadBalancerClass: test/none\n  allocateLoadBalancerNodePorts: false",
        ),
        service(
            "inside-node",
            "type: NodePort\n  internalTrafficPolicy: Local",
            node_ports=f", nodePort: {INSIDE_PORT}",
        ),
        service("weighted", app="", ports=f"[{{name: http, port: {HTTP}}}]"),
        *(
            f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: weighted-{number}
  labels: {{kubernetes.io/service-name: weighted}}
  annotations: {{service.cilium.io/weight: "{weight}"}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: ["{address}"], conditions: {{ready: true}}}}]
"""
            for number, (address, weight) in enumerate(((PARTNER, 1), (STRANGER, 0)))
        ),
        service("inside", "internalTrafficPolicy: Local"),
        service("named", metadata='labels: {service.kubernetes.io/headless: ""}'),
        service(
            "wished", f'type: LoadBalancer\n  loadBalancerClass: test/none\n  loadBalancerIP: "{WISHED}"'
        ),
        service("table", "type: NodePort", metadata="annotations: {service.cilium.io/lb-algorithm: maglev}"),
        plain("twice"),
        told_slice("twice-1", "twice", f'{{addresses: ["{PARTNER}"]}}', f'{{addresses: ["{STRANGER}"]}}'),
        told_slice("twice-2", "twice", f'{{addresses: ["{PARTNER}"]}}'),
        *(
            plain(name)
            + told_slice(name, name, hinted(PARTNER, "node1", "a"), hinted(STRANGER, "node3", "a"))
            for name in ("hinted", "moving")
        ),
        service("gone", app="gone"),
        service(
            "sticky",
            "type: NodePort\n  sessionAffinity: ClientIP\n"
            "  sessionAffinityConfig: {clientIP: {timeoutSeconds: 3}}",
            app="sticky",
            node_ports=f", nodePort: {STICKY_PORT}",
        ),
        service("near", "trafficDistribution: PreferClose"),
        service("empty", "type: NodePort", app="nobody", node_ports=f", nodePort: {EMPTY_PORT}"),
        service(
            "association",
            "type: NodePort",
            ports=f"[{{port: 9, targetPort: 9000, protocol: SCTP, nodePort: {SCTP_PORT}}}]",
        ),
        service("headless", "clusterIP: None"),
        """
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: partner.example}
""",
        service("leave", app="leave", ports=f"[{{name: http, port: {HTTP}, targetPort: http}}]"),
        service("world", app="", ports=f"[{{name: http, port: {HTTP}}}]"),
        f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: world-1, labels: {{kubernetes.io/service-name: world}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: ["{PARTNER}"], conditions: {{ready: true}}}}]
""",
    )
)

UNREADY = stubborn("lazy", "node2", "lazy", '\n    readinessProbe: {exec: {command: ["false"]}}')
