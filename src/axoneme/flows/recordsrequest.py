"""What is asked of ``flows.records``; what is answered, `axoneme.flows.transfer`, takes numpy to read."""

from __future__ import annotations

import msgspec

from axoneme.flows.flow import ObserveRequest


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reader stands: the numbers of the records that it wants next, in the memory of one flow server.
    ``server`` names that memory; it begins anew when the process does. ``told``: of how many events the
    reader knows that they were lost before they got there: flows, drops, requests."""

    server: str
    flows: int
    drops: int
    told: tuple[int, int, int] | None = None


class RecordsRequest(ObserveRequest, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Parameters of ``flows.records``. ``after``: go on where a parcel ended; a position in a memory that is
    gone means the beginning of the present one."""

    after: Position | None = None
