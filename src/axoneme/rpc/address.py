"""Names for unix sockets that fit into a socket address, which holds 107 bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 107


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for ``path`` to bind or connect to, good while the context lasts.

    A path that is too long is reached through a descriptor of its directory, so that long names of
    sandboxes and nodes never turn into an obscure error.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
