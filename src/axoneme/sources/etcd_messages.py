"""The messages of etcd's v3 API in their JSON form, as far as we use them.

They are declared in etcd's ``etcdserver/etcdserverpb/rpc.proto``. Bytes stand as base64 text, 64-bit
integers as text in answers and as numbers in requests; what has its default value is left out.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


def decode(body: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(body, type=kind, strict=False)  # not strict: numbers in text are numbers


# ---- requests ------------------------------------------------------------------------------------


class Range(_Message, frozen=True):
    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0


class PutRequest(_Message, frozen=True):
    key: bytes
    value: bytes
    lease: int


class DeleteRange(_Message, frozen=True):
    key: bytes


class Compare(_Message, frozen=True, omit_defaults=False):
    """Whether a key was last modified at a revision; 0: whether it is absent."""

    key: bytes
    mod_revision: int
    target: str = "MOD"
    result: str = "EQUAL"


class Operation(_Message, frozen=True):
    """One of its fields."""

    request_range: Range | None = None
    request_put: PutRequest | None = None
    request_delete_range: DeleteRange | None = None


class Transaction(_Message, frozen=True):
    compare: list[Compare]
    success: list[Operation]
    failure: list[Operation]


class WatchCreate(_Message, frozen=True):
    key: bytes
    range_end: bytes
    start_revision: int


class Watch(_Message, frozen=True):
    create_request: WatchCreate


class Grant(_Message, frozen=True):
    ttl: int = msgspec.field(name="TTL")


class LeaseId(_Message, frozen=True):
    id: int = msgspec.field(name="ID")


# ---- answers -------------------------------------------------------------------------------------


class Header(_Message, frozen=True):
    revision: int = 0


class Pair(_Message, frozen=True):
    key: bytes
    value: bytes = b""
    mod_revision: int = 0


class RangeAnswer(_Message, frozen=True):
    header: Header = Header()
    kvs: list[Pair] = []
    more: bool = False


class DeleteAnswer(_Message, frozen=True):
    deleted: int = 0


class OperationAnswer(_Message, frozen=True):
    response_range: RangeAnswer = RangeAnswer()


class TransactionAnswer(_Message, frozen=True):
    header: Header
    succeeded: bool = False
    responses: list[OperationAnswer] = []


class Event(_Message, frozen=True):
    kv: Pair
    type: str = "PUT"


class WatchResult(_Message, frozen=True):
    header: Header = Header()
    created: bool = False
    canceled: bool = False
    cancel_reason: str = ""
    compact_revision: int = 0
    events: list[Event] = []


class Error(_Message, frozen=True):
    message: str = ""
    code: int = 0


class WatchAnswer(_Message, frozen=True):
    result: WatchResult = WatchResult()
    error: Error | None = None


class LeaseAnswer(_Message, frozen=True):
    id: int = msgspec.field(name="ID")
    ttl: int = msgspec.field(name="TTL")


class KeepAliveResult(_Message, frozen=True):
    ttl: int = msgspec.field(name="TTL", default=0)


class KeepAliveAnswer(_Message, frozen=True):
    result: KeepAliveResult


class Nothing(_Message, frozen=True):
    pass
