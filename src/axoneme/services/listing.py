"""What is balanced, for people: services as they were told, their numbers, how often each was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from axoneme.services.balanced import Backend, Balanced, Frontend
from axoneme.services.tables import Name, ServiceTables
from axoneme.services.view import BackendView, FrontendView, ServiceView

#: How often a backend was chosen, by the numbers of service and backend; backend 0: nobody was there.
Served = Mapping[tuple[int, int], int]
Callers = Literal["", "inside", "outside"]


def services(tables: ServiceTables, served: Served, problems: Mapping[Name, str]) -> list[ServiceView]:
    """In order of names and ports."""
    every = sorted(tables, key=lambda each: (each.name, each.port))
    return [_service(each, tables, served, problems) for each in every]


def _service(
    balanced: Balanced, tables: ServiceTables, served: Served, problems: Mapping[Name, str]
) -> ServiceView:
    name = (balanced.name, balanced.port)
    numbers = tuple(tables.numbers(*name).values())
    backends = []
    for backend, callers in _backends(balanced):
        number = tables.backend_number(backend, balanced.protocol)
        if number is not None:  # else it is of a family that has no frontend
            chosen = sum(served.get((service, number), 0) for service in numbers)
            backends.append(_backend(backend, number, callers, chosen))
    return ServiceView(
        balanced.name,
        balanced.port,
        balanced.protocol.name,
        numbers,
        tuple(map(_frontend, balanced.frontends)),
        tuple(backends),
        balanced.algorithm.value,
        balanced.affinity,
        sum(served.get((service, 0), 0) for service in numbers),
        problems.get(name, ""),
    )


def _backends(balanced: Balanced) -> Iterator[tuple[Backend, Callers]]:
    """Each place once, and who gets it."""
    within = {(each.address, each.port): each for each in balanced.backends}
    if balanced.outside is None:
        yield from ((each, "") for each in within.values())
        return
    outside = {(each.address, each.port): each for each in balanced.outside}
    for place, each in within.items():
        yield each, "" if outside.get(place) == each else "inside"
    yield from ((each, "outside") for place, each in outside.items() if within.get(place) != each)


def _backend(backend: Backend, number: int, callers: Callers, chosen: int) -> BackendView:
    return BackendView(
        number,
        str(backend.address),
        backend.port,
        backend.state.value,
        backend.weight,
        backend.node,
        backend.name,
        callers,
        chosen,
    )


def _frontend(frontend: Frontend) -> FrontendView:
    ranges = frontend.source_ranges
    return FrontendView(
        str(frontend.address),
        frontend.port,
        frontend.kind.value,
        frontend.external,
        frontend.direct,
        None if ranges is None else tuple(map(str, ranges)),
    )
