"""Names of network interfaces by their index."""

from __future__ import annotations

import socket


def name_of(index: int) -> str:
    """While it is there; else empty."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
