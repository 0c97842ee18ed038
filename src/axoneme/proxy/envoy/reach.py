"""How far a configuration that somebody has written may reach (`axoneme.proxy.envoy.given`).

Envoy can run programs, write files, take any address and call whatever it knows, its parent with everybody's
Secrets among that. Who may write a configuration into a namespace shall have none of it. So it may name the
extensions that are listed here, and clusters and routes of its own; what marks and addresses packets, and
what has its content from elsewhere, is ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory

from axoneme.proxy.envoy.protos import Message

_ANY: Final = "google.protobuf.Any"
_CORE: Final = "envoy.config.core.v3"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3"
_ROUTE: Final = "envoy.config.route.v3"
_TCP: Final = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"

#: What typed configurations may be.
EXTENSIONS: Final = frozenset(
    f"envoy.{each}"
    for each in (
        "extensions.compression.brotli.compressor.v3.Brotli",
        "extensions.compression.brotli.decompressor.v3.Brotli",
        "extensions.compression.gzip.compressor.v3.Gzip",
        "extensions.compression.gzip.decompressor.v3.Gzip",
        "extensions.compression.zstd.compressor.v3.Zstd",
        "extensions.compression.zstd.decompressor.v3.Zstd",
        "extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        "extensions.filters.http.admission_control.v3.AdmissionControl",
        "extensions.filters.http.bandwidth_limit.v3.BandwidthLimit",
        "extensions.filters.http.basic_auth.v3.BasicAuth",
        "extensions.filters.http.basic_auth.v3.BasicAuthPerRoute",
        "extensions.filters.http.buffer.v3.Buffer",
        "extensions.filters.http.buffer.v3.BufferPerRoute",
        "extensions.filters.http.compressor.v3.Compressor",
        "extensions.filters.http.compressor.v3.CompressorPerRoute",
        "extensions.filters.http.cors.v3.Cors",
        "extensions.filters.http.cors.v3.CorsPolicy",
        "extensions.filters.http.csrf.v3.CsrfPolicy",
        "extensions.filters.http.decompressor.v3.Decompressor",
        "extensions.filters.http.ext_authz.v3.ExtAuthz",
        "extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "extensions.filters.http.fault.v3.HTTPFault",
        "extensions.filters.http.grpc_http1_bridge.v3.Config",
        "extensions.filters.http.grpc_stats.v3.FilterConfig",
        "extensions.filters.http.grpc_web.v3.GrpcWeb",
        "extensions.filters.http.header_mutation.v3.HeaderMutation",
        "extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        "extensions.filters.http.header_to_metadata.v3.Config",
        "extensions.filters.http.health_check.v3.HealthCheck",
        "extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "extensions.filters.http.jwt_authn.v3.PerRouteConfig",
        "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "extensions.filters.http.ratelimit.v3.RateLimit",
        "extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
        "extensions.filters.http.rbac.v3.RBAC",
        "extensions.filters.http.rbac.v3.RBACPerRoute",
        "extensions.filters.http.router.v3.Router",
        "extensions.filters.listener.http_inspector.v3.HttpInspector",
        "extensions.filters.listener.tls_inspector.v3.TlsInspector",
        # These two are replaced by ours.
        "extensions.filters.listener.original_dst.v3.OriginalDst",
        "extensions.filters.listener.original_src.v3.OriginalSrc",
        "extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "extensions.filters.network.direct_response.v3.Config",
        "extensions.filters.network.echo.v3.Echo",
        "extensions.filters.network.ext_authz.v3.ExtAuthz",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
        "extensions.filters.network.ratelimit.v3.RateLimit",
        "extensions.filters.network.rbac.v3.RBAC",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
        "extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
        "extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
        "extensions.load_balancing_policies.least_request.v3.LeastRequest",
        "extensions.load_balancing_policies.maglev.v3.Maglev",
        "extensions.load_balancing_policies.pick_first.v3.PickFirst",
        "extensions.load_balancing_policies.random.v3.Random",
        "extensions.load_balancing_policies.ring_hash.v3.RingHash",
        "extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        "extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
        "extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "extensions.upstreams.http.v3.HttpProtocolOptions",
    )
)

#: Messages that may be nowhere, and why.
_NEVER: Final = {
    f"{_CORE}.BindConfig": "marks and addresses of connections are not a configuration's to choose",
    f"{_CORE}.SocketOption": "marks and addresses of connections are not a configuration's to choose",
    f"{_CORE}.Pipe": "sockets of the node are out of a configuration's reach",
    f"{_CORE}.WatchedDirectory": "files of the node are out of a configuration's reach",
    f"{_CORE}.GrpcService.GoogleGrpc": "envoy_grpc is, with a cluster of the configuration's own",
    f"{_CORE}.ExtensionConfigSource": "filters stand in the configuration itself",
    f"{_TLS}.SdsSecretConfig": "certificates and keys stand in the configuration itself",
    f"{_TLS}.TlsKeyLog": "files of the node are out of a configuration's reach",
}
#: Fields that may not be used, and why.
_UNUSED: Final = {
    f"{_CORE}.DataSource.filename": "files of the node are out of a configuration's reach",
    f"{_CORE}.DataSource.environment_variable": "the environment is out of a configuration's reach",
    f"{_CORE}.SocketAddress.network_namespace_filepath": "others' networks are out of its reach",
    f"{_CORE}.HealthCheck.event_log_path": "files of the node are out of a configuration's reach",
    f"{_ROUTE}.RouteAction.cluster_header": "requests do not choose among clusters",
    f"{_ROUTE}.RouteAction.RequestMirrorPolicy.cluster_header": "requests do not choose among clusters",
    f"{_ROUTE}.WeightedCluster.ClusterWeight.cluster_header": "requests do not choose among clusters",
}
#: Commands of Envoy's format strings that read what is the node's.
_COMMANDS: Final = ("%ENVIRONMENT(", "%FILE_CONTENT(")
#: Where content may come from somewhere else, namely from us.
_SOURCES: Final = frozenset(
    {
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds.config_source",
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.eds_config",
    }
)
#: Fields that name clusters or routes, besides all that are called ``cluster`` or ``cluster_name``.
_NAMING: Final = frozenset(
    {
        f"{_ROUTE}.WeightedCluster.ClusterWeight.name",
        f"{_TCP}.WeightedCluster.ClusterWeight.name",
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds.route_config_name",
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig.service_name",
    }
)
#: What is called so and names nothing that is called.
_HARMLESS: Final = frozenset({"envoy.config.endpoint.v3.ClusterLoadAssignment.cluster_name"})


def check(message: Message, own: Collection[str]) -> None:
    """``own``: the full names of what the configuration defines. ValueError for what is out of its reach; it
    names the field."""
    for path, field, value in _fields(message, ""):
        if reason := _refusal(field, value, own):
            raise ValueError(f"{path}: {reason}")


def _fields(message: Message, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Of all messages below: path, descriptor and value, of repeated ones each."""
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            values, kind = list(value.values()), field.message_type.fields_by_name["value"]
        else:
            values, kind = list(value) if field.is_repeated else [value], field
        for each in values:
            place = f"{path}.{field.name}".removeprefix(".")
            yield place, kind, each
            if kind.message_type is None:
                continue
            if kind.message_type.full_name == _ANY:
                if (packed := _unpacked(each)) is not None:
                    yield from _fields(packed, place)
            else:
                yield from _fields(each, place)


def _unpacked(packed: Message) -> Message | None:
    """None for what is not among `EXTENSIONS`."""
    name = packed.TypeName()
    if name not in EXTENSIONS:
        return None
    message = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))()
    packed.Unpack(message)
    return message


def _refusal(field: Any, value: Any, own: Collection[str]) -> str:
    """Why it may not be; empty when it may."""
    if reason := _UNUSED.get(field.full_name):
        return reason
    if field.message_type is not None:
        kind = field.message_type.full_name
        if kind == _ANY and value.TypeName() not in EXTENSIONS:
            return f"{value.TypeName()} is not among the extensions that a configuration may use"
        if kind == f"{_CORE}.ConfigSource" and (
            field.full_name not in _SOURCES
            or value.WhichOneof("config_source_specifier") not in ("ads", None)
        ):
            return "all of a configuration stands in itself: name no source"
        return _NEVER.get(kind, "")
    if isinstance(value, str) and any(each in value for each in _COMMANDS):
        return f"{value}: files and environment of the node are out of a configuration's reach"
    names = field.name in ("cluster", "cluster_name") or field.full_name in _NAMING
    if names and value not in own and field.full_name not in _HARMLESS:
        return f"{value} is not defined in this configuration, and others' are out of its reach"
    return ""
