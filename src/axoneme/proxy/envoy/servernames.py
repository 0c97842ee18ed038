"""Names that TLS clients ask for (SNI), as regular expressions: ``x``, ``*.x`` (one more label), ``**.x``
(one or more)."""

from __future__ import annotations

import re

_LABEL = "[^.]+"


def expression(name: str) -> str:
    """For the whole of a name in lower case (RE2)."""
    if name.startswith("**."):
        return rf"(?:{_LABEL}\.)+{_escaped(name[3:])}"
    if name.startswith("*."):
        return rf"{_LABEL}\.{_escaped(name[2:])}"
    return _escaped(name)


def _escaped(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]", lambda found: f"\\{found[0]}", name.lower().rstrip("."))
