"""Short ways to write Envoy's messages."""

from __future__ import annotations

from typing import Any, NamedTuple

from envoy.config.core.v3 import address_pb2, config_source_pb2, grpc_service_pb2, socket_option_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2

#: A message of Envoy's, whose classes are generated and have no types.
Message = Any


class Kernel(NamedTuple):
    """What this machine's can do. ``own_ports``: a socket may choose among the ports of proxies (Linux 6.3;
    of no effect unless the node's range has them). ``many_sockets``: connections can be handed to a listener
    that has a socket for each thread (Linux 6.6)."""

    own_ports: bool
    many_sockets: bool


#: The cluster by which Envoy reaches the process that it is a child of.
PARENT = "parent"


def packed(message: Message) -> Message:
    wrapped = any_pb2.Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def seconds(value: float) -> Message:
    return duration_pb2.Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def number(value: int) -> Message:
    return wrappers_pb2.UInt32Value(value=value)


def truth(value: bool) -> Message:
    return wrappers_pb2.BoolValue(value=value)


def address(host: str, port: int) -> Message:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port),
    )


def from_parent() -> Message:
    """What comes over the one stream of discovery."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def parent_service() -> Message:
    return grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=PARENT)
    )


def socket_option(level: int, name: int, value: int) -> Message:
    """Set before the socket is bound."""
    return socket_option_pb2.SocketOption(
        level=level, name=name, int_value=value, state=socket_option_pb2.SocketOption.STATE_PREBIND
    )
