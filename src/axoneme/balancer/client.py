"""The API's client on the same machine, over the unix socket: for the command line."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from axoneme.balancer.openapi import JSON_TYPE, PATCH_TYPE
from axoneme.balancer.reports import Problem
from axoneme.rpc.address import short_name

T = TypeVar("T")

#: Seconds that an answer may take.
_PATIENCE = 30.0


class ApiError(Exception):
    """The load balancer does not answer, or refuses; the text is for users."""


class Client:
    """``get`` and the others raise `ApiError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, path: str, kind: type[T]) -> T:
        return self._ask("GET", path, kind)

    def put(self, path: str, value: Any, kind: type[T], if_match: str = "") -> T:
        headers = {"If-Match": f'"{if_match}"'} if if_match else {}
        return self._ask("PUT", path, kind, value, {"Content-Type": JSON_TYPE, **headers})

    def patch(self, path: str, value: Any, kind: type[T]) -> T:
        return self._ask("PATCH", path, kind, value, {"Content-Type": PATCH_TYPE})

    def _ask(
        self, method: str, path: str, kind: type[T], value: Any = None, headers: dict[str, str] | None = None
    ) -> T:
        connection = _Connection(self._path)
        body = None if value is None else msgspec.json.encode(value)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
        except PermissionError:
            raise ApiError(f"{self._path}: permission denied: run this with sudo") from None
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise ApiError(
                f"no load balancer answers at {self._path}: {said}; `axo lb run` runs one, --socket names "
                "another's"
            ) from None
        finally:
            connection.close()
        try:
            if response.status >= 400:
                raise ApiError(msgspec.json.decode(data, type=Problem).detail)
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise ApiError(f"{self._path}: an answer that is not understood: {error}") from None


class _Connection(http.client.HTTPConnection):
    """Over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short_name(self._path) as name:
            self.sock.connect(name)
