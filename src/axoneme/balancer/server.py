"""The API over HTTP: on a unix socket that only its owner may use, and on an address if one is configured."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from axoneme.balancer.api import OPERATIONS, Answer, Desk, Operation, Refusal, Request
from axoneme.balancer.config import ApiConfig
from axoneme.balancer.openapi import JSON_TYPE, PATCH_TYPE, PROBLEM_TYPE, document
from axoneme.balancer.reports import Problem
from axoneme.balancer.sources import Unwritable
from axoneme.model.paths import ManifestError
from axoneme.model.shapes import convert
from axoneme.rpc.address import short_name
from axoneme.rpc.listening import TlsFiles, is_address
from axoneme.sources.config import ConfigError
from axoneme.sources.store import Unavailable

#: Bytes of a request's body.
_LARGEST: Final = 64 << 20
#: Seconds that open requests get when the process ends.
_PATIENCE: Final = 2.0


async def serve(desk: Desk, config: ApiConfig, path: Path) -> None:
    """Until cancelled. `ConfigError` where an address, a certificate or a key cannot be used."""
    runner = web.AppRunner(application(desk), access_log=None, shutdown_timeout=_PATIENCE)
    await runner.setup()
    try:
        await web.SockSite(runner, _unix(path)).start()
        if (address := config.address()) is not None:
            try:
                await web.TCPSite(runner, *address, ssl_context=_tls(config)).start()
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"api: {config.listen}: {error}") from error
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def application(desk: Desk) -> web.Application:
    app = web.Application(client_max_size=_LARGEST, middlewares=[_problems, _known_hosts])
    text = json.dumps(document(), indent=2)

    async def describe(_: web.Request) -> web.Response:
        return web.json_response(text=text)

    app.router.add_get("/openapi.json", describe)
    for operation in OPERATIONS:
        app.router.add_route(operation.method, operation.path, _handler(desk, operation))
    return app


def _handler(desk: Desk, operation: Operation) -> Any:
    async def handle(http: web.Request) -> web.Response:
        request = Request(
            http.match_info,
            {name: http.query[name] for name in operation.query if name in http.query},
            await _body(http, operation.takes),
            http.headers.get("If-Match", ""),
            http.headers.get("If-None-Match", ""),
        )
        return _response(await operation.handler(desk, request))

    return handle


async def _body(http: web.Request, kind: Any) -> Any:
    if kind is None:
        return None
    wanted = PATCH_TYPE if kind is dict else JSON_TYPE
    if http.content_type not in (wanted, JSON_TYPE):
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{http.content_type}: the body must be {wanted}")
    try:
        plain = msgspec.json.decode(await http.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from None
    if kind is dict:
        if not isinstance(plain, dict):
            raise Refusal(HTTPStatus.BAD_REQUEST, "a merge patch is an object")
        return plain
    return convert(plain, kind)


def _response(answer: Answer) -> web.Response:
    headers = {"ETag": f'"{answer.version}"'} if answer.version else {}
    if answer.value is None:
        return web.Response(status=answer.status, headers=headers)
    return web.Response(
        body=msgspec.json.encode(answer.value),
        status=answer.status,
        headers=headers,
        content_type=JSON_TYPE,
    )


# ---- what goes wrong ---------------------------------------------------------------------------


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal as problem+json."""
    try:
        return await handler(request)
    except Refusal as error:
        return _problem(error.status, str(error))
    except ManifestError as error:
        return _problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            str(error),
            field=error.path,
            found=error.found,
            remedy=error.right,
        )
    except Unwritable as error:
        return _problem(HTTPStatus.CONFLICT, str(error))
    except Unavailable as error:
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _problem(
            HTTPStatus(error.status), f"{request.method} {request.path}: {error.reason}", headers=allow
        )


def _problem(
    status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **more: str
) -> web.Response:
    body = msgspec.json.encode(Problem(status.phrase, status.value, detail, **more))
    return web.Response(body=body, status=status, headers=headers, content_type=PROBLEM_TYPE)


@web.middleware
async def _known_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page in a browser on this machine may have its name lead to loopback, but then the name tells it."""
    transport = request.transport
    plain = transport is not None and transport.get_extra_info("sslcontext") is None
    if plain and transport is not None and isinstance(transport.get_extra_info("sockname"), tuple):
        name = (
            request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdecimal() else request.host
        )
        if name != "localhost" and not is_address(name.strip("[]")):
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST, f"the host {request.host} is not this one: use its address"
            )
    return await handler(request)


# ---- where it listens --------------------------------------------------------------------------


def _unix(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_name(path) as name:
            listening.bind(name)
    finally:
        os.umask(before)
    return listening


def _tls(config: ApiConfig) -> ssl.SSLContext | None:
    if not config.certificate:
        return None
    authority = Path(config.client_ca) if config.client_ca else None
    return TlsFiles(Path(config.certificate), Path(config.key), authority).context()
