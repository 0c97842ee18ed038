"""A gRPC service and its client by grpcio, each a process:

    grpcs.py serve ADDRESS...
    grpcs.py call ADDRESS METHOD...

The client calls the methods one after the other on one channel, and prints what came of each, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc


def hello(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-trailer", "t"),))
    return b"hello " + request + b" from " + context.peer().encode()


def echo(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
    for request in requests:
        yield request.upper()


def broken(_: bytes, context: Any) -> bytes:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as it should be")
    raise AssertionError


def serve(addresses: list[str]) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handlers = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Secret": grpc.unary_unary_rpc_method_handler(hello),
        "Broken": grpc.unary_unary_rpc_method_handler(broken),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", handlers),))
    for address in addresses:
        server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def call(address: str, methods: list[str]) -> Iterator[dict[str, Any]]:
    with grpc.insecure_channel(address) as channel:
        for method in methods:
            name = f"/test.Greeter/{method}"
            try:
                if method == "Echo":
                    answers = channel.stream_stream(name)(iter([b"a", b"b", b"c"]), timeout=20)
                    yield {"code": "OK", "answer": b"".join(answers).decode()}
                else:
                    answer, made = channel.unary_unary(name).with_call(b"you", timeout=20)
                    yield {
                        "code": "OK",
                        "answer": answer.decode(),
                        "trailers": dict(made.trailing_metadata()),
                    }
            except grpc.RpcError as error:
                yield {"code": error.code().name, "details": error.details()}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        print(json.dumps(list(call(sys.argv[2], sys.argv[3:]))))
