"""Who may look: tokens, sessions, and users of whom a proxy in front tells."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from pathlib import Path

from aiohttp import web

from axoneme.ui.config import UiConfig
from axoneme.ui.problems import Refusal

log = logging.getLogger(__name__)

COOKIE = "axoneme-session"
#: Seconds.
SESSION_LASTS = 12 * 3600.0
_MOST_SESSIONS = 1000
#: Wrong tokens that one address may send within so many seconds.
_ATTEMPTS, _WITHIN = 5, 30.0
_MOST_ADDRESSES = 10_000
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class User:
    """``how``: token, proxy or none; ``name``: empty where nobody has said it."""

    how: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Session:
    token: bytes  # the digest of that which it was opened with
    until: float


class Tokens:
    """Those in a file, one a line, read anew when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, int] | None = None
        self._digests: frozenset[bytes] = frozenset()

    def read(self) -> frozenset[bytes]:
        """Their digests. OSError; ValueError for a token that is easily guessed."""
        found = self._path.stat()
        state = (found.st_mtime_ns, found.st_ino)
        if state != self._state:
            lines = (line.strip() for line in self._path.read_text("utf-8").splitlines())
            tokens = [line for line in lines if line and not line.startswith("#")]
            if any(len(token) < _SHORTEST_TOKEN for token in tokens):
                raise ValueError(f"{self._path}: a token has at least {_SHORTEST_TOKEN} characters")
            if not tokens:
                raise ValueError(f"{self._path}: there is no token in it")
            self._digests, self._state = frozenset(map(_digest, tokens)), state
        return self._digests


class Access:
    """``clock``: seconds, monotonic."""

    def __init__(self, config: UiConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._open = config.login == "none"
        self._tokens = Tokens(Path(config.token_file)) if config.token_file else None
        self._proxy = config.proxy
        self._trusted = [ip_network(text) for text in config.proxy.addresses] if config.proxy else []
        self._clock = clock
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        if self._tokens:
            self._tokens.read()

    @property
    def how(self) -> str:
        """What the page has to ask for."""
        return "none" if self._open else "token" if self._tokens else "proxy"

    def user(self, request: web.Request) -> User | None:
        """None: nobody whom we know."""
        if self._proxy and self.through_proxy(request):
            name = request.headers.get(self._proxy.user_header, "").strip()
            if name:
                return User("proxy", name)
        if self._open:
            return User("none")
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            self._slow_down(request)
            if self._known(_digest(token.strip())):
                return User("token")
            self._failed(request)
        session = self._sessions.get(_digest(request.cookies.get(COOKIE, "")))
        if session and session.until > self._clock() and self._known(session.token):
            return User("token")
        return None

    def log_in(self, request: web.Request, token: str) -> str:
        """The session's cookie. `Refusal` where the token is not right, or where it was not too often."""
        self._slow_down(request)
        digest = _digest(token)
        if not self._known(digest):
            self._failed(request)
            raise Refusal(HTTPStatus.UNAUTHORIZED, "this is not a token of this place", field="token")
        now = self._clock()
        while self._sessions and (
            len(self._sessions) >= _MOST_SESSIONS or next(iter(self._sessions.values())).until <= now
        ):
            self._sessions.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = _Session(digest, now + SESSION_LASTS)
        return cookie

    def log_out(self, request: web.Request) -> None:
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def through_proxy(self, request: web.Request) -> bool:
        """Whether it comes from the proxy that asks users who they are."""
        try:
            address = ip_address(request.remote or "")
        except ValueError:
            return False
        return any(address.version == each.version and address in each for each in self._trusted)

    def _known(self, digest: bytes) -> bool:
        try:
            tokens = self._tokens.read() if self._tokens else ()
        except (OSError, ValueError) as error:
            log.error("%s; nobody can log in", error)
            return False
        found = [hmac.compare_digest(digest, each) for each in tokens]  # all: the time tells nothing
        return any(found)

    def _slow_down(self, request: web.Request) -> None:
        now = self._clock()
        recent = [moment for moment in self._failures.get(request.remote or "", ()) if moment > now - _WITHIN]
        if len(recent) >= _ATTEMPTS:
            wait = str(round(recent[0] + _WITHIN - now) + 1)
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many wrong tokens; wait {wait} s",
                headers={"Retry-After": wait},
            )

    def _failed(self, request: web.Request) -> None:
        who = request.remote or ""
        log.warning("a wrong token from %s", who)
        self._failures[who] = [*self._failures.get(who, ())[-_ATTEMPTS:], self._clock()]
        self._failures.move_to_end(who)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
