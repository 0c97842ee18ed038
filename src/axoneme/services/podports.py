"""What pods of this node get without a Service's endpoints: host ports, and local redirects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from axoneme.model.localredirect import LocalRedirectPolicy, RedirectPort
from axoneme.model.services import Service, ServicePort
from axoneme.services.balanced import Address, Backend, Balanced, Frontend, FrontendKind
from axoneme.services.facts import LocalPod, NodeFacts, PodPort
from axoneme.services.frontends import EVERY, PROTOCOLS


def host_ports(pod: LocalPod, node: NodeFacts) -> Iterator[Balanced]:
    """One for each port of the pod that shall be called at the node."""
    addresses = [each for each in pod.addresses if each.version in node.versions]
    for port in pod.ports:
        if not port.host_port or port.protocol not in PROTOCOLS:
            continue
        at = list(_host_addresses(port, addresses))
        if not at:
            continue
        protocol = PROTOCOLS[port.protocol]
        where = f"{port.host_ip}:" if port.host_ip else ""
        yield Balanced(
            f"{pod.namespace}/{pod.name}",
            f"host:{where}{port.host_port}/{port.protocol}",
            protocol,
            tuple(Frontend(each, port.host_port, protocol, FrontendKind.HOST_PORT, True) for each in at),
            _backends(pod, addresses, port.port, node),
            created=pod.created,
        )


def unserved(pod: LocalPod) -> tuple[str, ...]:
    """What `host_ports` leaves out, and why."""
    return tuple(
        f"host port {port.host_port}/{port.protocol} at {port.host_ip} is not served: each pod has a "
        "loopback of its own, and what it calls there is its own; name another address of the node, or none"
        for port in pod.ports
        if port.host_port and port.host_ip and port.host_ip.is_loopback
    )


def _host_addresses(port: PodPort, addresses: Iterable[Address]) -> Iterator[Address]:
    versions = dict.fromkeys(each.version for each in addresses)
    if port.host_ip is None:
        yield from (EVERY[version] for version in versions)
    elif port.host_ip.version in versions and not port.host_ip.is_loopback:
        yield port.host_ip


def redirected_ports(
    policy: LocalRedirectPolicy, service: Service, pods: Iterable[LocalPod], node: NodeFacts
) -> Mapping[ServicePort, tuple[Backend, ...]]:
    """The ports of ``service`` that ``policy`` redirects, with the pods that get their callers; ``pods`` are
    those of the policy's namespace. A port for which there is none stays as it is."""
    pods = [pod for pod in pods if selected(policy, pod)]
    found = {}
    for port in service.ports:
        if policy.ports and all(
            (each.port, each.protocol) != (port.port, port.protocol) for each in policy.ports
        ):
            continue
        if backends := _stand_ins(policy, port.name.lower(), port.protocol, pods, node):
            found[port] = backends
    return found


def redirected_address(
    policy: LocalRedirectPolicy, pods: Iterable[LocalPod], node: NodeFacts
) -> Iterator[Balanced]:
    """One for each port of the address that is redirected. With no pod to go to nothing is: what is sent
    there goes on as it did."""
    pods = [pod for pod in pods if selected(policy, pod)]
    if policy.address is None or policy.address.version not in node.versions:
        return
    for port in policy.ports:
        if backends := _stand_ins(policy, port.name, port.protocol, pods, node):
            protocol = PROTOCOLS[port.protocol]
            yield Balanced(
                f"{policy.metadata.namespace}/{policy.metadata.name}",
                f"redirect:{port.port}/{port.protocol}",
                protocol,
                (Frontend(policy.address, port.port, protocol, FrontendKind.LOCAL_REDIRECT),),
                backends,
                created=policy.metadata.created,
            )


def selected(policy: LocalRedirectPolicy, pod: LocalPod) -> bool:
    """Whether the pod takes what the policy redirects."""
    return pod.ready and policy.backends.matches(pod.label_set)


def _stand_ins(
    policy: LocalRedirectPolicy, name: str, protocol: str, pods: Iterable[LocalPod], node: NodeFacts
) -> tuple[Backend, ...]:
    """Of a called port with this name. Names count where several ports can be called: the pods' ports have
    the same names then, in the policy and in the pods."""
    named = len(policy.ports) > 1 or (not policy.ports and len(policy.backend_ports) > 1)
    wanted = [
        each
        for each in policy.backend_ports
        if each.protocol == protocol and (not named or each.name == name)
    ]
    return tuple(
        backend
        for pod in pods
        for port in wanted
        if any(_is(each, port, named) for each in pod.ports)
        for backend in _backends(pod, pod.addresses, port.port, node)
    )


def _is(port: PodPort, wanted: RedirectPort, named: bool) -> bool:
    if (port.port, port.protocol) != (wanted.port, wanted.protocol):
        return False
    return not named or port.name.lower() == wanted.name


def _backends(pod: LocalPod, addresses: Iterable[Address], port: int, node: NodeFacts) -> tuple[Backend, ...]:
    return tuple(
        Backend(each, port, node=node.name, name=f"{pod.namespace}/{pod.name}")
        for each in addresses
        if each.version in node.versions
    )
