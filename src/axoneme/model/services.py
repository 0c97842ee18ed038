"""A Service: the name under which pods are reached, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from axoneme.model import checks
from axoneme.model.addresses import FAMILIES, Address, address, unicast
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place
from axoneme.model.pods import PROTOCOLS, port_or_name
from axoneme.model.policy import Network
from axoneme.model.serviceannotations import NO_ANNOTATIONS, Annotations, parse_annotations

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
#: What stands in ``clusterIP`` when a service has no address of its own.
_NO_ADDRESS = "None"
_POLICIES = ("Cluster", "Local")
_FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")

#: Every field, of Kubernetes 1.34.
_SPEC = (
    "type",
    "selector",
    "ports",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "sessionAffinity",
    "sessionAffinityConfig",
    "loadBalancerIP",
    "loadBalancerClass",
    "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts",
    "healthCheckNodePort",
    "publishNotReadyAddresses",
    "trafficDistribution",
)
_PORT = ("name", "protocol", "port", "targetPort", "nodePort", "appProtocol")

#: Labels (of any value) that say that others serve a Service or an EndpointSlice: a proxy of that name, or
#: nobody at all, since there shall be names only. Source: k8s.io/api/core/v1.
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """``target`` is a port of the pods, by number or by a container port's name."""

    port: int
    target: int | str
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Ingress:
    """What a load balancer has given a service. ``proxy``: it ends connections itself, and so its address
    must be called, not served by the nodes (``ipMode: Proxy``, KEP-1860)."""

    address: Address | None = None
    hostname: str = ""
    proxy: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """Without ``selector`` its endpoints are told by somebody else; type ExternalName never has one.

    ``cluster_ips`` are empty for a headless service, and for one that has not got its addresses yet.
    ``affinity_timeout`` in seconds; 0 without session affinity.
    """

    metadata: Metadata
    type: str = "ClusterIP"
    selector: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ips: tuple[Address, ...] = ()
    headless: bool = False
    external_ips: tuple[Address, ...] = ()
    external_name: str = ""
    affinity_timeout: int = 0
    internal_policy: str = "Cluster"
    external_policy: str = "Cluster"
    publish_not_ready: bool = False
    #: Versions of IP, the first one first; empty: not asked for.
    families: tuple[int, ...] = ()
    family_policy: str = ""
    load_balancer_ip: Address | None = None
    load_balancer_class: str = ""
    allocate_node_ports: bool = True
    source_ranges: tuple[Network, ...] = ()
    health_check_node_port: int = 0
    traffic_distribution: str = ""
    ingress: tuple[Ingress, ...] = ()
    annotations: Annotations = NO_ANNOTATIONS

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of its namespace with these labels is behind it."""
        return bool(self.selector) and self.selector.items() <= labels.items()

    @property
    def external_local(self) -> bool:
        """Whether who calls from outside gets endpoints of the node that is called only."""
        reachable = self.type in ("NodePort", "LoadBalancer") or bool(self.external_ips)
        return self.external_policy == "Local" and reachable


def parse_service(object: Mapping[str, object]) -> Service:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        metadata = parse_metadata(fields, name=checks.dns_1035_label)
        spec = fields.need("spec").fields()
        type_ = spec.one_of("type", TYPES, "ClusterIP")
        addresses, headless = _cluster_ips(spec)
        external_name = spec.text("externalName")
        if type_ == "ExternalName" and not external_name:
            spec.place("externalName").refuse("a service of type ExternalName has one")
        ports = _ports(spec.items("ports"))
        if not ports and not headless and type_ != "ExternalName":
            spec.place("ports").refuse("a service has at least one port, unless it is headless")
        wanted = spec.get("loadBalancerIP")
        return Service(
            metadata,
            type_,
            {} if type_ == "ExternalName" else checks.labels(spec.get("selector")),
            ports,
            addresses,
            headless,
            tuple(unicast(item) for item in spec.items("externalIPs")),
            external_name,
            _affinity(spec),
            spec.one_of("internalTrafficPolicy", _POLICIES, "Cluster"),
            spec.one_of("externalTrafficPolicy", ("", *_POLICIES), "") or "Cluster",
            spec.flag("publishNotReadyAddresses"),
            _families(spec),
            spec.one_of("ipFamilyPolicy", _FAMILY_POLICIES, ""),
            address(wanted) if wanted and wanted.value != "" else None,
            spec.text("loadBalancerClass"),
            spec.flag("allocateLoadBalancerNodePorts", True),
            tuple(_range(item) for item in spec.items("loadBalancerSourceRanges")),
            spec.number("healthCheckNodePort", 0, 0, checks.LAST_PORT),
            spec.one_of("trafficDistribution", ("", *_DISTRIBUTIONS), ""),
            _ingress(fields),
            parse_annotations(fields.need("metadata").fields()),
        )


def refuse_unknown(object: Mapping[str, object]) -> None:
    """Raises `ManifestError` for a field that Services do not have: of who writes one it is a slip.

    `parse_service` passes it over instead: what stands in a store may come from a later API server, and a
    service is better served without a new field than not at all.
    """
    with naming(object) as fields:
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        spec = fields.need("spec").fields(_SPEC)
        for item in spec.items("ports"):
            item.fields(_PORT)
        config = spec.get("sessionAffinityConfig")
        client = config.fields(("clientIP",)).get("clientIP") if config else None
        if client:
            client.fields(("timeoutSeconds",))


def _cluster_ips(spec: Fields) -> tuple[tuple[Address, ...], bool]:
    """The addresses, and whether there shall be none."""
    several = spec.items("clusterIPs")
    one = spec.get("clusterIP")
    places = [place for place in several or ([one] if one else []) if place.value != ""]
    if [place.value for place in places] == [_NO_ADDRESS]:
        return (), True
    return tuple(unicast(place) for place in places), False


def _affinity(spec: Fields) -> int:
    if spec.one_of("sessionAffinity", ("", "None", "ClientIP"), "None") != "ClientIP":
        return 0
    config = spec.get("sessionAffinityConfig")
    client = config.fields().get("clientIP") if config else None
    return client.fields().number("timeoutSeconds", 10_800, 1, 86_400) if client else 10_800


def _families(spec: Fields) -> tuple[int, ...]:
    places = spec.items("ipFamilies")
    found = tuple(FAMILIES[place.one_of(FAMILIES)] for place in places)
    if len(set(found)) < len(found):
        spec.place("ipFamilies").refuse("each family is named once")
    return found


def _range(place: Place) -> Network:
    """The API server lets white space around a range pass."""
    return checks.network(Place(place.text().strip(), place.path))


def _ingress(object: Fields) -> tuple[Ingress, ...]:
    status = object.get("status")
    balancer = status.fields().get("loadBalancer") if status else None
    found = []
    for item in balancer.fields().items("ingress") if balancer else ():
        fields = item.fields()
        ip = fields.get("ip")
        found.append(
            Ingress(
                unicast(ip) if ip and ip.value != "" else None,
                fields.text("hostname"),
                fields.one_of("ipMode", ("VIP", "Proxy"), "VIP") == "Proxy",
            )
        )
    return tuple(found)


def _ports(items: list[Place]) -> tuple[ServicePort, ...]:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    ports = []
    for item in items:
        fields = item.fields()
        port = fields.need("port")
        target, name = fields.get("targetPort"), fields.place("name")
        if len(items) > 1 and name.value in (None, ""):
            name.refuse("the ports of a service that has several need names", "nothing")
        if name.value not in (None, "") and checks.dns_label(name) in names:
            name.refuse("each port of a service has a name of its own")
        found = ServicePort(
            checks.port_number(port),
            port_or_name(target) if target else checks.port_number(port),
            fields.text("name"),
            fields.one_of("protocol", PROTOCOLS, "TCP"),
            fields.number("nodePort", 0, 0, checks.LAST_PORT),
            fields.text("appProtocol"),
        )
        if (found.port, found.protocol) in numbers:
            port.refuse(f"the service has this port for {found.protocol} already")
        names.add(found.name)
        numbers.add((found.port, found.protocol))
        ports.append(found)
    return tuple(ports)
