"""The methods of Hubble's services, and how their messages become bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from grpclib.encoding.base import CodecBase

from axoneme.hubble.schema import pool, serialized


@dataclass(frozen=True, slots=True)
class Method:
    """``path`` as it is called; ``request`` and ``reply`` are full names of messages."""

    path: str
    request: str
    reply: str
    streams: bool

    @classmethod
    def find(cls, service: str, name: str) -> Method:
        described = pool().FindServiceByName(service).methods_by_name[name]
        return cls(
            f"/{service}/{name}",
            described.input_type.full_name,
            described.output_type.full_name,
            described.server_streaming,
        )


OBSERVER: Final = "observer.Observer"
PEER: Final = "peer.Peer"


class Messages(CodecBase):
    """Messages by their classes; ``bytes`` in place of a class leaves them as they are on the wire."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if message_type is bytes else serialized(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data if message_type is bytes else message_type.FromString(data)
