"""Listeners of Envoy's: one for each of the plan's, by the number of its port.

A listener says how a connection is taken and what protocol it speaks. Which requests pass stands elsewhere
(routes.py), so that a listener stays, with the connections that it has, when rules change.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Final

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.direct_response.v3 import config_pb2 as direct_response_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.input_matchers.ip.v3 import ip_pb2
from google.protobuf import wrappers_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2, regex_pb2, string_pb2

from axoneme.model.l7 import L7, L7Kind
from axoneme.proxy.envoy import accesslogs, clusters, http, servernames, tls, upstreamnames
from axoneme.proxy.envoy.given import Given
from axoneme.proxy.envoy.protos import Kernel, Message, address, number, packed, seconds, socket_option, truth
from axoneme.proxy.plan import Listener
from axoneme.proxy.sockets import LOOPBACK, ONWARDS, Mark

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_SO_MARK: Final = 36
_BACKLOG: Final = 4096
#: Seconds for a client's first words of TLS.
_HELLO: Final = 15.0
#: Bytes for each direction of a connection, whose other end may be slow.
_BUFFER: Final = 256 << 10

#: The filter chain for connections to the listener itself; others are called as the names that they are for.
_ITSELF: Final = "itself"
_ANY_NAME: Final = "**"


def listener(it: Listener, families: Sequence[int], headers: Iterable[str], kernel: Kernel) -> Message:
    """``families``: 4, 6. ``headers``: the only ones that are told of."""
    inspected = _is_tls(it.rules)
    names = it.rules.server_names or (_ANY_NAME,)
    made = listener_pb2.Listener(
        listener_filters=[_listener_filter("tls_inspector", tls_inspector_pb2.TlsInspector())]
        if inspected
        else [],
        filter_chains=[_closing(), *(_chain(name, it, headers) for name in names)],
        filter_chain_matcher=_which_chain(names, inspected),
        access_log=[accesslogs.of_connections(it.direction)] if inspected else [],
    )
    return _placed(made, it, families, kernel)


def given(
    it: Listener, config: Given, families: Sequence[int], headers: Iterable[str], kernel: Kernel
) -> Message:
    """One that somebody has written. ValueError: there is none of its name."""
    assert it.rules.listener is not None
    made = config.listener(it.rules.listener.listener, it.direction, headers)
    itself = _closing()
    itself.filter_chain_match.prefix_ranges.extend([_range("127.0.0.0", 8), _range("::1", 128)])
    made.filter_chains.append(itself)
    return _placed(made, it, families, kernel)


def _placed(made: Message, it: Listener, families: Sequence[int], kernel: Kernel) -> Message:
    """The same where connections come: as they come, and to go on as they came."""
    where = [LOOPBACK[_FAMILIES[family]] for family in families]
    made.MergeFrom(
        listener_pb2.Listener(
            name=str(it.port),
            transparent=truth(True),
            enable_reuse_port=truth(kernel.many_sockets),
            tcp_backlog_size=number(_BACKLOG),
            per_connection_buffer_limit_bytes=number(_BUFFER),
            listener_filters_timeout=seconds(_HELLO),
            socket_options=[
                # Connections have both of the socket by which they came.
                socket_option(socket.SOL_SOCKET, _SO_MARK, Mark.PROXY_ANSWERS),
                socket_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            ],
        )
    )
    made.address.CopyFrom(address(where[0], it.port))
    del made.additional_addresses[:]
    made.additional_addresses.extend(
        listener_pb2.AdditionalAddress(address=address(each, it.port)) for each in where[1:]
    )
    first = [
        _listener_filter("original_dst", original_dst_pb2.OriginalDst()),
        _listener_filter("original_src", original_src_pb2.OriginalSrc(mark=ONWARDS[it.direction])),
    ]
    ours = {each.typed_config.TypeName() for each in first}
    others = [each for each in made.listener_filters if each.typed_config.TypeName() not in ours]
    del made.listener_filters[:]
    made.listener_filters.extend([*first, *others])
    return made


def _is_tls(rules: L7) -> bool:
    return rules.kind is L7Kind.TLS or rules.terminating is not None or bool(rules.server_names)


def _listener_filter(name: str, config: Message) -> Message:
    return components.ListenerFilter(name=f"envoy.filters.listener.{name}", typed_config=packed(config))


# ---- which chain --------------------------------------------------------------------------------


def _which_chain(names: Iterable[str], inspected: bool) -> Message:
    """Where no chain is for a connection, it is reset. A connection to the listener itself has nobody behind
    it: to go on to whom it has called would be to come here again."""
    alternatives = [
        _alternative(
            _predicate(
                network_inputs_pb2.DestinationIPInput(),
                custom_match=_typed(
                    "ip",
                    ip_pb2.Ip(stat_prefix="itself", cidr_ranges=[_range("127.0.0.0", 8), _range("::1", 128)]),
                ),
            ),
            _ITSELF,
        )
    ]
    otherwise = None
    for name in names:
        if name == _ANY_NAME and not inspected:
            otherwise = _go_to(name)
            continue
        # A name that was not said is empty.
        regex = ".+" if name == _ANY_NAME else servernames.expression(name)
        matches = string_pb2.StringMatcher(
            safe_regex=regex_pb2.RegexMatcher(google_re2=regex_pb2.RegexMatcher.GoogleRE2(), regex=regex)
        )
        alternatives.append(
            _alternative(_predicate(network_inputs_pb2.ServerNameInput(), value_match=matches), name)
        )
    return matcher_pb2.Matcher(
        matcher_list=matcher_pb2.Matcher.MatcherList(matchers=alternatives), on_no_match=otherwise
    )


def _predicate(source: Message, **match: Message) -> Message:
    single = matcher_pb2.Matcher.MatcherList.Predicate.SinglePredicate(input=_typed("input", source), **match)
    return matcher_pb2.Matcher.MatcherList.Predicate(single_predicate=single)


def _alternative(predicate: Message, chain: str) -> Message:
    return matcher_pb2.Matcher.MatcherList.FieldMatcher(predicate=predicate, on_match=_go_to(chain))


def _go_to(chain: str) -> Message:
    return matcher_pb2.Matcher.OnMatch(action=_typed("chain", wrappers_pb2.StringValue(value=chain)))


def _typed(name: str, config: Message) -> Message:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))


def _range(prefix: str, length: int) -> Message:
    return address_pb2.CidrRange(address_prefix=prefix, prefix_len=number(length))


# ---- the chains ---------------------------------------------------------------------------------


def _closing() -> Message:
    return components.FilterChain(
        name=_ITSELF, filters=[_filter("direct_response", direct_response_pb2.Config())]
    )


def _chain(name: str, it: Listener, headers: Iterable[str]) -> Message:
    rules = it.rules
    filters = []
    if rules.terminating is not None:
        filters.append(_filter("set_filter_state", upstreamnames.as_the_client_asked()))
    if rules.kind is L7Kind.HTTP:
        filters.append(_filter("http_connection_manager", http.manager(it, headers)))
    else:
        filters.append(
            _filter(
                "tcp_proxy",
                tcp_proxy_pb2.TcpProxy(stat_prefix="tls", cluster=clusters.name_for(rules.originating)),
            )
        )
    return components.FilterChain(
        name=name,
        filters=filters,
        transport_socket=tls.terminating(rules.terminating) if rules.terminating else None,
    )


def _filter(name: str, config: Message) -> Message:
    return components.Filter(name=f"envoy.filters.network.{name}", typed_config=packed(config))
