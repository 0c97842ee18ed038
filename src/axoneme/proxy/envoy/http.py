"""How Envoy speaks HTTP here: as if it was not there, apart from what the rules say and what protects it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from axoneme.proxy.envoy import accesslogs, clusters
from axoneme.proxy.envoy.protos import Message, from_parent, number, packed, seconds, truth
from axoneme.proxy.plan import Listener

#: Seconds for the whole of a request's headers to come.
HEADERS: Final = 30.0
#: As much of headers as servers take that take much, in KiB.
_HEADERS_KB: Final = 256
#: What a connection may become besides HTTP.
_UPGRADES: Final = ("websocket", "CONNECT", "SPDY/3.1", "tcp")


def manager(it: Listener, headers: Iterable[str]) -> Message:
    """HTTP/1 and HTTP/2, whichever the client begins with."""
    return hcm.HttpConnectionManager(
        stat_prefix="http",
        codec_type=hcm.HttpConnectionManager.AUTO,
        rds=hcm.Rds(config_source=from_parent(), route_config_name=str(it.port)),
        http_filters=[
            hcm.HttpFilter(
                name="envoy.filters.http.router",
                typed_config=packed(router_pb2.Router(suppress_envoy_headers=True)),
            )
        ],
        upgrade_configs=[hcm.HttpConnectionManager.UpgradeConfig(upgrade_type=each) for each in _UPGRADES],
        access_log=[accesslogs.of_requests(it.direction, headers)],
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
