"""Flows: what the kernel reported about connections and drops, kept, named, filtered and shown.

`events` turns the kernel's records into flow records (numpy), `names` says who stands behind their
addresses, `store` keeps them, `filters` picks among them, `encode` makes JSON values (`flow`) of the
few that somebody asked for, `render` makes text of those. All of that is pure; `rules` and `kernel` know
the files and maps that agents leave. The process is `axoneme.flowserver`.

Programs and notebooks begin with ``flows.connect``, which is `axoneme.history.connection.connect`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """By name, and when it is asked for: this is where users look for it, but it stands on much else."""
    if name == "connect":
        return import_module("axoneme.history.connection").connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
