"""The part of a node's configuration file that is about metrics; agent and flow server share it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from axoneme.metrics.flowoptions import DEFAULT, settings
from axoneme.metrics.serving import Listening
from axoneme.rpc.listening import TlsFiles

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``listen``: where the agent tells of itself, ``flows_listen``: where the flow server tells of flows,
    each ``address:port``; empty: nowhere. ``flows``: which (`axoneme.metrics.flowoptions`), ``series``:
    of each at most. Where others than this machine reach the address, by HTTPS: with ``certificate`` and
    ``key``, or those that the agent keeps; ``client_certificates``: only to whom ``ca``, or the
    cluster's, has certified."""

    listen: str = ""
    flows_listen: str = ""
    prefix: str = "cilium"
    flows_prefix: str = "hubble"
    flows: tuple[str, ...] = DEFAULT
    series: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 10_000
    certificate: str = ""
    key: str = ""
    ca: str = ""
    client_certificates: bool = False

    def check(self) -> None:
        """ValueError for what the types do not tell."""
        for field in ("prefix", "flows_prefix"):
            if not _NAME.fullmatch(getattr(self, field)):
                raise ValueError(
                    f"metrics.{field}: {getattr(self, field)!r} is no beginning of a metric's name"
                )
        for field in ("listen", "flows_listen"):
            self.where(field, Path())
        if bool(self.certificate) != bool(self.key):
            raise ValueError(
                "metrics: certificate and key go together: name both, or none for the agent's own"
            )
        try:
            settings(self.flows)
        except ValueError as error:
            raise ValueError(f"metrics.flows: {error}") from None

    def where(self, field: str, certificates: Path) -> Listening | None:
        """None: nowhere. ``certificates``: the folder of those that the agent keeps."""
        text: str = getattr(self, field)
        if not text:
            return None
        authority = Path(self.ca) if self.ca else certificates / "ca.crt"
        files = TlsFiles(
            Path(self.certificate) if self.certificate else certificates / "node.crt",
            Path(self.key) if self.key else certificates / "node.key",
            authority if self.client_certificates else None,
        )
        return Listening.of(text, f"metrics.{field}", files)
