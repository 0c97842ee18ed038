"""The proxy for HTTP, gRPC and TLS as a process: it keeps an Envoy, tells it what to do, and hears what it
did."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.discovery.v3 import discovery_pb2

from axoneme.proxy.envoy import child, untold
from axoneme.proxy.envoy.ads import Discovery
from axoneme.proxy.envoy.bootstrap import PARENT_SOCKET
from axoneme.proxy.envoy.events import AccessLogs
from axoneme.proxy.envoy.protos import Kernel
from axoneme.proxy.envoy.reporting import Reporter
from axoneme.proxy.envoy.resources import resources
from axoneme.proxy.events import EventSender
from axoneme.proxy.process import Surroundings

log = logging.getLogger(__name__)

#: Envoy's threads: more serve more connections at once, and cost memory each.
_MOST_WORKERS = 8


def start(surroundings: Surroundings) -> Coroutine[object, object, None]:
    return _work(surroundings, child.Binary())


async def _work(surroundings: Surroundings, binary: child.Binary) -> None:
    following = surroundings.following
    kernel = kernel_of_this_machine()
    sender: EventSender | None = None
    server: Any = None
    changed = asyncio.Event()
    discovery = Discovery(changed.set)
    try:
        async with asyncio.TaskGroup() as tasks, aclosing(following.plans()) as plans:
            reporter = Reporter(discovery, following, changed)
            async for plan in plans:
                discovery.set(resources(plan, kernel))
                reporter.follow(plan)
                if sender is not None:
                    sender.redaction = plan.redaction
                    continue
                sender = EventSender(surroundings.reachable(Path(plan.events)), plan.redaction)
                logs = AccessLogs(sender)
                server = await _serve(discovery, logs)
                workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
                keeping = tasks.create_task(child.keep(binary, plan.node, workers, changed.set))
                reporting = tasks.create_task(reporter.run())
                counting = tasks.create_task(untold.count(logs.heard, sender.leave_out))
            log.info("no plan any more")
            if sender is not None:
                keeping.cancel()
                reporting.cancel()
                counting.cancel()
    finally:
        if server is not None:
            await server.stop(None)
        if sender is not None:
            sender.close()


async def _serve(discovery: Discovery, logs: AccessLogs) -> Any:
    """Both services, on the socket that the child knows."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "envoy.service.discovery.v3.AggregatedDiscoveryService",
                {
                    "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(
                        discovery.serve,
                        discovery_pb2.DeltaDiscoveryRequest.FromString,
                        discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
                    )
                },
            ),
            grpc.method_handlers_generic_handler(
                "envoy.service.accesslog.v3.AccessLogService",
                {
                    "StreamAccessLogs": grpc.stream_unary_rpc_method_handler(
                        logs.serve,
                        als_pb2.StreamAccessLogsMessage.FromString,
                        als_pb2.StreamAccessLogsResponse.SerializeToString,
                    )
                },
            ),
        )
    )
    with suppress(FileNotFoundError):
        Path(PARENT_SOCKET).unlink()
    server.add_insecure_port(f"unix:{PARENT_SOCKET}")
    await server.start()
    return server


def kernel_of_this_machine() -> Kernel:
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    return Kernel(own_ports=release >= (6, 3), many_sockets=release >= (6, 6))
