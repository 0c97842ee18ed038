"""Elements of maps: one at a time, and thousands in one system call.

Keys and values are numpy arrays whose memory the kernel reads and writes: C-contiguous, one element
of the map each item, as the callers in `axoneme.datapath.maps` make them. Batches need no more than
a call for each `CHUNK` elements; where a map type knows no batches (the kernel says so), the same
functions do it one by one.

The map commands of bpf(2) are described in https://docs.kernel.org/userspace-api/ebpf/syscall.html.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axoneme.datapath import bpf
from axoneme.datapath.bpf import Attributes
from axoneme.datapath.uapi import Command

Array = npt.NDArray[Any]

#: How many elements one call moves. The kernel copies through buffers of its own in some map types.
CHUNK: Final = 1 << 16

#: Flags of an update.
ANY: Final = 0
NO_EXIST: Final = 1  # only add
EXIST: Final = 2  # only replace

_ELEMENT = struct.Struct("=I4xQQQ")
_BATCH = struct.Struct("=QQQQIIQQ")
_COUNT_AT: Final = 32
_NO_BATCH: Final = (-errno.EOPNOTSUPP, -bpf.ENOTSUPP)


class BatchError(bpf.BpfError):
    """A batch stopped in the middle: `done` elements of `total` were dealt with, in order."""

    done: int
    total: int


class BatchFull(BatchError, bpf.MapFull):
    """A batch stopped because the map is full."""


def lookup(fd: int, key: Array, value: Array) -> bool:
    """Fills `value` from the element `key`; False when there is none."""
    result = _element(Command.MAP_LOOKUP_ELEM, fd, key.ctypes.data, value.ctypes.data)
    if result == -errno.ENOENT:
        return False
    if result < 0:
        raise bpf.failure(-result, f"reading {bpf.describe(fd)}")
    return True


def update(fd: int, key: Array, value: Array, flags: int = ANY) -> None:
    result = _element(Command.MAP_UPDATE_ELEM, fd, key.ctypes.data, value.ctypes.data, flags)
    if result < 0:
        raise _update_failure(fd, -result, 0, 1)


def delete(fd: int, key: Array) -> bool:
    """Removes one element; False when there was none."""
    result = _element(Command.MAP_DELETE_ELEM, fd, key.ctypes.data)
    if result == -errno.ENOENT:
        return False
    if result < 0:
        raise bpf.failure(-result, f"deleting from {bpf.describe(fd)}")
    return True


def pop(fd: int, key: Array, value: Array) -> bool:
    """Fills `value` and removes the element in one step; False when there was none.

    Where the map type cannot do both at once (LPM tries), an update between the two is lost.
    """
    result = _element(Command.MAP_LOOKUP_AND_DELETE_ELEM, fd, key.ctypes.data, value.ctypes.data)
    if result == -errno.ENOENT:
        return False
    if result in _NO_BATCH:
        return lookup(fd, key, value) and delete(fd, key)
    if result < 0:
        raise bpf.failure(-result, f"taking out of {bpf.describe(fd)}")
    return True


def update_many(fd: int, keys: Array, values: Array, flags: int = ANY, *, batch: bool = True) -> None:
    """Writes all, in order. Raises `BatchError`, `BatchFull` when one cannot be written: those before
    it are."""
    total, done = len(keys), 0
    key, value = keys.ctypes.data, values.ctypes.data
    while batch and flags == ANY and done < total:  # batches know no flags
        result, moved = _batch(
            Command.MAP_UPDATE_BATCH,
            fd,
            key + done * keys.strides[0],
            value + done * values.strides[0],
            min(CHUNK, total - done),
        )
        if result in _NO_BATCH:
            break
        done += moved
        if result < 0:
            raise _update_failure(fd, -result, done, total)
    for at in range(done, total):
        result = _element(
            Command.MAP_UPDATE_ELEM, fd, key + at * keys.strides[0], value + at * values.strides[0], flags
        )
        if result < 0:
            raise _update_failure(fd, -result, at, total)


def add_many(fd: int, keys: Array, values: Array) -> int:
    """Writes those whose key is not there yet; how many were written. What finds the map full is left out."""
    added = 0
    key, value = keys.ctypes.data, values.ctypes.data
    for at in range(len(keys)):
        result = _element(
            Command.MAP_UPDATE_ELEM, fd, key + at * keys.strides[0], value + at * values.strides[0], NO_EXIST
        )
        if result >= 0:
            added += 1
        elif result not in (-errno.EEXIST, -errno.E2BIG, -errno.ENOSPC):
            raise _update_failure(fd, -result, at, len(keys))
    return added


def delete_many(fd: int, keys: Array, *, batch: bool = True) -> int:
    """Removes those of the keys that are there; how many were. Raises `BatchError`."""
    total, at, missing = len(keys), 0, 0
    key, stride = keys.ctypes.data, keys.strides[0]
    while batch and at < total:
        result, moved = _batch(Command.MAP_DELETE_BATCH, fd, key + at * stride, 0, min(CHUNK, total - at))
        if result in _NO_BATCH:
            break
        at += moved
        if result == -errno.ENOENT:
            # The batch stops at a key that is not there: step over it.
            at += 1
            missing += 1
        elif result < 0:
            raise _batch_failure(fd, -result, at, total, "deleting from")
    for index in range(at, total):
        result = _element(Command.MAP_DELETE_ELEM, fd, key + index * stride)
        if result == -errno.ENOENT:
            missing += 1
        elif result < 0:
            raise _batch_failure(fd, -result, index, total, "deleting from")
    return total - missing


def lookup_many(fd: int, keys: Array, values: Array) -> npt.NDArray[np.bool_]:
    """Fills the rows of `values` whose key is there, and says which; the kernel has no batch for
    chosen keys, so this is a call each."""
    found = np.zeros(len(keys), np.bool_)
    key, value = keys.ctypes.data, values.ctypes.data
    for at in range(len(keys)):
        result = _element(
            Command.MAP_LOOKUP_ELEM, fd, key + at * keys.strides[0], value + at * values.strides[0]
        )
        if result >= 0:
            found[at] = True
        elif result != -errno.ENOENT:
            raise _batch_failure(fd, -result, at, len(keys), "reading")
    return found


def chunks(
    fd: int,
    key: np.dtype[Any],
    value: np.dtype[Any],
    size: int = CHUNK,
    *,
    remove: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """All elements, some `size` at a time: fresh arrays of keys and values.

    Not a snapshot: an element that comes or goes meanwhile may or may not be seen. A hash is walked
    bucket by bucket, so one that stays is seen exactly once; in other map types the removal of the key
    at which the walk stands can start it anew. With `remove` each is taken out as it is read.
    """
    command = Command.MAP_LOOKUP_AND_DELETE_BATCH if remove else Command.MAP_LOOKUP_BATCH
    # Where the walk stands: a bucket's number, or a key.
    places = [ctypes.create_string_buffer(max(4, key.itemsize)) for _ in range(2)]
    before = 0
    while True:
        keys, values = np.zeros(size, key), np.zeros(size, value)
        after = ctypes.addressof(places[1])
        result, count = _batch(command, fd, keys.ctypes.data, values.ctypes.data, size, before, after)
        if result in _NO_BATCH and not before:
            yield from _chunks_by_one(fd, key, value, size, remove=remove)
            return
        if result == -errno.ENOSPC:
            # A single bucket of the hash has more elements than we made room for.
            size *= 2
            continue
        if result < 0 and result not in (-errno.ENOENT, -errno.EINTR):
            raise bpf.failure(-result, f"reading all of {bpf.describe(fd)}")
        if count:
            yield keys[:count], values[:count]
            places.reverse()
            before = after
        if result == -errno.ENOENT:
            return


def _chunks_by_one(
    fd: int, key: np.dtype[Any], value: np.dtype[Any], size: int, *, remove: bool
) -> Iterator[tuple[Array, Array]]:
    previous = 0
    following = np.zeros(1, key)
    while True:
        keys, values, count = np.zeros(size, key), np.zeros(size, value), 0
        while count < size:
            result = _element(Command.MAP_GET_NEXT_KEY, fd, previous, following.ctypes.data)
            if result < 0:
                break
            keys[count] = following[0]
            # Gone since, or there was nothing at that place of an array: not an element.
            if lookup(fd, keys[count : count + 1], values[count : count + 1]):
                count += 1
            previous = following.ctypes.data
        if remove:
            delete_many(fd, keys[:count])
            previous = 0
        if count:
            yield keys[:count], values[:count]
        if result == -errno.ENOENT:
            return
        if result < 0:
            raise bpf.failure(-result, f"reading all of {bpf.describe(fd)}")


def join(parts: Sequence[Array]) -> Array:
    """Arrays of one dtype as one. numpy's concatenate would turn big-endian fields into native ones,
    and copy records field by field."""
    if len(parts) == 1:
        return parts[0]
    dtype = parts[0].dtype
    if dtype.names is None:
        return np.concatenate(parts)
    opaque = f"V{dtype.itemsize}"
    joined: Array = np.concatenate([np.ascontiguousarray(part).view(opaque) for part in parts]).view(dtype)
    return joined


def knows_batches(fd: int, keys: Array, values: Array) -> bool:
    """Whether the map's type can be read in batches; the arrays are room for at least one element."""
    place = ctypes.create_string_buffer(max(4, keys.strides[0]))
    result, _ = _batch(
        Command.MAP_LOOKUP_BATCH, fd, keys.ctypes.data, values.ctypes.data, 1, 0, ctypes.addressof(place)
    )
    return result not in _NO_BATCH


