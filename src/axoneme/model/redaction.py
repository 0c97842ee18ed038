"""What must not be shown of requests: credentials in URLs and headers.

Proxies take it out before anything leaves them. What is taken out reads `HIDDEN`, so that it can be seen that
there was something.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from axoneme.model.l7event import HTTPEvent

HIDDEN: Final = "REDACTED"
#: Never shown, whatever a configuration says.
NEVER: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})

#: Words of parameters' names (``X-Amz-Signature``, ``accessToken``, ``api_key``) whose values are secret.
_SECRET_WORDS: Final = frozenset(
    {"apikey", "assertion", "auth", "authorization", "credential", "credentials", "csrf", "jwt", "key", "otp"}
    | {"passwd", "password", "passphrase", "pin", "pwd", "samlrequest", "samlresponse", "secret", "session"}
    | {"sessionid", "sid", "sig", "signature", "token"}
)
#: How such names end that are written in one word (``accesstoken``), and the code of OAuth, whole.
_SECRET_ENDS: Final = ("token", "secret", "password", "passwd", "signature", "credential", "credentials")
_SECRET_ENDS_OF_KEYS: Final = tuple(f"{kind}key" for kind in ("access", "api", "auth", "private", "secret"))
_SECRET_WHOLE: Final = frozenset({"code", "ticket"})
#: Name and password, in front of a host.
_USER = re.compile(r"://[^/]*@")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
#: What is a secret by its looks: a JSON web token (RFC 7519), keys by the prefixes that their issuers gave
#: them so that they be found, and private keys.
_SHAPES: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
    r"|(?:gh[pousr]_|github_pat_|glpat-|xox[abposr]-|sk-|sk_live_|rk_live_|AKIA|ASIA|AIza|ya29\.|npm_|pypi-|hvs\.)"
    r"(?=[\w.-]*\d)[\w.-]{12,}"
    r")|-----BEGIN[ A-Z]*PRIVATE KEY-----.*",
    re.ASCII | re.DOTALL,
)
#: A value so long, of letters and digits without a word in it, is taken for a key.
_LONG: Final = 32
_RANDOM = re.compile(r"[A-Za-z0-9_+/=.~-]+", re.ASCII)


class Redaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``userinfo``: name and password in front of a URL's host are hidden. ``query``: which parameters'
    values are: ``all``; ``secrets``, those whose name (``query_names``, in lower case, besides the known
    ones) or looks say so; or ``none``. ``headers``: the only ones that are shown, never those in `NEVER`."""

    userinfo: bool = True
    query: Literal["all", "secrets", "none"] = "secrets"
    query_names: tuple[str, ...] = ()
    headers: tuple[str, ...] = ("content-type", "host", "user-agent", "x-request-id", "traceparent")

    def check(self) -> None:
        """ValueError for what cannot be meant."""
        if refused := NEVER.intersection(map(str.lower, self.headers)):
            raise ValueError(
                f"redaction.headers: {', '.join(sorted(refused))}: these hold credentials and are never"
                " shown; leave them out"
            )

    def shown(self, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """Those of the headers that may be seen, without what looks like a secret."""
        allowed = {name.lower() for name in self.headers} - NEVER
        return tuple((name, _SHAPES.sub(HIDDEN, value)) for name, value in headers if name.lower() in allowed)

    def http(self, event: HTTPEvent) -> HTTPEvent:
        return replace(event, url=self.url(event.url), headers=self.shown(event.headers))

    def url(self, url: str) -> str:
        """A URL, or a path with its query; what is not well-formed is treated alike."""
        url, sharp, fragment = url.partition("#")
        url, mark, query = url.partition("?")
        url = _SHAPES.sub(HIDDEN, self._without_user(url))
        if query and self.query != "none":
            parts = re.split("([&;])", query)
            query = "".join(part if part in "&;" else self._parameter(part) for part in parts)
        # A fragment should not be on the wire at all; tokens of OAuth's implicit grant stand in it.
        if fragment and self.query != "none":
            fragment = HIDDEN
        return f"{url}{mark}{query}{sharp}{fragment}"

    def _without_user(self, url: str) -> str:
        return _USER.sub(f"://{HIDDEN}@", url) if self.userinfo else url

    def _parameter(self, part: str) -> str:
        name, equals, value = part.partition("=")
        if not equals:
            # A query without a name for its only value, such as ?eyJ…
            return HIDDEN if part and (self.query == "all" or _looks_secret(_decoded(part))) else part
        said = _decoded(value)
        hidden = self.query == "all" or self._names_secret(_decoded(name)) or _looks_secret(said)
        hidden = hidden or (self.userinfo and _USER.search(said) is not None)
        return f"{name}={HIDDEN}" if value and hidden else part

    def _names_secret(self, name: str) -> bool:
        if name.lower() in self.query_names:
            return True
        words = [word.lower() for word in _WORDS.findall(name)]
        whole = "".join(words)
        return (
            not _SECRET_WORDS.isdisjoint(words)
            or whole in _SECRET_WORDS | _SECRET_WHOLE
            or whole.endswith(_SECRET_ENDS + _SECRET_ENDS_OF_KEYS)
        )


def _decoded(text: str) -> str:
    """ASCII out of percent-encoding (RFC 3986, section 2.1); of the rest only that it is something else."""
    return re.sub("%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)


def _looks_secret(value: str) -> bool:
    if _SHAPES.search(value):
        return True
    if len(value) < _LONG or not _RANDOM.fullmatch(value):
        return False
    # Names with hyphens and paths are long, too; what is random has digits, and they are everywhere.
    longest = max(map(len, re.findall("[A-Za-z]+", value)), default=0)
    return any(letter.isdigit() for letter in value) and longest < 12
