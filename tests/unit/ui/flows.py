"""Flows for tests, and a feed that gives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from axoneme.flows.flow import (
    HTTP,
    IP,
    TCP,
    Endpoint,
    Flow,
    Layer4,
    Layer7,
    ObserveRequest,
    PolicyName,
    Service,
    Workload,
)
from axoneme.rpc import RpcError
from axoneme.ui.feed import Gaps

WORLD = Endpoint(identity=2, labels=("reserved:world",))


def pod(name: str, node: str = "node1", namespace: str = "shop") -> Endpoint:
    """Of a deployment ``name``."""
    return Endpoint(
        ID=7,
        identity=300,
        namespace=namespace,
        labels=(f"k8s:app={name}", f"k8s:io.kubernetes.pod.namespace={namespace}"),
        pod_name=f"{name}-1",
        workloads=(Workload(name, "Deployment"),),
        node_name=node,
    )


def flow(
    source: Endpoint,
    destination: Endpoint,
    port: int = 80,
    *,
    node: str = "node1",
    second: float = 0,
    **more: Any,
) -> Flow:
    fields: dict[str, Any] = {
        "time": f"2026-01-01T00:00:{second:012.9f}Z",
        "verdict": "FORWARDED",
        "IP": IP("10.0.0.1", "10.0.0.2", "IPv4"),
        "l4": Layer4(TCP=TCP(40000, port)),
        "source": source,
        "destination": destination,
        "node_name": node,
        "traffic_direction": "INGRESS",
        "event": "new",
    }
    return Flow(**(fields | more))


def drop(source: Endpoint, destination: Endpoint, port: int = 80, **more: Any) -> Flow:
    return flow(
        source,
        destination,
        port,
        **{
            "verdict": "DROPPED",
            "drop_reason_desc": "POLICY_DENIED",
            "event": "drop",
            "ingress_denied_by": (PolicyName("closed", "shop", "NetworkPolicy"),),
            **more,
        },
    )


def answer(source: Endpoint, destination: Endpoint, url: str, code: int = 200, **more: Any) -> Flow:
    """What ``destination`` said to ``source``: it is the source of the flow."""
    return flow(
        destination,
        source,
        40000,
        **{
            "l4": Layer4(TCP=TCP(80, 40000)),
            "is_reply": True,
            "event": "response",
            "Type": "L7",
            "l7": Layer7("RESPONSE", 2_000_000, http=HTTP(code, "GET", url)),
            **more,
        },
    )


SHOP = Service("web", "shop", "http")


@dataclass
class FakeFeed:
    """``kept`` is the past; what is put into ``coming`` is the present."""

    kept: list[Flow] = field(default_factory=list)
    refused: RpcError | None = None
    coming: asyncio.Queue[list[Flow]] = field(default_factory=asyncio.Queue)
    asked: list[ObserveRequest] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def nodes(self) -> list[str]:
        return ["node1", "node2"]

    def heard(self) -> list[str]:
        return self.nodes()

    async def past(
        self, request: ObserveRequest, gaps: Gaps, newest: dict[str, str]
    ) -> AsyncGenerator[Flow, None]:
        self.asked.append(request)
        if self.refused and (request.filters or request.not_filters):
            raise self.refused
        gaps.nodes.update(self.absent)
        for each in self.kept[-request.last :] if request.last else self.kept:
            yield each

    async def live(
        self, request: ObserveRequest, gaps: Gaps, seen: Mapping[str, str]
    ) -> AsyncGenerator[list[Flow], None]:
        self.asked.append(request)
        while True:
            yield await self.coming.get()

    async def recorded(self) -> tuple[int, int] | None:
        return None
