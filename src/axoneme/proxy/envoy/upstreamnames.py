"""Which name the proxy asks a server for, in TLS of its own: that which the client has asked for."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2

from axoneme.proxy.envoy.protos import Message

_ASKED = "%REQUESTED_SERVER_NAME%"


def as_the_client_asked() -> Message:
    """For SNI, and for the name that the server's certificate must have."""
    return set_filter_state_pb2.Config(
        on_new_connection=[
            _value("envoy.network.upstream_server_name"),
            _value("envoy.network.upstream_subject_alt_names"),
        ]
    )


def _value(key: str) -> Message:
    return value_pb2.FilterStateValue(
        object_key=key,
        format_string=substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=_ASKED), omit_empty_values=True
        ),
        shared_with_upstream=value_pb2.FilterStateValue.ONCE,
        skip_if_empty=True,
    )
