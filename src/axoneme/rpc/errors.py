"""The one error that crosses the socket, and its codes."""

from __future__ import annotations

# Of JSON-RPC 2.0:
PARSE = -32700
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID = -32602
INTERNAL = -32603
# Ours, in the range that it leaves to applications:
UNAVAILABLE = -32001
NOT_FOUND = -32004
CONFLICT = -32009


class RpcError(Exception):
    """Raised by handlers to answer with an error, and by clients that got one.

    A client raises it with UNAVAILABLE as well when nobody answers. ``data`` is any JSON value that
    helps a program to act on the error.
    """

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def __repr__(self) -> str:
        return f"RpcError({self.code}, {self.message!r}, {self.data!r})"
