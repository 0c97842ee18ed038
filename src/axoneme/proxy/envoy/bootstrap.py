"""What Envoy knows before it is told anything: where its parent is, and its own limits."""

from __future__ import annotations

import json
from typing import Any, Final

from axoneme.proxy.envoy.protos import PARENT

#: Sockets in the folder of the proxy, which is the current directory.
PARENT_SOCKET: Final = "parent.sock"
ADMIN_SOCKET: Final = "admin.sock"

#: Connections of clients that are held at once; each may have one onwards.
MOST_CONNECTIONS: Final = 100_000
#: Bytes of heap at which it begins to refuse work. Idle it takes some 30 MiB.
MOST_HEAP: Final = 1 << 30


_FEATURE: Final = "envoy.reloadable_features."
_FEATURES: Final = {
    # Several headers of one name are one value to rules: each by itself would let the others pass with it.
    f"{_FEATURE}match_headers_individually": False,
    # What follows an upgrade waits until the server agrees to it, for whom it would be the next request.
    f"{_FEATURE}http_pause_generic_upgrade_request_body": True,
}


def bootstrap(node: str, descriptors: int) -> str:
    """As JSON; ``descriptors``: how many files it may have open."""
    # A connection takes one descriptor on either side.
    connections = max(64, min(MOST_CONNECTIONS, (descriptors - 256) // 2))
    return json.dumps(_bootstrap(node, connections))


def _bootstrap(node: str, connections: int) -> dict[str, Any]:
    parent = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": node, "cluster": "axoneme"},
        "admin": {"address": {"pipe": {"path": ADMIN_SOCKET, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": PARENT}}],
            },
            "lds_config": parent,
            "cds_config": parent,
        },
        "static_resources": {"clusters": [_parent()]},
        "layered_runtime": {"layers": [{"name": "ours", "static_layer": _FEATURES}]},
        "stats_config": {
            # One a listener and cluster would be many, and nobody asks for them.
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        {"prefix": each}
                        for each in ("listener_manager.", "overload.", "server.", "access_log.")
                    ]
                }
            }
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                _monitor("fixed_heap", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=MOST_HEAP),
                _monitor(
                    "global_downstream_max_connections",
                    "downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=connections,
                ),
            ],
            "actions": [
                _action("shrink_heap", 0.90),
                _action("reset_high_memory_stream", 0.92),
                _action("disable_http_keepalive", 0.95),
                _action("stop_accepting_requests", 0.98),
            ],
            # Streams from 8 MiB of buffers on: the largest first.
            "buffer_factory_config": {"minimum_account_to_track_power_of_two": 23},
        },
    }


def _parent() -> dict[str, Any]:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": PARENT,
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
        "load_assignment": {
            "cluster_name": PARENT,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": PARENT_SOCKET}}}}]},
            ],
        },
    }


def _monitor(name: str, config: str, **fields: int) -> dict[str, Any]:
    return {
        "name": f"envoy.resource_monitors.{name}",
        "typed_config": {
            "@type": f"type.googleapis.com/envoy.extensions.resource_monitors.{config}",
            **fields,
        },
    }


def _action(name: str, share: float) -> dict[str, Any]:
    """When so much of the heap is used; resetting streams begins there and grows to the whole."""
    scaled = name == "reset_high_memory_stream"
    trigger = (
        {"scaled": {"scaling_threshold": share, "saturation_threshold": 0.98}}
        if scaled
        else {"threshold": {"value": share}}
    )
    return {
        "name": f"envoy.overload_actions.{name}",
        "triggers": [{"name": "envoy.resource_monitors.fixed_heap", **trigger}],
    }
