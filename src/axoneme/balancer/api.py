"""The operations of the REST API: what each takes, does and gives. `server` speaks HTTP.

Every object has a version, its ETag. A change that carries ``If-Match`` happens only if the object still has
that version; with ``If-None-Match: *`` only if there is none. `PATCH` merges (RFC 7396).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from axoneme.balancer.reports import ConnectionsReport, ServiceReport, StatusReport
from axoneme.balancer.sources import Edit
from axoneme.model.balancer import Backend, Desired, Pool, Service, version
from axoneme.model.paths import ManifestError, Place
from axoneme.model.shapes import convert

Named = Service | Pool | Backend
N = TypeVar("N", bound=Named)

#: Connections in one answer, unless it says how many.
_CONNECTIONS: Final = 1000
_MOST_CONNECTIONS: Final = 100_000


class Desk(Protocol):
    """What the process offers its API."""

    @property
    def desired(self) -> Desired: ...

    async def change(self, edit: Edit) -> Desired: ...

    def status(self) -> StatusReport: ...

    def services(self) -> list[ServiceReport]: ...

    def connections(self, service: str, backend: str, limit: int) -> ConnectionsReport: ...


class Refusal(Exception):
    """What was asked cannot be; an HTTP status, and a sentence."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """``body``: an object of the operation's type, or of plain data. The two conditions as the header has
    them, empty where there is none."""

    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    if_match: str = ""
    if_none_match: str = ""


class Answer(NamedTuple):
    """``value`` None: nothing but the status."""

    value: Any
    version: str = ""
    status: HTTPStatus = HTTPStatus.OK


Handler = Callable[[Desk, Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """``takes``: of the body; a dict is a merge patch. ``query``: parameters with their types."""

    id: str
    method: Literal["GET", "PUT", "PATCH", "DELETE"]
    path: str
    summary: str
    handler: Handler
    gives: Any = None
    takes: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        return self.method != "GET"


# ---- looking -----------------------------------------------------------------------------------


async def _status(desk: Desk, request: Request) -> Answer:
    return Answer(desk.status())


async def _services(desk: Desk, request: Request) -> Answer:
    return Answer(desk.services())


async def _connections(desk: Desk, request: Request) -> Answer:
    text = request.query.get("limit", str(_CONNECTIONS))
    limit = Place(int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text, "limit")
    return Answer(
        desk.connections(
            request.query.get("service", ""),
            request.query.get("backend", ""),
            limit.number(1, _MOST_CONNECTIONS),
        )
    )


async def _desired(desk: Desk, request: Request) -> Answer:
    return Answer(desk.desired, version(desk.desired))


# ---- changing ----------------------------------------------------------------------------------


async def _put_desired(desk: Desk, request: Request) -> Answer:
    def edit(desired: Desired) -> Desired:
        _condition(request, desired)
        wanted: Desired = request.body
        return wanted

    made = await desk.change(edit)
    return Answer(made, version(made))


@dataclass(frozen=True, slots=True)
class _Shelf(Generic[N]):
    """Where objects of a kind stand: how to ``find`` the one that a request names, and how to ``place`` what
    becomes of it (None: nothing) among the others."""

    kind: str
    find: Callable[[Desired, Request], N | None]
    place: Callable[[Desired, Request, N | None], Desired]

    async def get(self, desk: Desk, request: Request) -> Answer:
        found = self._existing(self.find(desk.desired, request), request)
        return Answer(found, version(found))

    async def put(self, desk: Desk, request: Request) -> Answer:
        wanted: N = _named(request.body, request.names[self.kind])
        return await self._change(desk, request, lambda _: wanted)

    async def patch(self, desk: Desk, request: Request) -> Answer:
        def merged(before: N | None) -> N:
            found = self._existing(before, request)
            plain = _merge(msgspec.to_builtins(found), request.body)
            return _named(convert(plain, type(found)), request.names[self.kind])

        return await self._change(desk, request, merged)

    async def delete(self, desk: Desk, request: Request) -> Answer:
        def none(before: N | None) -> None:
            self._existing(before, request)

        return await self._change(desk, request, none)

    async def _change(self, desk: Desk, request: Request, new: Callable[[N | None], N | None]) -> Answer:
        created = False

        def edit(desired: Desired) -> Desired:
            nonlocal created
            before = self.find(desired, request)
            _condition(request, before)
            created = before is None
            return self.place(desired, request, new(before))

        try:
            made = self.find(await desk.change(edit), request)
        except ManifestError as error:
            raise _as_asked(error, request) from None
        if made is None:
            return Answer(None, status=HTTPStatus.NO_CONTENT)
        return Answer(made, version(made), HTTPStatus.CREATED if created else HTTPStatus.OK)

    def _existing(self, found: N | None, request: Request) -> N:
        return _existing(found, self.kind, request.names[self.kind])


def _condition(request: Request, before: Desired | Named | None) -> None:
    """RFC 9110, section 13.1."""
    if request.if_none_match.strip() == "*" and before is not None:
        raise Refusal(HTTPStatus.PRECONDITION_FAILED, "there is one already")
    if not request.if_match:
        return
    wanted = [tag.strip() for tag in request.if_match.split(",")]
    if before is None or ("*" not in wanted and f'"{version(before)}"' not in wanted):
        now = f'it is "{version(before)}"' if before is not None else "there is none"
        raise Refusal(
            HTTPStatus.PRECONDITION_FAILED,
            f"somebody else has changed it: If-Match says {request.if_match}, {now}; look at it again",
        )


def _existing(found: N | None, kind: str, name: str) -> N:
    if found is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"there is no {kind} {name}")
    return found


def _named(value: N, name: str) -> N:
    """A backend may go without its name where the path says it."""
    if isinstance(value, Backend) and not value.name and value.called != name:
        value = msgspec.structs.replace(value, name=name)
        convert(msgspec.to_builtins(value), Backend)  # the name in the path may be none
    if (said := value.called if isinstance(value, Backend) else value.name) != name:
        Place(said, "name").refuse(f"the path says {name}; to rename is to delete and create")
    return value


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _as_asked(error: ManifestError, request: Request) -> ManifestError:
    """The path as it is in the body that was sent, not in the whole."""
    path = error.path
    if match := re.match(r"(services|pools)\[[0-9]+\]\.", path):
        path = path[match.end() :]
    if "backend" in request.names:
        path = re.sub(r"^backends\[[0-9]+\]\.?", "", path)
    return ManifestError(path, error.found, error.right, object=error.object, origin=error.origin)


# ---- where objects stand -----------------------------------------------------------------------


def _service_of(desired: Desired, request: Request) -> Service | None:
    return desired.service(request.names["service"])


def _place_service(desired: Desired, request: Request, new: Service | None) -> Desired:
    name = request.names["service"]
    services = _with(desired.services, lambda each: each.name == name, new)
    return msgspec.structs.replace(desired, services=services)


def _pool_of(desired: Desired, request: Request) -> Pool | None:
    return next((pool for pool in desired.pools if pool.name == request.names["pool"]), None)


def _place_pool(desired: Desired, request: Request, new: Pool | None) -> Desired:
    name = request.names["pool"]
    return msgspec.structs.replace(desired, pools=_with(desired.pools, lambda each: each.name == name, new))


def _backend_of(desired: Desired, request: Request) -> Backend | None:
    service = _existing(_service_of(desired, request), "service", request.names["service"])
    return next((each for each in service.backends if each.called == request.names["backend"]), None)


def _place_backend(desired: Desired, request: Request, new: Backend | None) -> Desired:
    service = _existing(_service_of(desired, request), "service", request.names["service"])
    name = request.names["backend"]
    backends = _with(service.backends, lambda each: each.called == name, new)
    return _place_service(desired, request, msgspec.structs.replace(service, backends=backends))


def _with(those: tuple[N, ...], it: Callable[[N], bool], new: N | None) -> tuple[N, ...]:
    """``new`` in its place, or at the end; None: without it."""
    if new is None:
        return tuple(each for each in those if not it(each))
    if any(map(it, those)):
        return tuple(new if it(each) else each for each in those)
    return (*those, new)


def _operations(shelf: _Shelf[N], kind: type[N], path: str) -> Iterator[Operation]:
    name, title = shelf.kind, shelf.kind.capitalize()
    yield Operation(f"get{title}", "GET", path, f"A {name} as it is wanted.", shelf.get, kind)
    yield Operation(f"put{title}", "PUT", path, f"Create or replace a {name}.", shelf.put, kind, kind)
    yield Operation(f"patch{title}", "PATCH", path, f"Change fields of a {name}.", shelf.patch, kind, dict)
    yield Operation(f"delete{title}", "DELETE", path, f"Remove a {name}.", shelf.delete)


_SERVICES: Final = _Shelf("service", _service_of, _place_service)
_BACKENDS: Final = _Shelf("backend", _backend_of, _place_backend)
_POOLS: Final = _Shelf("pool", _pool_of, _place_pool)

OPERATIONS: Final = (
    Operation("getStatus", "GET", "/v1/status", "How the load balancer is.", _status, StatusReport),
    Operation(
        "listServices",
        "GET",
        "/v1/services",
        "Services with the states of their backends.",
        _services,
        list[ServiceReport],
    ),
    Operation(
        "listConnections",
        "GET",
        "/v1/connections",
        "Connections of clients.",
        _connections,
        ConnectionsReport,
        query={"service": str, "backend": str, "limit": int},
    ),
    Operation("getDesired", "GET", "/v1/desired", "All that is wanted.", _desired, Desired),
    Operation("putDesired", "PUT", "/v1/desired", "Replace all of it.", _put_desired, Desired, Desired),
    *_operations(_SERVICES, Service, "/v1/services/{service}"),
    *_operations(_BACKENDS, Backend, "/v1/services/{service}/backends/{backend}"),
    *_operations(_POOLS, Pool, "/v1/pools/{pool}"),
)
