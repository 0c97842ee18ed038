"""Access logs as events, and how many of them."""

from __future__ import annotations

from envoy.service.accesslog.v3 import als_pb2

from axoneme.proxy.envoy.events import events


def logs(**routes: int) -> als_pb2.StreamAccessLogsMessage:
    message = als_pb2.StreamAccessLogsMessage()
    for route, count in routes.items():
        for _ in range(count):
            entry = message.http_logs.log_entry.add()
            entry.common_properties.route_name = route
            entry.request.authority, entry.request.path = "h", "/x"
            entry.response.response_code.value = 403 if route == "DROPPED" else 200
    return message


def test_what_cannot_be_known_is_an_error() -> None:
    """What is no request, which has no route."""
    message = logs(**{"": 1})
    message.http_logs.log_entry[0].response.response_code_details = "http1.codec_error"
    (event,) = events("ingress", message)
    assert (event.verdict, event.direction, event.reason) == ("ERROR", "ingress", "http1.codec_error")


def test_a_server_may_say_any_status_of_grpc() -> None:
    message = logs(FORWARDED=4)
    for entry, said in zip(message.http_logs.log_entry, ("7", "9" * 5000, "\u0663", "7\n"), strict=True):
        entry.response.response_trailers["grpc-status"] = said
    assert [it.http and it.http.grpc_status for it in events("egress", message)] == [7, None, None, None]
