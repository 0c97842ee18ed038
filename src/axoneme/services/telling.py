"""Services as an agent tells of them: what was wanted, by the numbers that the kernel has for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from axoneme.services.balanced import Backend, Balanced, Frontend
from axoneme.services.tables import Name, ServiceTables
from axoneme.services.view import BackendView, FrontendView, ServiceView

#: By the numbers of service and backend; backend 0 stands for none.
Served = Mapping[tuple[int, int], int]


def tell(tables: ServiceTables, served: Served, problems: Mapping[Name, str]) -> list[ServiceView]:
    """By name and port. ``served``: how often a backend was chosen."""
    services = sorted(tables, key=lambda each: (each.name, each.port))
    return [_service(each, tables, served, problems.get((each.name, each.port), "")) for each in services]


def _service(balanced: Balanced, tables: ServiceTables, served: Served, problem: str) -> ServiceView:
    numbers = tables.numbers(balanced.name, balanced.port)
    return ServiceView(
        name=balanced.name,
        port=balanced.port,
        protocol=balanced.protocol.name,
        numbers=tuple(numbers.values()),
        frontends=tuple(map(_frontend, balanced.frontends)),
        backends=tuple(_backends(balanced, numbers, tables, served)),
        algorithm=balanced.algorithm.value,
        affinity=balanced.affinity,
        refused=sum(served.get((number, 0), 0) for number in numbers.values()),
        problem=problem,
    )


def _frontend(frontend: Frontend) -> FrontendView:
    ranges = frontend.source_ranges
    return FrontendView(
        address=str(frontend.address),
        port=frontend.port,
        type=frontend.kind.value,
        external=frontend.external,
        direct=frontend.direct,
        source_ranges=None if ranges is None else tuple(map(str, ranges)),
    )


def _backends(
    balanced: Balanced, numbers: Mapping[tuple[int, str], int], tables: ServiceTables, served: Served
) -> Iterator[BackendView]:
    for backend, callers in _who_gets(balanced):
        number = tables.backend_number(backend, balanced.protocol)
        if number is None:  # of a family in which nobody calls the service
            continue
        # Callers from outside have a number of their own where they get others: its name is not empty.
        wanted = {"": (True, False), "inside": (False,), "outside": (True,)}[callers]
        services = tuple(
            each
            for (version, side), each in numbers.items()
            if version == backend.address.version and bool(side) in wanted
        )
        yield BackendView(
            number=number,
            services=services,
            address=str(backend.address),
            port=backend.port,
            state=backend.state.value,
            weight=backend.weight,
            node=backend.node,
            name=backend.name,
            callers=callers,
            chosen=sum(served.get((service, number), 0) for service in services),
        )


def _who_gets(balanced: Balanced) -> Iterator[tuple[Backend, Literal["", "inside", "outside"]]]:
    """Each backend, and which callers get it, where that is not all."""
    if balanced.outside is None:
        yield from ((each, "") for each in balanced.backends)
        return
    outside = dict.fromkeys(balanced.outside)
    for each in balanced.backends:
        if each in outside:
            del outside[each]
            yield each, ""
        else:
            yield each, "inside"
    yield from ((each, "outside") for each in outside)
