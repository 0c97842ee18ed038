"""Files of the agent's state directory."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Puts it there as a whole: who reads meanwhile finds what was there, or this. OSError when the disk does
    not take it; then what was there stays."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
