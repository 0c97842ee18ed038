"""A blocking client that costs a process start as little as possible: `socket` and `json`, no more.

Each call has a connection of its own, which takes some 30 microseconds and leaves no state to repair
when the server restarts. msgspec is imported only for calls that ask for a typed result.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, overload

from axoneme.rpc.address import short_name
from axoneme.rpc.errors import INTERNAL, UNAVAILABLE, RpcError

R = TypeVar("R")


class Client:
    """Calls methods of the process that listens on ``path``.

    ``timeout`` (seconds, None for ever) bounds the wait for an answer and for the first item of a
    stream; later items may take any time.
    """

    def __init__(self, path: Path, timeout: float | None = 30.0) -> None:
        self._path = path
        self._timeout = timeout

    @overload
    def call(self, method: str, params: object = None, result: None = None) -> Any: ...
    @overload
    def call(self, method: str, params: object = None, *, result: type[R]) -> R: ...
    @overload
    def call(self, method: str, params: object, result: type[R]) -> R: ...
    def call(self, method: str, params: object = None, result: type[Any] | None = None) -> Any:
        """The method's result: plain JSON values, or a ``result``. RpcError when it fails."""
        with self._request(method, params) as (_, lines):
            value = final(self._path, self._receive(lines))
        return convert(self._path, method, value, result)

    def stream(self, method: str, params: object = None, item: type[Any] | None = None) -> Iterator[Any]:
        """The items of a streaming method; closing the iterator ends the stream at the server too."""
        with self._request(method, params) as (connection, lines):
            while True:
                answer = self._receive(lines)
                connection.settimeout(None)
                if "item" not in answer:
                    final(self._path, answer)
                    return
                yield convert(self._path, method, answer["item"], item)

    @contextmanager
    def _request(self, method: str, params: object) -> Iterator[tuple[socket.socket, BinaryIO]]:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {} if params is None else params}
        line = json.dumps(request, default=_plain, separators=(",", ":")).encode() + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._timeout)
            try:
                with short_name(self._path) as name:
                    connection.connect(name)
                connection.sendall(line)
            except OSError as error:
                raise unreachable(self._path, error) from error
            with connection.makefile("rb") as lines:
                yield connection, lines

    def _receive(self, lines: BinaryIO) -> dict[str, Any]:
        try:
            line = lines.readline()
        except TimeoutError as error:
            raise RpcError(UNAVAILABLE, f"{self._path}: no answer within {self._timeout:g} s") from error
        except OSError as error:
            raise unreachable(self._path, error) from error
        return parse(self._path, line)


def parse(path: Path, line: bytes) -> dict[str, Any]:
    """One line from the server as an answer."""
    if not line.endswith(b"\n"):
        raise RpcError(UNAVAILABLE, f"{path}: the connection closed before the answer was complete")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise RpcError(INTERNAL, f"{path}: expected an answer, got {line[:80]!r}")
    return answer


def final(path: Path, answer: dict[str, Any]) -> Any:
    """The result in an answer that ends a call."""
    if error := answer.get("error"):
        raise _failure(path, error)
    if "result" not in answer:
        raise RpcError(INTERNAL, f"{path}: an answer without result or error: {sorted(answer)}")
    return answer["result"]


def _failure(path: Path, error: Any) -> RpcError:
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        if isinstance(code, int) and isinstance(message, str) and message.strip():
            return RpcError(code, message.encode(errors="replace").decode(), error.get("data"))
    return RpcError(INTERNAL, f"{path}: an error in a form unknown here: {ascii(error)[:200]}")


def convert(path: Path, method: str, value: Any, kind: type[Any] | None) -> Any:
    """``value`` as a ``kind``; untouched for None."""
    if kind is None:
        return value
    import msgspec

    try:
        return msgspec.convert(value, kind, str_keys=True)  # as JSON has them
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # surrogates in the name of a field
        raise RpcError(INTERNAL, f"{path}: {method} answered in a form unknown here: {error}") from error


def unreachable(path: Path, error: OSError) -> RpcError:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return RpcError(UNAVAILABLE, f"{path}: nothing listens there ({reason}); is its process running?")
    return RpcError(UNAVAILABLE, f"{path}: cannot be reached: {reason}")


def _plain(value: object) -> Any:
    import msgspec

    return msgspec.to_builtins(value)
