"""What stands behind the address of a service that a pod calls: `axo policy why` judges these backends, as
the datapath does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place

if TYPE_CHECKING:
    from axoneme.services.view import FrontendView, ServiceView

_ANY = {4: "0.0.0.0", 6: "::"}
#: Addresses that belong to services alone: the ports that no service has there are refused.
_MARKED = ("ClusterIP", "LoadBalancer")


class Called(NamedTuple):
    """A port of a service, and where connections to it go. ``refusal`` says why they go nowhere."""

    service: str
    port: str
    backends: Sequence[tuple[str, int]] = ()
    refusal: str = ""

    def __str__(self) -> str:
        return f"port {self.port} of service {self.service}" if self.port else f"service {self.service}"


def of_node(place: Place, node: str) -> list[ServiceView]:
    """What this node's agent has written into its kernel's tables; Failure."""
    from axoneme.rpc import Client, RpcError
    from axoneme.services.view import ServiceView

    try:
        return Client(place.sockets(node).agent).call("services", None, list[ServiceView])
    except RpcError as error:
        raise Failure(
            f"the agent of {node}, asked what it balances: {error.message} (only the agent can say that)"
        ) from error


def find(
    services: Iterable[ServiceView], address: str, port: int, protocol: str, of_this_node: bool
) -> Called | None:
    """What a pod gets at ``address``; ``of_this_node``: it is one of the pod's own node."""
    family = 6 if ":" in address else 4
    owner = ""
    for service in services:
        for frontend in service.frontends:
            mine = frontend.address == address
            if (mine or (of_this_node and frontend.address == _ANY[family])) and (
                (frontend.port, service.protocol) == (port, protocol)
            ):
                return _called(service, family)
            if mine and _has_marker(frontend):
                owner = service.name
    if not owner or protocol.startswith("ICMP"):
        return None
    return Called(
        owner, "", refusal=f"{address} is the address of service {owner}: it has no {port}/{protocol}"
    )


def _has_marker(frontend: FrontendView) -> bool:
    return frontend.type in _MARKED


def _called(service: ServiceView, family: int) -> Called:
    backends = tuple(
        (each.address, each.port)
        for each in service.backends
        if each.state == "active" and each.callers != "outside" and (":" in each.address) == (family == 6)
    )
    called = Called(service.name, service.port, backends)
    return (
        called
        if backends
        else called._replace(refusal=f"{called} has no backend here that takes connections")
    )
