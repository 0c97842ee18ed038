"""What every request passes: whose page it comes from, who asks, and what the answer lets a browser do.

A page elsewhere can make a browser call us, and let its own name lead to our address (DNS rebinding). So a
request has to name us as its host, what it changes has to come from our own page, and no answer is readable
elsewhere. The page itself may load nothing but our files, and runs no script that stands in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from axoneme.rpc.listening import is_address
from axoneme.ui.access import Access
from axoneme.ui.config import UiConfig
from axoneme.ui.problems import Refusal, refusal

API: Final = "/api/v1/"
#: What somebody may ask whom we do not know yet.
_FOR_ALL: Final = ("session", "login", "logout")

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def policy(nonce: str = "") -> str:
    """The Content-Security-Policy; ``nonce``: of styles that stand in the page."""
    styles = f"'self' 'nonce-{nonce}'" if nonce else "'self'"
    return (
        "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
        f"style-src {styles}; img-src 'self' data:; font-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def middlewares(config: UiConfig, access: Access) -> list[Middleware]:
    known = {name.lower() for name in config.hosts}
    api = config.prefix + API

    @web.middleware
    async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            found = refusal(error)
            if found is None:
                raise
            if isinstance(error, web.HTTPException) and error.status < 400:
                raise
            return found.response()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_host(request, known)
        if request.path.startswith(api):
            _check_origin(request, known)
            if request.path.removeprefix(api) not in _FOR_ALL and access.user(request) is None:
                raise Refusal(HTTPStatus.UNAUTHORIZED, "log in first")
        return await handler(request)

    return [told, guarded]


def headers(config: UiConfig) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Added to each answer before it leaves, whatever has made it."""
    secure = {"Strict-Transport-Security": "max-age=31536000"} if config.certificate else {}

    async def add(_: web.Request, response: web.StreamResponse) -> None:
        for name, value in {**_HEADERS, **secure, "Content-Security-Policy": policy()}.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.pop("Server", None)

    return add


def _check_host(request: web.Request, known: set[str]) -> None:
    name = _name(request.host)
    if name != "localhost" and name not in known and not is_address(name):
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            f"the host {name} is not this one",
            field="Host",
            found=name,
            remedy="call it by its address, or name it under hosts in the configuration",
        )


def _check_origin(request: web.Request, known: set[str]) -> None:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in (None, "same-origin", "none"):
        raise Refusal(HTTPStatus.FORBIDDEN, f"this comes from a page elsewhere ({site})", field="Origin")
    own = origin is not None and (
        origin.partition("://")[2].lower() == request.host.lower()
        or _name(origin.partition("://")[2]) in known
    )
    if origin is not None and not own:
        raise Refusal(
            HTTPStatus.FORBIDDEN, f"this comes from a page of {origin}", field="Origin", found=origin
        )
    if request.method in ("GET", "HEAD"):
        return
    if origin is None and site is None and "Authorization" not in request.headers:
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "it says neither where it comes from, as browsers do, nor has it a token, as programs send",
            field="Origin",
        )
    if request.content_type != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON",
            field="Content-Type",
            found=request.content_type,
            remedy="application/json",
        )


def _name(host: str) -> str:
    """Without the port."""
    bare = host.lower()
    if bare.startswith("["):
        return bare.partition("]")[0].removeprefix("[")
    return bare.partition(":")[0] if bare.count(":") == 1 else bare
