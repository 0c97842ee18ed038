"""The control protocol of a node: JSON-RPC 2.0, one object a line, on unix sockets of mode 0600.

A request is ``{"jsonrpc":"2.0","id":1,"method":"endpoint.attach","params":{…}}``. The answer carries
``result`` or ``error`` under the same id. A method may stream instead: any number of lines with
``item``, then one with ``result`` null or with ``error``. Requests on one connection run side by side.
A line is enough to talk to any of our processes by hand::

    echo '{"id":1,"method":"status"}' | socat - UNIX-CONNECT:/run/axoneme/agent.sock

`Client` blocks and is what the command line and the CNI plugin use, so this package imports nothing
but ``socket`` and ``json`` until a server or an asyncio client is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from axoneme.rpc.client import Client
from axoneme.rpc.errors import (
    CONFLICT,
    INTERNAL,
    INVALID,
    INVALID_REQUEST,
    NOT_FOUND,
    PARSE,
    UNAVAILABLE,
    UNKNOWN_METHOD,
    RpcError,
)

if TYPE_CHECKING:
    from axoneme.rpc.asyncclient import AsyncClient
    from axoneme.rpc.server import Batch, NoParams, Server

__all__ = [
    "CONFLICT",
    "INTERNAL",
    "INVALID",
    "INVALID_REQUEST",
    "NOT_FOUND",
    "PARSE",
    "UNAVAILABLE",
    "UNKNOWN_METHOD",
    "AsyncClient",
    "Batch",
    "Client",
    "NoParams",
    "RpcError",
    "Server",
]

_LAZY = {"AsyncClient": "asyncclient", "Batch": "server", "NoParams": "server", "Server": "server"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
