"""Envoy's access logs as events for the flow server."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2

from axoneme.model.l7event import HTTPEvent, L7Event
from axoneme.proxy.envoy.accesslogs import GIVEN, GRPC_STATUS
from axoneme.proxy.envoy.protos import Message
from axoneme.proxy.envoy.routes import REFUSED_CODE
from axoneme.proxy.events import EventSender

_VERSIONS: Final = {
    accesslog_pb2.HTTPAccessLogEntry.HTTP10: "HTTP/1.0",
    accesslog_pb2.HTTPAccessLogEntry.HTTP11: "HTTP/1.1",
    accesslog_pb2.HTTPAccessLogEntry.HTTP2: "HTTP/2",
    accesslog_pb2.HTTPAccessLogEntry.HTTP3: "HTTP/3",
}
_METHODS: Final = base_pb2.RequestMethod
#: RBAC: access denied (RFC of gRPC: PERMISSION_DENIED).
_PERMISSION_DENIED: Final = 7
#: Of gRPC; servers may say whatever they like.
_STATUS: Final = re.compile(r"[0-9]{1,5}\Z", re.ASCII).match


class AccessLogs:
    """The access log service. ``heard`` is set when there is something."""

    def __init__(self, sender: EventSender) -> None:
        self._sender = sender
        self.heard = asyncio.Event()

    async def serve(self, messages: Any, _: object) -> Message:
        """One stream of ``StreamAccessLogs``, which says in its beginning whose it is."""
        name = ""
        async for message in messages:
            name = message.identifier.log_name or name
            self._sender.send(*events(name, message))
            self.heard.set()
        return als_pb2.StreamAccessLogsResponse()


def events(name: str, message: Message) -> Iterator[L7Event]:
    """``name``: of the log."""
    direction = name.removesuffix(GIVEN)
    yield from (_of_request(direction, entry, name != direction) for entry in message.http_logs.log_entry)
    for entry in message.tcp_logs.log_entry:
        event = _of_connection(direction, entry)
        if not ipaddress.ip_address(event.destination).is_loopback:  # to the listener itself
            yield event


def _of_request(direction: str, entry: Message, given: bool) -> L7Event:
    common, request, response = entry.common_properties, entry.request, entry.response
    verdict, _, reason = ("FORWARDED" if given else common.route_name).partition(" ")
    code = response.response_code.value
    status = response.response_trailers.get(GRPC_STATUS) or response.response_headers.get(GRPC_STATUS) or ""
    if verdict == "DROPPED":
        code = REFUSED_CODE
    return L7Event(
        **_ends(direction, common),
        type="REQUEST" if verdict == "DROPPED" else "RESPONSE",
        verdict=verdict or "ERROR",
        reason=reason if verdict else response.response_code_details,
        latency_ns=_nanoseconds(common.time_to_last_downstream_tx_byte),
        server_name=common.tls_properties.tls_sni_hostname,
        http=HTTPEvent(
            method=_method(request),
            # As it was judged; the original path is what a client says in x-envoy-original-path.
            url=f"{request.scheme or 'http'}://{request.authority}{request.path}",
            protocol=_VERSIONS.get(entry.protocol_version, ""),
            code=code,
            headers=tuple(sorted(request.request_headers.items())),
            grpc_status=int(status) if _STATUS(status) else None,
        ),
    )


def _of_connection(direction: str, entry: Message) -> L7Event:
    common = entry.common_properties
    refused = common.response_flags.no_route_found
    name = common.tls_properties.tls_sni_hostname
    return L7Event(
        **_ends(direction, common),
        type="REQUEST",
        verdict="DROPPED" if refused else "FORWARDED",
        reason=("no rule allows this server name" if name else "no server name") if refused else "",
        server_name=name,
    )


def _ends(direction: str, common: Message) -> dict[str, Any]:
    # Not the one that is said in x-forwarded-for.
    client = common.downstream_direct_remote_address.socket_address
    server = common.downstream_local_address.socket_address
    return {
        "time": common.start_time.seconds * 1_000_000_000 + common.start_time.nanos,
        "direction": direction,
        "protocol": "TCP",
        "source": client.address,
        "source_port": client.port_value,
        "destination": server.address,
        "destination_port": server.port_value,
    }


def _method(request: Message) -> str:
    name = _METHODS.Name(request.request_method)
    return "" if name == "METHOD_UNSPECIFIED" else name


def _nanoseconds(duration: Message) -> int:
    return int(duration.seconds * 1_000_000_000 + duration.nanos)
