"""What the agent and the DNS proxy of a node tell each other of names.

The agent's part of the plan (`Names`) says which names are of interest, and which identities their addresses
have already. The proxy tells what answers had (`Learn`) before it lets them out, by the method `LEARN` of the
agent on the socket `SOCKET`, which returns when the addresses are in the kernel. It keeps the same in a file
(`JOURNAL`), one `Answer` a line, for the next agent to read before it compiles; both stand in the proxy's
directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec

from axoneme.model.l7 import NameMatch
from axoneme.proxy import files

SOCKET: Final = "agent.sock"
LEARN: Final = "names.learn"
JOURNAL: Final = "learnt.jsonl"
#: Bytes of it that are read.
LARGEST_JOURNAL: Final = 1 << 27


class NameIdentity(msgspec.Struct, frozen=True):
    """What an address gets whose names match just these selectors.

    ``around`` is the identity that the address would have without any name: the world's, or that of the
    longest CIDR around it which a policy names. ``selectors`` are places in `Names.selectors`.
    """

    identity: int
    around: int
    selectors: tuple[int, ...]


class Names(msgspec.Struct, frozen=True):
    """``worlds``: the identity of addresses that nobody knows, IPv4 and IPv6."""

    selectors: tuple[NameMatch, ...] = ()
    identities: tuple[NameIdentity, ...] = ()
    worlds: tuple[int, int] = (2, 2)


class Answer(msgspec.Struct, frozen=True):
    """What a client was told of a name that is of interest: all addresses at the end of its CNAMEs, with
    their TTLs in seconds. The name is in lower case without the trailing dot."""

    time: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]  # wall clock, s: when the answer came
    client: str
    name: str
    addresses: dict[str, Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]]


class Learn(msgspec.Struct, frozen=True):
    """Parameters of `LEARN`: answers that wait together. The result says nothing."""

    answers: tuple[Answer, ...]


def read_journal(path: Path) -> Iterator[Answer]:
    """What stands in the file, oldest first; a line that was cut by a crash is passed over."""
    decode = msgspec.json.Decoder(Answer).decode
    for line in files.content(path, LARGEST_JOURNAL).splitlines():
        try:
            yield decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
