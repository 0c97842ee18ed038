"""Ways onwards: to whom the client has called, from the client's address.

Envoy keeps a pool of connections for each pair of those: one onwards is one client's (that is, one pod's),
though not one connection's of it.
"""

from __future__ import annotations

import socket
from typing import Final

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, extension_pb2, protocol_pb2
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream

from axoneme.model.l7 import TLSContext
from axoneme.proxy.envoy.protos import Kernel, Message, number, packed, seconds, socket_option, truth
from axoneme.proxy.sockets import OWN_PORTS

#: The cluster for connections that stay as they are.
PLAIN: Final = "onwards"

#: Seconds. A client gives up by itself before that, or has retried.
_CONNECT: Final = 30.0
#: Seconds that a connection is kept for the next request of the same client. A server's own patience is
#: longer: otherwise it might close the connection just when a request is on its way.
_IDLE: Final = 1.0
#: More connections than there are descriptors: other limits hold (bootstrap.py).
_ENOUGH: Final = 1 << 30

_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IP_LOCAL_PORT_RANGE: Final = 51
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def name_for(context: TLSContext | None) -> str:
    if context is None:
        return PLAIN
    keys = f"{context.trusted_ca}/{context.certificate}/{context.private_key}"
    return f"{PLAIN}/tls/{context.secret.namespace}/{context.secret.name}/{keys}"


def cluster(name: str, transport: Message | None, kernel: Kernel) -> Message:
    """``transport``: the transport socket, where it is TLS."""
    protocols = upstream.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            max_headers_count=number(1000), idle_timeout=seconds(_IDLE)
        ),
        use_downstream_protocol_config=upstream.HttpProtocolOptions.UseDownstreamHttpConfig(
            http_protocol_options=http1(), http2_protocol_options=http2()
        ),
    )
    if transport is not None:
        # Of a client that said no name in TLS of its own; its name counts more (listeners.py).
        protocols.upstream_http_protocol_options.auto_sni = True
        protocols.upstream_http_protocol_options.auto_san_validation = True
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=seconds(_CONNECT),
        per_connection_buffer_limit_bytes=number(256 << 10),
        upstream_bind_config=own_ports(kernel),
        upstream_connection_options=cluster_pb2.UpstreamConnectionOptions(
            tcp_keepalive=address_pb2.TcpKeepalive(
                keepalive_probes=number(4), keepalive_time=number(120), keepalive_interval=number(30)
            )
        ),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(
            thresholds=[
                circuit_breaker_pb2.CircuitBreakers.Thresholds(
                    max_connections=number(_ENOUGH),
                    max_pending_requests=number(_ENOUGH),
                    max_requests=number(_ENOUGH),
                    max_retries=number(_ENOUGH),
                )
            ]
        ),
        typed_extension_protocol_options={_OPTIONS: packed(protocols)},
        transport_socket=transport,
    )


def own_ports(kernel: Kernel) -> Message:
    """Calls onwards have ports of their own, where the kernel can choose among some."""
    options = [socket_option(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)]
    if kernel.own_ports:
        ports = OWN_PORTS.start | (OWN_PORTS.stop - 1) << 16
        options.append(socket_option(socket.SOL_IP, _IP_LOCAL_PORT_RANGE, ports))
    return address_pb2.BindConfig(socket_options=options)


def http1() -> Message:
    """HTTP/1 as it came: names of headers in their case, trailers, methods that nobody has heard of."""
    return protocol_pb2.Http1ProtocolOptions(
        accept_http_10=True,
        default_host_for_http_10="localhost",
        enable_trailers=True,
        allow_custom_methods=True,
        allow_absolute_url=truth(True),
        header_key_format=protocol_pb2.Http1ProtocolOptions.HeaderKeyFormat(
            stateful_formatter=extension_pb2.TypedExtensionConfig(
                name="preserve_case",
                typed_config=packed(preserve_case_pb2.PreserveCaseFormatterConfig()),
            )
        ),
    )


def http2() -> Message:
    return protocol_pb2.Http2ProtocolOptions(
        allow_connect=True,
        max_concurrent_streams=number(1000),
        initial_stream_window_size=number(1 << 20),
        initial_connection_window_size=number(4 << 20),
        # One bad message ends its stream, not the others of the connection.
        override_stream_error_on_invalid_http_message=truth(True),
    )
