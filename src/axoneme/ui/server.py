"""The web UI's server: the page's files, and what the page asks for (docs/ui-api.md)."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from axoneme import __version__
from axoneme.flows.flow import ObserveRequest
from axoneme.model.policy import Enforcement
from axoneme.rpc.listening import CurrentTls
from axoneme.sources.config import ConfigError, open_store
from axoneme.ui import api, asking, flowlist, guard, past, watching
from axoneme.ui.access import COOKIE, SESSION_LASTS, Access
from axoneme.ui.config import UiConfig
from axoneme.ui.events import Streams
from axoneme.ui.feed import Feed, Sockets
from axoneme.ui.guard import API
from axoneme.ui.names import Names, is_field
from axoneme.ui.nodes import NodeView
from axoneme.ui.policylist import PolicyList
from axoneme.ui.problems import Refusal
from axoneme.ui.relayed import Relayed
from axoneme.ui.shared import Shared
from axoneme.ui.trial import Trial
from axoneme.ui.watching import LONGEST_WINDOW, Watcher

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).with_name("static")
_NONCE: Final = "__CSP_NONCE__"
#: Bytes of a request's body.
_LARGEST: Final = 1 << 20
#: Seconds that open requests get when the process ends.
_PATIENCE: Final = 1.0
_USUAL_WINDOW: Final = 300.0

Handler = Callable[[web.Request], Awaitable[object]]


class UiServer:
    """``shared``: None where the shared state is not to be had."""

    def __init__(self, config: UiConfig, feed: Feed, shared: Shared | None) -> None:
        self._config = config
        self._feed = feed
        self._shared = shared
        self._access = Access(config)
        self._watcher = Watcher(feed)
        self._names = Names(feed.nodes())
        self._trial = Trial(feed, shared, Enforcement[config.enforcement.upper()]) if shared else None
        self._node_view = NodeView(config.agent_sockets(), config.flow_sockets(), shared)
        self._streams = Streams(lambda request: self._access.user(request) is not None)

    async def run(self) -> None:
        """Until cancelled. `ConfigError` where the address or the certificate cannot be used."""
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=_PATIENCE, handler_cancellation=True
        )
        await runner.setup()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watcher.run())
                address, tls = self._config.address(), self._config.tls()
                try:
                    current = CurrentTls(tls) if tls else None
                    await web.TCPSite(
                        runner, *address, ssl_context=current.context if current else None
                    ).start()
                except (OSError, ssl.SSLError) as error:
                    raise ConfigError(f"listen: {self._config.listen}: {error}") from error
                if current:
                    tasks.create_task(current.keep())
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        config = self._config
        app = web.Application(client_max_size=_LARGEST, middlewares=guard.middlewares(config, self._access))
        app.on_response_prepare.append(guard.headers(config))
        gets: dict[str, Handler] = {
            "session": self._session,
            "meta": self._meta,
            "complete": self._complete,
            "map": self._map,
            "flows": self._flows,
            "timeline": self._timeline,
            "workloads": self._workloads,
            "policies": self._policies,
            "policy": self._policy,
            "nodes": self._nodes,
        }
        posts: dict[str, Handler] = {
            "policies/validate": self._validate,
            "policies/preview": self._preview,
            "policies/suggest": self._suggest,
        }
        for name, handler in gets.items():
            app.router.add_get(config.prefix + API + name, _json(handler))
        for name, handler in posts.items():
            app.router.add_post(config.prefix + API + name, _json(handler))
        app.router.add_get(config.prefix + API + "map/stream", self._map_stream)
        app.router.add_get(config.prefix + API + "flows/stream", self._flow_stream)
        app.router.add_post(config.prefix + API + "login", self._log_in)
        app.router.add_post(config.prefix + API + "logout", self._log_out)
        app.router.add_get(config.prefix + "/", self._page)
        if config.prefix:
            app.router.add_get(config.prefix, self._to_page)
        app.router.add_get(config.prefix + "/{path:.+}", self._file)
        return app

    # ---- files -------------------------------------------------------------------------------------

    async def _page(self, _: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        try:
            text = (STATIC / "index.html").read_text("utf-8")
        except FileNotFoundError:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "this installation was built without the page (AXONEME_WITHOUT_UI); the API works",
                remedy="install npm, and build again",
            ) from None
        return web.Response(
            text=text.replace(_NONCE, nonce),
            content_type="text/html",
            headers={"Content-Security-Policy": guard.policy(nonce)},
        )

    async def _to_page(self, request: web.Request) -> web.Response:
        raise web.HTTPMovedPermanently(f"{request.path}/")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["path"]
        path = (STATIC / name.partition("\0")[0]).resolve()
        inside = "\0" not in name and path.is_relative_to(STATIC.resolve())
        if not inside or not path.is_file() or path.name == "index.html":
            raise Refusal(HTTPStatus.NOT_FOUND, f"there is no {request.path}")
        # Names in assets/ hold a digest of what is in the file.
        lasts = "public, max-age=31536000, immutable" if path.parent.name == "assets" else "no-cache"
        return web.FileResponse(path, headers={"Cache-Control": lasts})

    # ---- sessions ----------------------------------------------------------------------------------

    async def _session(self, request: web.Request) -> api.Session:
        user = self._access.user(request)
        return api.Session(
            authenticated=user is not None,
            login=user.how if user else self._access.how,
            user=user.name if user else "",
            read_only=True,
            place=self._config.place,
            version=__version__,
            features=api.Features(
                policies=self._shared is not None,
                nodes=True,
                history=isinstance(self._feed, past.WithHistory),
            ),
        )

    async def _log_in(self, request: web.Request) -> web.Response:
        wish = asking.body(await request.read(), api.Login)
        cookie = self._access.log_in(request, wish.token)
        response = web.Response(status=HTTPStatus.NO_CONTENT)
        secure = request.secure or (
            self._access.through_proxy(request) and request.headers.get("X-Forwarded-Proto") == "https"
        )
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(SESSION_LASTS),
            path=f"{self._config.prefix}/",
            httponly=True,
            samesite="Strict",
            secure=secure,
        )
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        self._access.log_out(request)
        response = web.Response(status=HTTPStatus.NO_CONTENT)
        response.del_cookie(COOKIE, path=f"{self._config.prefix}/")
        return response

    # ---- names -------------------------------------------------------------------------------------

    async def _meta(self, _: web.Request) -> api.Meta:
        return api.Meta(
            namespaces=await self._namespaces(),
            nodes=self._feed.nodes(),
            filters=self._names.filters(),
        )

    async def _complete(self, request: web.Request) -> api.Completion:
        field = request.query.get("field", "")
        if not is_field(field):
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"there is no filter {field}", field="field")
        shared = self._shared
        endpoints = await shared.endpoints() if shared else []
        services = [(each.namespace, each.name) for each in await shared.objects("Service")] if shared else []
        text = request.query.get("text", "")
        namespaces = await self._namespaces()
        return api.Completion(values=self._names.complete(field, text, endpoints, services, namespaces))

    async def _namespaces(self) -> list[str]:
        """Those that exist, and those of which there are flows."""
        seen = {card.namespace for card in self._watcher.map.cards.values() if card.namespace}
        return sorted(seen.union(await self._shared.namespaces() if self._shared else ()))

    # ---- service map -------------------------------------------------------------------------------

    async def _map(self, request: web.Request) -> api.MapState:
        namespaces, window = _where(request)
        since, until = asking.moment(request.query, "since"), asking.moment(request.query, "until")
        if since is None and until is None:
            return self._watcher.state(namespaces, window)
        until = until or time.time_ns()
        since = since if since is not None else until - int(window * 1e9)
        _check_span(since, until)
        return await watching.of_span(self._feed, namespaces, since, until)

    async def _map_stream(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.send(request, self._watcher.events(*_where(request)))

    # ---- flows -------------------------------------------------------------------------------------

    async def _flows(self, request: web.Request) -> api.FlowList:
        own = frozenset(("last", "since", "until"))
        last = int(asking.number(request.query, "last", 500, 1, 5000))
        return await flowlist.recorded(self._feed, _observe(request, own), last)

    async def _flow_stream(self, request: web.Request) -> web.StreamResponse:
        last = int(asking.number(request.query, "last", 100, 0, 1000))
        follower = flowlist.Follower(self._feed, _observe(request, frozenset(("last",))), last)
        return await self._streams.send(request, follower.events())

    async def _timeline(self, request: web.Request) -> api.Timeline:
        wanted = _observe(request, frozenset(("since", "until", "buckets")))
        until = wanted.until or time.time_ns()
        since = wanted.since if wanted.since is not None else until - int(_USUAL_WINDOW * 1e9)
        _check_span(since, until)
        buckets = int(asking.number(request.query, "buckets", 120, 1, 1000))
        return await flowlist.timeline(self._feed, wanted, since, until, buckets)

    # ---- policies ----------------------------------------------------------------------------------

    async def _workloads(self, request: web.Request) -> list[api.Workload]:
        return await self._policy_list().workloads(_namespaces(request))

    async def _policies(self, request: web.Request) -> list[api.PolicyLine]:
        card = request.query.get("card", "")
        problems = await self._node_view.problems()
        return await self._policy_list().lines(_namespaces(request), card, problems)

    async def _policy(self, request: web.Request) -> api.PolicyText:
        kind, namespace, name = (request.query.get(each, "") for each in ("kind", "namespace", "name"))
        return await self._policy_list().text(kind, namespace, name)

    async def _validate(self, request: web.Request) -> api.Validation:
        return await self._trials().validate(asking.body(await request.read(), api.ToValidate))

    async def _preview(self, request: web.Request) -> api.Preview:
        return await self._trials().preview(asking.body(await request.read(), api.ToPreview))

    async def _suggest(self, request: web.Request) -> api.Suggestion:
        return await self._trials().suggest(asking.body(await request.read(), api.ToSuggest))

    def _policy_list(self) -> PolicyList:
        if self._shared is None:
            raise _no_store()
        return PolicyList(self._shared)

    def _trials(self) -> Trial:
        if self._trial is None:
            raise _no_store()
        return self._trial

    # ---- nodes -------------------------------------------------------------------------------------

    async def _nodes(self, _: web.Request) -> api.Nodes:
        return await self._node_view.nodes()


def _no_store() -> Refusal:
    return Refusal(
        HTTPStatus.CONFLICT,
        "the shared state is not to be had here",
        remedy="name store in the configuration",
    )


def _json(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        value = await handler(request)
        response = web.Response(body=msgspec.json.encode(value), content_type="application/json")
        response.enable_compression()
        return response

    return handle


def _where(request: web.Request) -> tuple[list[str], float]:
    """Namespaces (none: all), and the window."""
    window = asking.number(request.query, "window", _USUAL_WINDOW, 1, LONGEST_WINDOW)
    return _namespaces(request), window


def _namespaces(request: web.Request) -> list[str]:
    return [each for each in request.query.getall("namespace", []) if each]


def _observe(request: web.Request, own: frozenset[str]) -> ObserveRequest:
    shown, hidden = asking.filters(request.query, own)
    since = asking.moment(request.query, "since") if "since" in own else None
    until = asking.moment(request.query, "until") if "until" in own else None
    return ObserveRequest(filters=shown, not_filters=hidden, since=since, until=until)


def _check_span(since: int, until: int) -> None:
    if since >= until:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "since must be before until", field="since")


async def _feed(config: UiConfig) -> Feed:
    if config.relay:
        from axoneme.hubble.credentials import client_context

        files = config.relay.files()
        credentials = partial(client_context, files) if files else None
        relayed = Relayed(config.relay.address, config.relay.server_name, credentials)
        await relayed.find_nodes()
        return relayed
    sockets, histories = Sockets(config.flow_sockets()), config.history()
    if not histories:
        return sockets
    if not past.readable():
        log.warning("history is not shown: pyarrow is not installed (the extra `history`)")
        return sockets
    return past.WithHistory(sockets, histories)


async def serve(config: UiConfig) -> None:
    """Until cancelled."""
    store = open_store(config.store) if config.store else None
    try:
        await UiServer(config, await _feed(config), Shared(store) if store else None).run()
    finally:
        if store:
            await store.close()
