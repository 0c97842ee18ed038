"""A node's key, and its request for a certificate. Also a process, with a folder and the node's name.

The agent runs it as that: it is needed once, and the library that it takes would stay in the agent's memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

from axoneme.certificates import making
from axoneme.certificates.files import KEY, REQUEST, write


def prepare(folder: Path, node: str) -> None:
    """Makes what is missing of the two. `CertificateError` for a key that cannot be used."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / KEY
    if path.exists():
        key = making.read_key(path.read_bytes(), str(path))
    else:
        key = making.new_key()
        write(path, making.key_pem(key), 0o600)
    write(folder / REQUEST, making.request_for(key, node), 0o600)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), sys.argv[2])
