"""Where Envoy's access logs go, and what they have in them (`axoneme.proxy.envoy.events` reads them)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.filters.process_ratelimit.v3 import process_ratelimit_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.type.v3 import token_bucket_pb2

from axoneme.proxy.envoy.protos import Message, from_parent, number, packed, parent_service, seconds

#: Seconds until what has happened is told, and bytes of which there are so many that it is told at once.
_SOON: Final = 0.1
_MANY: Final = 16 << 10
GRPC_STATUS: Final = "grpc-status"
#: Requests a second that are told of, by each of the two logs.
MOST_TOLD: Final = 1000
PASSED, OTHERS = BUCKETS = "passed", "others"
#: Behind the direction, in the name of a log of `of_given`.
GIVEN: Final = " given"
#: What the routes of requests that pass are called begins so (routes.py).
_WHICH: Final = (
    (PASSED, "xds.route_name.startsWith('FORWARDED')"),
    (OTHERS, "!(has(xds.route_name) && xds.route_name.startsWith('FORWARDED'))"),
)


def of_requests(direction: str, headers: Iterable[str]) -> list[Message]:
    """Of what passes and of what does not, each within a budget of its own: what is beyond it costs next to
    nothing, while to tell of a request costs a third of what it takes to pass it on."""
    config = _of_http(direction, headers)
    return [_log("http_grpc", config, _both(_expression(which), _within(bucket))) for bucket, which in _WHICH]


def of_given(direction: str, headers: Iterable[str]) -> Message:
    """Of what a listener passes on whose routes are not ours, and which refuses nothing for us."""
    return _log("http_grpc", _of_http(f"{direction}{GIVEN}", headers), _within(PASSED))


def _of_http(name: str, headers: Iterable[str]) -> Message:
    return als_pb2.HttpGrpcAccessLogConfig(
        common_config=_common(name),
        additional_request_headers_to_log=sorted(headers),
        additional_response_headers_to_log=[GRPC_STATUS],
        additional_response_trailers_to_log=[GRPC_STATUS],
    )


def budget() -> Message:
    """What a bucket of `BUCKETS` has."""
    return token_bucket_pb2.TokenBucket(
        max_tokens=MOST_TOLD, tokens_per_fill=number(MOST_TOLD // 10), fill_interval=seconds(0.1)
    )


def of_connections(direction: str) -> Message:
    return _log("tcp_grpc", als_pb2.TcpGrpcAccessLogConfig(common_config=_common(direction)))


def _common(name: str) -> Message:
    return als_pb2.CommonGrpcAccessLogConfig(
        log_name=name,
        grpc_service=parent_service(),
        transport_api_version=config_source_pb2.V3,
        buffer_flush_interval=seconds(_SOON),
        buffer_size_bytes=number(_MANY),
    )


def _log(name: str, config: Message, which: Message | None = None) -> Message:
    return accesslog_pb2.AccessLog(
        name=f"envoy.access_loggers.{name}", typed_config=packed(config), filter=which
    )


def _both(*which: Message) -> Message:
    return accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=which))


def _expression(text: str) -> Message:
    return _filter("cel", cel_pb2.ExpressionFilter(expression=text))


def _within(bucket: str) -> Message:
    config = process_ratelimit_pb2.ProcessRateLimitFilter(
        dynamic_config=process_ratelimit_pb2.DynamicTokenBucket(
            resource_name=bucket, config_source=from_parent()
        )
    )
    return _filter("process_ratelimit", config)


def _filter(name: str, config: Message) -> Message:
    return accesslog_pb2.AccessLogFilter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name=f"envoy.access_loggers.extension_filters.{name}", typed_config=packed(config)
        )
    )
