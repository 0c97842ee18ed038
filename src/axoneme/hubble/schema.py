"""Hubble's messages, made at run time from the descriptor set that the build has compiled.

They live in a pool of their own: programs that have loaded Hubble's generated code as well can use both.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


class SchemaMissing(RuntimeError):
    """The package was not built."""


@cache
def pool() -> Any:
    """The `google.protobuf.descriptor_pool.DescriptorPool` of all messages and services."""
    source = files("axoneme.hubble") / "proto" / "hubble.binpb"
    try:
        described = descriptor_pb2.FileDescriptorSet.FromString(source.read_bytes())
    except FileNotFoundError:
        raise SchemaMissing(f"{source} is not there: `make bpf` compiles it in a checkout") from None
    made = descriptor_pool.DescriptorPool()
    for file in described.file:  # each behind those that it imports
        made.Add(file)
    return made


@cache
def message(name: str) -> Any:
    """The class of a message by its full name, as ``flow.Flow``."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def serialized(made: Any) -> bytes:
    """What goes over the wire of a message of these classes, which have no types."""
    found: bytes = made.SerializeToString()
    return found


@cache
def enum(name: str) -> dict[str, int]:
    """The values of an enum by its full name, as ``flow.Verdict``."""
    return {value.name: value.number for value in pool().FindEnumTypeByName(name).values}
