"""What an `Assignment` makes of the statuses of services and pools, in the words of Cilium's LB IPAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from axoneme.ipam.loadbalancers import SATISFIED, PoolState, Verdict
from axoneme.model.conditions import Condition, settle
from axoneme.model.exposure import ExposedService
from axoneme.model.loadbalancerpool import LoadBalancerPool

CONFLICT: Final = "cilium.io/PoolConflict"
TOTAL: Final = "cilium.io/IPsTotal"
AVAILABLE: Final = "cilium.io/IPsAvailable"
USED: Final = "cilium.io/IPsUsed"


class IngressAddress(msgspec.Struct, frozen=True, rename={"ip_mode": "ipMode"}):
    """Of ``status.loadBalancer.ingress``. VIP: the nodes serve the address themselves (KEP-1860)."""

    ip: str
    ip_mode: str = "VIP"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    ingress: tuple[IngressAddress, ...]
    conditions: tuple[Condition, ...]


def service_status(service: ExposedService, verdict: Verdict | None, now: str) -> ServiceStatus | None:
    """What the status must become; None when it says so already. Without ``verdict`` the service is
    somebody else's, and what was written here goes."""
    addresses = verdict.addresses if verdict else ()
    if verdict:
        satisfied = Condition(
            type=SATISFIED,
            status="True" if verdict.reason == "satisfied" else "False",
            reason=verdict.reason,
            message=verdict.message,
            observed_generation=service.generation,
        )
        conditions = settle(service.conditions, [satisfied], now)
    else:
        conditions = tuple(each for each in service.conditions if each.type != SATISFIED)
    stands = [None if each.hostname or each.proxy else each.address for each in service.service.ingress]
    if stands == list(addresses) and conditions == service.conditions:
        return None
    return ServiceStatus(tuple(IngressAddress(str(address)) for address in addresses), conditions)


def pool_conditions(pool: LoadBalancerPool, state: PoolState, now: str) -> Sequence[Condition] | None:
    """The conditions that the pool's status must have; None when it has them."""
    counts = {TOTAL: state.available + state.used, AVAILABLE: state.available, USED: state.used}
    wanted = [
        Condition(
            type=CONFLICT,
            status="True" if state.conflict else "False",
            reason="cidr_overlap" if state.conflict else "resolved",
            message=state.conflict,
            observed_generation=pool.generation,
        ),
        *(
            Condition(
                type=kind,
                status="Unknown",
                reason="noreason",
                message=str(count),
                observed_generation=pool.generation,
            )
            for kind, count in counts.items()
        ),
    ]
    conditions = settle(pool.conditions, wanted, now)
    return None if conditions == pool.conditions else conditions
