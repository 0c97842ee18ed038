"""Files in a proxy's folder, as the agent reads them: the proxy might have been taken over, and there might
be anything under their names."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def content(path: Path, most: int) -> bytes:
    """At most so many bytes of it; none where it is no regular file, or cannot be read. Never waits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
