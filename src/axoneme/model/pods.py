"""A Pod's view: who it is, and what its containers run and listen on.

A pod's manifest holds much that concerns only a real kubelet (volumes, resources, security contexts).
Fields that are not named here are passed over; those that are named are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from axoneme.model import checks
from axoneme.model.addresses import Address, address
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place

PROTOCOLS = ("TCP", "UDP", "SCTP")
RESTART_POLICIES = ("Always", "OnFailure", "Never")

_MOST_SECONDS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ContainerPort:
    port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: Address | None = None


@dataclass(frozen=True, slots=True)
class EnvVar:
    """``field_path`` when the value is a field of the pod, ``source`` when it comes from elsewhere."""

    name: str
    value: str = ""
    field_path: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class HttpGet:
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpSocket:
    port: int | str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Exec:
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grpc:
    port: int
    service: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is tried, and how often; times in seconds."""

    action: HttpGet | TcpSocket | Exec | Grpc
    initial_delay: int = 0
    period: int = 10
    timeout: int = 1
    successes: int = 1
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Container:
    """``restart_policy`` of an init container is ``Always`` for a sidecar, else empty."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    restart_policy: str = ""


@dataclass(frozen=True, slots=True)
class PodSpec:
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    service_account: str = "default"
    node_name: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    restart_policy: str = "Always"
    hostname: str = ""
    subdomain: str = ""
    termination_grace_period: int = 30

    def named_ports(self) -> tuple[ContainerPort, ...]:
        """The ports that policies and services can mean by name: of containers, and of sidecars."""
        sidecars = (each for each in self.init_containers if each.restart_policy == "Always")
        return tuple(port for each in (*self.containers, *sidecars) for port in each.ports if port.name)


@dataclass(frozen=True, slots=True)
class Pod:
    metadata: Metadata
    spec: PodSpec


def parse_pod(object: Mapping[str, object]) -> Pod:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        return Pod(parse_metadata(fields), parse_pod_spec(fields.need("spec")))


def parse_pod_spec(place: Place) -> PodSpec:
    fields = place.fields()
    containers = fields.need("containers")
    taken: set[str] = set()
    init = tuple(_container(item, taken) for item in fields.items("initContainers"))
    found = tuple(_container(item, taken) for item in containers.items())
    if not found:
        containers.refuse("a pod has at least one container")
    return PodSpec(
        found,
        init,
        _name(fields, "serviceAccountName") or _name(fields, "serviceAccount") or "default",
        _name(fields, "nodeName"),
        checks.labels(fields.get("nodeSelector")),
        fields.flag("hostNetwork"),
        fields.one_of("restartPolicy", RESTART_POLICIES, "Always"),
        _name(fields, "hostname", checks.dns_label),
        _name(fields, "subdomain", checks.dns_label),
        fields.number("terminationGracePeriodSeconds", 30, 0, _MOST_SECONDS),
    )


def _name(fields: Fields, name: str, check: Callable[[Place], str] = checks.dns_subdomain) -> str:
    """A name that may be left away, or empty."""
    place = fields.get(name)
    return "" if place is None or place.value == "" else check(place)


def _container(place: Place, taken: set[str]) -> Container:
    fields = place.fields()
    name = fields.need("name")
    if checks.dns_label(name) in taken:
        name.refuse("each container of a pod has a name of its own")
    taken.add(name.text())
    return Container(
        name.text(),
        fields.text("image"),
        _strings(fields, "command"),
        _strings(fields, "args"),
        fields.text("workingDir"),
        tuple(_env(item) for item in fields.items("env")),
        _ports(fields.items("ports")),
        _probe(fields.get("startupProbe")),
        _probe(fields.get("readinessProbe")),
        _probe(fields.get("livenessProbe")),
        fields.one_of("restartPolicy", ("", *RESTART_POLICIES), ""),
    )


def _strings(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(item.text() for item in fields.items(name))


def _ports(items: list[Place]) -> tuple[ContainerPort, ...]:
    taken: set[str] = set()
    ports = []
    for item in items:
        fields = item.fields()
        name = fields.get("name")
        if name is not None and name.value != "":
            if checks.port_name(name) in taken:
                name.refuse("each port of a container has a name of its own")
            taken.add(name.text())
        host = fields.get("hostIP")
        ports.append(
            ContainerPort(
                checks.port_number(fields.need("containerPort")),
                fields.text("name"),
                fields.one_of("protocol", PROTOCOLS, "TCP"),
                fields.number("hostPort", 0, 0, checks.LAST_PORT),
                address(host) if host is not None and host.value != "" else None,
            )
        )
    return tuple(ports)


def _env(place: Place) -> EnvVar:
    fields = place.fields()
    name = fields.need("name")
    if "=" in name.name():
        name.refuse("a variable's name has no '='")
    value, source = fields.text("value"), fields.get("valueFrom")
    if source is None:
        return EnvVar(name.text(), value)
    if value:
        source.refuse("either value or valueFrom belongs here")
    sources = source.fields()
    reference = sources.get("fieldRef")
    if reference is not None:
        return EnvVar(name.text(), field_path=reference.fields().need("fieldPath").name())
    kinds = ("configMapKeyRef", "secretKeyRef", "resourceFieldRef", "fileKeyRef")
    return EnvVar(name.text(), source=next((kind for kind in kinds if kind in sources), "unknown"))


# ---- probes ------------------------------------------------------------------------------------


def _probe(place: Place | None) -> Probe | None:
    if place is None:
        return None
    fields = place.fields()
    given = [name for name in _ACTIONS if name in fields]
    if len(given) != 1:
        place.refuse(f"a probe does exactly one of {', '.join(_ACTIONS)}", " and ".join(given) or "none")
    return Probe(
        _ACTIONS[given[0]](fields.need(given[0]).fields()),
        fields.number("initialDelaySeconds", 0, 0, _MOST_SECONDS),
        fields.number("periodSeconds", 10, 1, _MOST_SECONDS),
        fields.number("timeoutSeconds", 1, 1, _MOST_SECONDS),
        fields.number("successThreshold", 1, 1, _MOST_SECONDS),
        fields.number("failureThreshold", 3, 1, _MOST_SECONDS),
    )


def _http_get(fields: Fields) -> HttpGet:
    headers = (item.fields() for item in fields.items("httpHeaders"))
    return HttpGet(
        port_or_name(fields.need("port")),
        fields.text("path", "/"),
        fields.text("host"),
        fields.one_of("scheme", ("HTTP", "HTTPS"), "HTTP"),
        tuple((header.need("name").name(), header.text("value")) for header in headers),
    )


def port_or_name(place: Place) -> int | str:
    """A port's number, or the name of a container's port."""
    return checks.port_name(place) if isinstance(place.value, str) else checks.port_number(place)


_ACTIONS: Mapping[str, Callable[[Fields], HttpGet | TcpSocket | Exec | Grpc]] = {
    "httpGet": _http_get,
    "tcpSocket": lambda fields: TcpSocket(port_or_name(fields.need("port")), fields.text("host")),
    "exec": lambda fields: Exec(_strings(fields, "command")),
    "grpc": lambda fields: Grpc(checks.port_number(fields.need("port")), fields.text("service")),
}
