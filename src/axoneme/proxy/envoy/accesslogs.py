"""Where Envoy's access logs go, and what they have in them (`axoneme.proxy.envoy.events` reads them)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2

from axoneme.proxy.envoy.protos import Message, number, packed, parent_service, seconds

#: Seconds until what has happened is told, and bytes of which there are so many that it is told at once.
_SOON: Final = 0.1
_MANY: Final = 16 << 10
GRPC_STATUS: Final = "grpc-status"


def of_requests(direction: str, headers: Iterable[str]) -> Message:
    return _log(
        "http_grpc",
        als_pb2.HttpGrpcAccessLogConfig(
            common_config=_common(direction),
            additional_request_headers_to_log=sorted(headers),
            additional_response_headers_to_log=[GRPC_STATUS],
            additional_response_trailers_to_log=[GRPC_STATUS],
        ),
    )


def of_connections(direction: str) -> Message:
    return _log("tcp_grpc", als_pb2.TcpGrpcAccessLogConfig(common_config=_common(direction)))


def _common(direction: str) -> Message:
    return als_pb2.CommonGrpcAccessLogConfig(
        log_name=direction,
        grpc_service=parent_service(),
        transport_api_version=config_source_pb2.V3,
        buffer_flush_interval=seconds(_SOON),
        buffer_size_bytes=number(_MANY),
    )


def _log(name: str, config: Message) -> Message:
    return accesslog_pb2.AccessLog(name=f"envoy.access_loggers.{name}", typed_config=packed(config))
