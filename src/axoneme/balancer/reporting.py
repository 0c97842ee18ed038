"""What is wanted, what the kernel holds and what the checks say, made into the API's reports. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from axoneme.balancer.connections import Names
from axoneme.balancer.reports import BackendReport, BackendState, ServiceReport
from axoneme.model.balancer import Backend, Desired, Service, version
from axoneme.services.view import ServiceView

#: By numbers of service and backend.
Census = Mapping[tuple[int, int], int]


class Standing(NamedTuple):
    """What the checks say of a backend."""

    state: BackendState
    problem: str = ""
    since: float = 0.0


def service_reports(
    desired: Desired,
    views: Iterable[ServiceView],
    census: Census,
    standing: Callable[[Service, Backend], Standing],
) -> list[ServiceReport]:
    by_name: dict[str, list[ServiceView]] = {}
    for view in views:
        by_name.setdefault(view.name, []).append(view)
    return [_report(each, by_name.get(each.name, []), census, standing) for each in desired.services]


def numbers(views: Iterable[ServiceView], service: str, backend: str) -> dict[tuple[int, int], Names]:
    """The names of pairs of numbers; only of the ``service`` and ``backend`` that are not empty."""
    return {
        (number, each.number): Names(view.name, each.name)
        for view in views
        if service in ("", view.name)
        for each in view.backends
        if backend in ("", each.name)
        for number in view.numbers
    }


def _report(
    service: Service,
    views: list[ServiceView],
    census: Census,
    standing: Callable[[Service, Backend], Standing],
) -> ServiceReport:
    connections, chosen = _counts(views, census)
    backends = tuple(
        _backend(backend, standing(service, backend), connections, chosen) for backend in service.backends
    )
    return ServiceReport(
        name=service.name,
        version=version(service),
        frontends=tuple(dict.fromkeys(_frontends(views))),
        algorithm=service.algorithm,
        mode=service.mode,
        affinity=service.affinity,
        backends=backends,
        connections=sum(connections.values()),
        refused=sum(view.refused for view in views),
        problem="; ".join(view.problem for view in views if view.problem),
    )


def _counts(views: list[ServiceView], census: Census) -> tuple[dict[str, int], dict[str, int]]:
    """Connections now, and how often chosen, by the name of a backend."""
    connections: dict[str, int] = {}
    chosen: dict[str, int] = {}
    for view in views:
        for backend in view.backends:
            now = sum(census.get((number, backend.number), 0) for number in view.numbers)
            connections[backend.name] = connections.get(backend.name, 0) + now
            chosen[backend.name] = chosen.get(backend.name, 0) + backend.chosen
    return connections, chosen


def _frontends(views: list[ServiceView]) -> Iterator[str]:
    for view in views:
        for each in view.frontends:
            host = f"[{each.address}]" if ":" in each.address else each.address
            yield f"{host}:{each.port}/{view.protocol}"


def _backend(
    backend: Backend, found: Standing, connections: Mapping[str, int], chosen: Mapping[str, int]
) -> BackendReport:
    draining = backend.drain or not backend.weight
    return BackendReport(
        name=backend.called,
        address=backend.address,
        port=backend.port,
        weight=backend.weight,
        state="draining" if draining else found.state,
        connections=connections.get(backend.called, 0),
        chosen=chosen.get(backend.called, 0),
        problem=found.problem,
        since=found.since,
    )
