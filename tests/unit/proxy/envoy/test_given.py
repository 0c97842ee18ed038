"""Listeners that people have written: what is made of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from axoneme.model.envoyconfig import parse_envoy_config
from axoneme.model.l7 import L7, L7Kind, ListenerRef
from axoneme.model.paths import ManifestError
from axoneme.proxy.envoy import reach
from axoneme.proxy.envoy.given import Given
from axoneme.proxy.envoy.protos import Kernel
from axoneme.proxy.envoy.resources import BUDGET, CLUSTER, ENDPOINTS, LISTENER, ROUTES, Key, resources
from axoneme.proxy.plan import Listener, Plan

TYPE = "type.googleapis.com/envoy."
MANAGER: dict[str, Any] = {
    "name": "envoy.filters.network.http_connection_manager",
    "typed_config": {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "given",
        "rds": {"route_config_name": "routes"},
        "http_filters": [
            {"name": "cilium.l7policy", "typed_config": {"@type": "type.googleapis.com/cilium.L7Policy"}},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
            },
        ],
    },
}
GIVEN: list[dict[str, Any]] = [
    {
        "@type": f"{TYPE}config.listener.v3.Listener",
        "name": "front",
        "filter_chains": [{"filters": [MANAGER]}],
    },
    {
        "@type": f"{TYPE}config.route.v3.RouteConfiguration",
        "name": "routes",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [
                    {"match": {"prefix": "/a"}, "route": {"cluster": "there"}},
                    {
                        "match": {"prefix": "/"},
                        "route": {"weightedClusters": {"clusters": [{"name": "there", "weight": 9}]}},
                    },
                ],
            }
        ],
    },
    {"@type": f"{TYPE}config.cluster.v3.Cluster", "name": "there", "type": "EDS", "connect_timeout": "5s"},
    {
        "@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "there",
        "endpoints": [],
    },
]


def config(resources: list[dict[str, Any]] = GIVEN, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEnvoyConfig",
        "metadata": {"name": "c", "namespace": "shop"},
        "spec": {"resources": resources, **spec},
    }


def test_names_that_are_defined_mean_ones_own() -> None:
    eds = {**GIVEN[2], "eds_cluster_config": {}}
    plan = Plan(
        "n",
        1,
        (4, 6),
        "",
        (Listener(10000, "egress", L7(L7Kind.LISTENER, listener=ListenerRef("shop", "c", "front"))),),
        configs=(parse_envoy_config(config([*GIVEN[:2], eds, GIVEN[3]])),),
    )
    made = resources(plan, Kernel(True, True))
    assert not made.errors
    types = {(key.type_url, key.name) for key in made.needs[10000]}
    assert {(CLUSTER, "shop/c/there"), (ENDPOINTS, "shop/c/there"), (ROUTES, "shop/c/routes")} < types
    assert {name for type_url, name in types if type_url == BUDGET} == {"passed"}
    content = made.content[Key(ROUTES, "shop/c/routes")].content.value
    assert content.count(b"shop/c/there") == 2
    listener = made.content[Key(LISTENER, "10000")].content.value
    assert b"shop/c/routes" in listener and b"cilium" not in listener
    assert b"original_dst" in listener and b"original_src" in listener
    assert b"shop/c/there" in made.content[Key(CLUSTER, "shop/c/there")].content.value


def test_a_manager_gets_our_log_and_asks_us_for_routes() -> None:
    listener = Given(parse_envoy_config(config())).listener("front", "egress", ())
    manager = hcm.HttpConnectionManager()
    listener.filter_chains[0].filters[0].typed_config.Unpack(manager)
    assert manager.rds.config_source.HasField("ads") and len(manager.access_log) == 1
    assert [each.name for each in manager.http_filters] == ["envoy.filters.http.router"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filter_chain": []}, "filter_chain"),
        (
            {"filter_chains": [{"filters": [{"name": "x", "typed_config": {"@type": f"{TYPE}x.Y"}}]}]},
            "no such",
        ),
    ],
)
def test_what_envoy_would_not_understand_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Given(parse_envoy_config(config([{**GIVEN[0], **change}])))
    assert "Listener front" in str(caught.value)


def test_who_names_a_listener_that_is_not_there_is_told_which_are() -> None:
    with pytest.raises(ValueError, match="shop/c has no listener back; it has front"):
        Given(parse_envoy_config(config())).listener("back", "egress", ())


def listener(*filters: dict[str, Any], **manager: Any) -> dict[str, Any]:
    """With these before the router."""
    typed = MANAGER["typed_config"]
    typed = {**typed, "http_filters": [*filters, *typed["http_filters"]], **manager}
    return {**GIVEN[0], "filter_chains": [{"filters": [{**MANAGER, "typed_config": typed}]}]}


def extension(type: str, **fields: Any) -> dict[str, Any]:
    return {"name": "x", "typed_config": {"@type": f"{TYPE}{type}", **fields}}


def routed(**action: Any) -> dict[str, Any]:
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}]
    return {**GIVEN[1], "virtual_hosts": hosts}


def cluster(**fields: Any) -> dict[str, Any]:
    return {**GIVEN[2], "type": "STATIC", **fields}


MARK = {"socket_options": [{"level": 1, "name": 36, "int_value": 1}]}
LUA = extension("extensions.filters.http.lua.v3.Lua", inline_code="os.execute('id')")
TAP = extension("extensions.filters.http.tap.v3.Tap", common_config={"admin_config": {"config_id": "x"}})
MODULE = extension(
    "extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter", dynamic_module_config={"name": "x"}
)
LOG = extension("extensions.access_loggers.file.v3.FileAccessLog", path="/tmp/x")
AUTHZ = extension(
    "extensions.filters.http.ext_authz.v3.ExtAuthz", grpc_service={"envoy_grpc": {"cluster_name": "parent"}}
)
SDS = extension(
    "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    common_tls_context={"tls_certificate_sds_secret_configs": [{"name": "other/key"}]},
)
KEYS = extension(
    "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    common_tls_context={"key_log": {"path": "/tmp/keys"}},
)
REMOTE = {
    "route_config_name": "routes",
    "config_source": {
        "api_config_source": {
            "api_type": "GRPC",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "there"}}],
        }
    },
}


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        (listener(LUA), "http_filters.typed_config: .*Lua is not among the extensions"),
        (listener(TAP), "Tap is not among"),
        (listener(MODULE), "DynamicModuleFilter is not among"),
        (listener(access_log=[LOG]), "access_log.typed_config: .*FileAccessLog is not among"),
        (listener(AUTHZ), "cluster_name: parent is not defined in this configuration"),
        (listener(rds=REMOTE), "rds.config_source: .* name no source"),
        (listener(rds={"route_config_name": "routes", "config_source": {"path": "/x"}}), "name no source"),
        (listener(rds={"route_config_name": "10000"}), "10000 is not defined in this configuration"),
        ({**GIVEN[0], **MARK}, "socket_options: marks"),
        (routed(cluster="parent"), "parent is not defined"),
        (routed(cluster="other/c/there"), "other/c/there is not defined"),
        (routed(cluster_header="x"), "cluster_header: requests do not choose"),
        (routed(weighted_clusters={"clusters": [{"name": "parent"}]}), "clusters.name: parent is not"),
        (
            routed(cluster="there", request_mirror_policies=[{"cluster": "parent"}]),
            "request_mirror_policies.cluster: parent is not",
        ),
        (
            {
                **GIVEN[1],
                "request_headers_to_add": [{"header": {"key": "x", "value": "%ENVIRONMENT(HOME)%"}}],
            },
            "environment",
        ),
        (cluster(upstream_bind_config=MARK), "upstream_bind_config: marks"),
        (
            cluster(type="EDS", eds_cluster_config={"service_name": "other/c/there"}),
            "service_name: other/c/there",
        ),
        (cluster(transport_socket=SDS), "tls_certificate_sds_secret_configs: certificates and keys stand"),
        (cluster(transport_socket=KEYS), "key_log: files"),
        (
            cluster(
                health_checks=[
                    {
                        "timeout": "1s",
                        "interval": "1s",
                        "healthy_threshold": 1,
                        "unhealthy_threshold": 1,
                        "tcp_health_check": {},
                        "event_log_path": "/tmp/x",
                    }
                ]
            ),
            "event_log_path: files",
        ),
    ],
)
def test_what_reaches_beyond_the_configuration_is_refused(resource: dict[str, Any], said: str) -> None:
    others = [each for each in GIVEN if each["@type"] != resource["@type"]]
    with pytest.raises(ValueError, match=said):
        Given(parse_envoy_config(config([*others, resource])))


@pytest.mark.parametrize(
    "resource",
    [
        listener(extension("extensions.filters.http.router.v3.Router", clusters=["x"])),
        listener(extension("_envoy.X")),
        listener({"name": "x", "typed_config": {"@type": 5}}),
        listener(stat_prefix={"@type": []}),
        routed(cluster=["there"]),
        routed(cluster={"a": "there"}),
        cluster(connect_timeout=5),
        cluster(connect_timeout={"a": 1}),
    ],
)
def test_whatever_is_written_fails_for_itself_alone(resource: dict[str, Any]) -> None:
    others = [each for each in GIVEN if each["@type"] != resource["@type"]]
    given = parse_envoy_config(config([*others, resource]))
    wanted = L7(L7Kind.LISTENER, listener=ListenerRef("shop", "c", "front"))
    made = resources(
        Plan("n", 1, (4,), "", (Listener(10000, "egress", wanted),), configs=(given,)), Kernel(True, True)
    )
    assert list(made.errors) == [10000]


def test_what_may_be_used_is_there() -> None:
    for each in reach.EXTENSIONS:
        Given(parse_envoy_config(config([listener(extension(each.removeprefix("envoy."))), *GIVEN[1:]])))


def test_filters_that_mark_connections_are_ours_whatever_they_are_called() -> None:
    mark = extension("extensions.filters.listener.original_src.v3.OriginalSrc", mark=0x1234)
    given = parse_envoy_config(config([{**GIVEN[0], "listener_filters": [mark]}, *GIVEN[1:]]))
    wanted = L7(L7Kind.LISTENER, listener=ListenerRef("shop", "c", "front"))
    plan = Plan("n", 1, (4,), "", (Listener(10000, "egress", wanted),), configs=(given,))
    made = listener_pb2.Listener()
    resources(plan, Kernel(True, True)).content[Key(LISTENER, "10000")].content.Unpack(made)
    filters = [each.typed_config.TypeName().rpartition(".")[2] for each in made.listener_filters]
    assert filters == ["OriginalDst", "OriginalSrc"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (config(services=[{"name": "web", "namespace": "shop"}]), "spec.services"),
        (config([{**GIVEN[0], "address": {"pipe": {"path": "/run/x"}}}]), "out of a configuration's reach"),
        (
            config([{**GIVEN[0], "x": [{"local_file": {"filename": "/etc/shadow"}}]}]),
            "out of a configuration's",
        ),
        (config([{"@type": f"{TYPE}config.bootstrap.v3.Bootstrap"}]), "@type"),
        (config([GIVEN[0], GIVEN[0]]), "another one has this type and name"),
        (config([{key: value for key, value in GIVEN[0].items() if key != "name"}]), "name"),
    ],
)
def test_what_is_out_of_reach_is_refused(made: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        parse_envoy_config(made)
