"""How Envoy speaks HTTP here: as if it was not there, apart from what the rules say and what protects it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, protocol_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from axoneme.proxy.envoy import accesslogs, clusters
from axoneme.proxy.envoy.protos import Message, from_parent, number, packed, seconds, truth
from axoneme.proxy.envoy.routes import BUFFERED, REFUSED_BODY, REFUSED_CODE
from axoneme.proxy.plan import Listener

#: Seconds for the whole of a request's headers to come.
HEADERS: Final = 30.0
#: As much of headers as servers take that take much, in KiB.
_HEADERS_KB: Final = 256
#: What a connection may become besides HTTP.
_UPGRADES: Final = ("websocket", "CONNECT", "SPDY/3.1", "tcp")


def _filter(name: str, config: Message) -> Message:
    return hcm.HttpFilter(name=f"envoy.filters.http.{name}", typed_config=packed(config))


def _longer_than_buffered() -> Message:
    """Only what is refused is buffered (routes.py): it is still refused, and not for its length."""
    code = accesslog_pb2.ComparisonFilter(
        op=accesslog_pb2.ComparisonFilter.EQ,
        value=base_pb2.RuntimeUInt32(default_value=413, runtime_key="axoneme.none"),
    )
    return hcm.ResponseMapper(
        filter=accesslog_pb2.AccessLogFilter(
            status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=code)
        ),
        status_code=number(REFUSED_CODE),
        body=base_pb2.DataSource(inline_string=REFUSED_BODY),
    )


def manager(it: Listener, headers: Iterable[str]) -> Message:
    """HTTP/1 and HTTP/2, whichever the client begins with."""
    return hcm.HttpConnectionManager(
        stat_prefix="http",
        codec_type=hcm.HttpConnectionManager.AUTO,
        rds=hcm.Rds(config_source=from_parent(), route_config_name=str(it.port)),
        http_filters=[
            _filter("buffer", buffer_pb2.Buffer(max_request_bytes=number(BUFFERED))),
            _filter("router", router_pb2.Router(suppress_envoy_headers=True)),
        ],
        local_reply_config=hcm.LocalReplyConfig(mappers=[_longer_than_buffered()]),
        upgrade_configs=[hcm.HttpConnectionManager.UpgradeConfig(upgrade_type=each) for each in _UPGRADES],
        access_log=accesslogs.of_requests(it.direction, headers),
        # A stream may be silent as long as both ends like, but nobody waits for the beginning of a request.
        stream_idle_timeout=seconds(0),
        request_headers_timeout=seconds(HEADERS),
        max_request_headers_kb=number(_HEADERS_KB),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(max_headers_count=number(1000)),
        http_protocol_options=clusters.http1(),
        http2_protocol_options=clusters.http2(),
        stream_error_on_invalid_http_message=truth(True),
        # What is judged is what is forwarded, and means the same to the server: routes.py.
        normalize_path=truth(True),
        path_with_escaped_slashes_action=hcm.HttpConnectionManager.KEEP_UNCHANGED,
        # The headers are the client's.
        use_remote_address=truth(False),
        skip_xff_append=True,
        generate_request_id=truth(False),
        preserve_external_request_id=True,
        proxy_100_continue=True,
        server_header_transformation=hcm.HttpConnectionManager.PASS_THROUGH,
    )
