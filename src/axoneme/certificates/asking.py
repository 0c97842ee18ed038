"""A node's keys, and its requests for certificates. Also a process: folder, node, subjects.

The agent runs it as that: it is needed seldom, and the library that it takes would stay in its memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from axoneme.certificates import making
from axoneme.certificates.files import KEY, key_file, request_file, write
from axoneme.certificates.state import NODE, Request
from axoneme.model.state import encode


def prepare(folder: Path, node: str, subjects: Iterable[str]) -> None:
    """Makes what is missing of their keys, and requests. `CertificateError` for a key that cannot be used."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for subject in (NODE, *subjects):
        path = folder / key_file(subject)
        made = folder / request_file(subject)
        if path.exists() and made.exists():
            continue
        if path.exists():
            key = making.read_key(path.read_bytes(), str(path))
        else:
            key = making.new_key()
            write(path, making.key_pem(key), 0o600)
        csr = making.request_for(key, node)
        proof = ""
        if subject != NODE:
            own = folder / KEY
            proof = making.proof(csr, making.read_key(own.read_bytes(), str(own)))
        write(made, encode(Request(csr.decode(), proof)), 0o600)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
