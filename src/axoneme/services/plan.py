"""What one service asks of the tables, before anything in it has a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from axoneme.services.balanced import Algorithm, Balanced, FrontendKind
from axoneme.services.rows import FrontendFlag, Place, TableAlgorithm, marker, packed, place, range_of

#: Of those that claim a frontend the lowest has it: when it was made, its name, its port.
Claim = tuple[str, str, str]
#: Family (4, 6), and for whom: ``""`` for callers within, or for all; ``outside``; or those of some ranges.
ViewKey = tuple[int, str]
#: Prefix lengths and addresses, as in `axoneme.services.rows.RangeKey`.
Ranges = frozenset[tuple[int, bytes]]

#: Addresses of these kinds are a service's own; those of the others may be a machine's.
_MARKED: Final = (FrontendKind.CLUSTER_IP, FrontendKind.LOAD_BALANCER, FrontendKind.BALANCER)


class Pointer(NamedTuple):
    """A frontend: which views it leads to."""

    service: ViewKey
    outside: ViewKey
    flags: int


@dataclass(slots=True)
class Plan:
    claim: Claim
    pointers: dict[Place, Pointer] = field(default_factory=dict)
    #: Flags of markers.
    markers: dict[Place, int] = field(default_factory=dict)
    #: All views, and who may call each from outside, where not everybody may.
    views: dict[ViewKey, Ranges] = field(default_factory=dict)
    external: bool = False


def plan(balanced: Balanced) -> Plan:
    made = Plan((balanced.created, balanced.name, balanced.port))
    #: By family, the ranges that the view for callers from outside already has.
    served: dict[int, Ranges] = {}
    for frontend in balanced.frontends:
        version = frontend.address.version
        within: ViewKey = (version, "")
        made.views.setdefault(within, frozenset())
        outside, flags = within, 0
        if frontend.external:
            made.external = True
            flags |= FrontendFlag.EXTERNAL
            outside = (version, "outside") if balanced.outside is not None else within
            if frontend.source_ranges is not None:
                flags |= FrontendFlag.SOURCE_RANGES
                ranges = frozenset(
                    range_of(each) for each in frontend.source_ranges if each.version == version
                )
                if served.setdefault(version, ranges) != ranges:
                    outside = (version, _name(ranges))
                made.views[outside] = ranges
            made.views.setdefault(outside, frozenset())
        if frontend.direct:
            flags |= FrontendFlag.DIRECT
        if frontend.wrapped:
            flags |= FrontendFlag.WRAPPED
        where = place(frontend.address, frontend.port, frontend.protocol)
        made.pointers[where] = Pointer(within, outside, int(flags))
        if frontend.kind in _MARKED and not frontend.address.is_unspecified:
            where = marker(packed(frontend.address))
            made.markers[where] = made.markers.get(where, 0) | int(flags & FrontendFlag.EXTERNAL)
    return made


def _name(ranges: Ranges) -> str:
    return " ".join(["only", *(f"{bits}:{address.hex()}" for bits, address in sorted(ranges))])


def algorithm(balanced: Balanced, external: bool, weights: Mapping[int, int]) -> TableAlgorithm:
    """Callers within choose at their sockets, before there is a tuple that could decide."""
    if balanced.algorithm is Algorithm.MAGLEV and external:
        return TableAlgorithm.MAGLEV
    return TableAlgorithm.WEIGHTED if len(set(weights.values())) > 1 else TableAlgorithm.RANDOM