def _element(command: Command, fd: int, key: int, value: int = 0, flags: int = 0) -> int:
    return Attributes(_ELEMENT, fd, key, value, flags).call(command)


def _batch(
    command: Command, fd: int, keys: int, values: int, count: int, before: int = 0, after: int = 0
) -> tuple[int, int]:
    """The kernel's answer, and how many elements it dealt with."""
    attributes = Attributes(_BATCH, before, after, keys, values, count, fd, 0, 0)
    result = attributes.call(command)
    moved = attributes.word(_COUNT_AT)
    # Refused outright, the kernel leaves our own count standing there; stopped midway it is lower.
    return result, 0 if result < 0 and result != -errno.ENOENT and moved == count else moved


def _batch_failure(fd: int, number: int, done: int, total: int, doing: str, hint: str = "") -> BatchError:
    kind = BatchFull if number in (errno.E2BIG, errno.ENOSPC) else BatchError
    text = f"{doing} {bpf.describe(fd)}, element {done + 1} of {total}"
    error = bpf.failure(number, text, hint, kind)
    assert isinstance(error, BatchError)
    error.done, error.total = done, total
    return error


def _update_failure(fd: int, number: int, done: int, total: int) -> BatchError:
    hints = {
        errno.E2BIG: "it is full, or the index lies beyond its end: raise max_entries",
        errno.ENOSPC: "it is full: raise max_entries",
        errno.EEXIST: "the key is there already",
        errno.ENOENT: "the key is not there",
        errno.ENOMEM: "the kernel has no memory for it",
        errno.EINVAL: "flags, or a prefix length longer than the key",
    }
    return _batch_failure(fd, number, done, total, "writing to", hints.get(number, ""))
