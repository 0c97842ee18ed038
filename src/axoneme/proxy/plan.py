"""What the agent asks of a proxy, and what the proxy says to it: two files in a directory for each kind.

The agent writes ``plan.json`` as a whole, by renaming; the proxy follows it, and answers with
``report.json``. Each goes on with what it last read while the other is away. A proxy that nobody needs has no
plan, and does not run.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from axoneme.model.envoyconfig import EnvoyConfig
from axoneme.model.l7 import L7
from axoneme.model.redaction import Redaction
from axoneme.proxy.names import Names

#: Below the agent's state directory; in it a directory for each of these.
DIRECTORY = "proxy"
KINDS = ("envoy", "kafka", "dns")
PLAN, REPORT = "plan.json", "report.json"


class Listener(msgspec.Struct, frozen=True):
    """One distinct set of rules for one direction.

    Connections for it come to ``port`` of 127.0.0.1 and ::1, by TCP, for DNS by UDP too, on transparent
    sockets: the local address of each is whom the client has called.
    """

    port: int
    direction: str  # of the rules' subject: ingress, egress
    rules: L7
    audit: bool = False  # what the rules refuse passes, and is said to be refused


class SecretData(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    data: dict[str, bytes]


class Plan(msgspec.Struct, frozen=True):
    """``revision`` grows with every plan of an agent's directory."""

    node: str
    revision: int
    families: tuple[int, ...]  # 4, 6
    events: str  # path of the flow server's socket, for `axoneme.proxy.events.EventSender`
    listeners: tuple[Listener, ...] = ()
    secrets: tuple[SecretData, ...] = ()
    configs: tuple[EnvoyConfig, ...] = ()
    names: Names | None = None  # of the DNS proxy's; none: no policy speaks of names
    redaction: Redaction = Redaction()


class Report(msgspec.Struct, frozen=True):
    """``revision`` is that of the plan which is in force, as far as it could be; ``ready`` the ports at which
    connections are taken by it; ``errors`` by port what is wrong with the others."""

    revision: int
    ready: tuple[int, ...] = ()
    errors: dict[int, str] = {}
    pid: int = 0


def directory(state: Path, kind: str) -> Path:
    return state / DIRECTORY / kind
