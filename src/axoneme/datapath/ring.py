"""The BPF ring buffer as an array of records.

All records of a ring have one size, so its mapped pages *are* an array: reading is one numpy view, a
look at all headers at once, and one copy. The kernel maps the data twice, one after the other, so that a
view never wraps (https://docs.kernel.org/bpf/ringbuf.html).

Two counters, in pages of their own, say how many bytes were ever produced and consumed. Before each record
stand 8 bytes, the first 4 of them its length, with two flags: *busy*, while a program is still writing it
(what lies behind waits with it), and *discarded*, when it thought better of it.

Order of memory accesses: the kernel publishes the producer's counter and each header with release
semantics; we must not read headers before the counter, nor data before the headers, nor hand back space
before we have copied out of it. x86 keeps loads in order, and does not let a store overtake a load. arm64
promises neither, and Python has no fences; but releasing and taking a lock orders all that is before
against all that is after (a store-release followed by a load-acquire). So each `read` does this three
times, which costs 0.1 µs each and not per record.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath import bpf
from axoneme.datapath.uapi import MapType

_HEADER: Final = 8
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_LENGTH: Final = _DISCARDED - 1

Counter = npt.NDArray[np.uint64]


class Ring:
    """The reading itself, on memory that somebody else provides."""

    def __init__(
        self,
        name: str,
        consumed: Counter,
        produced: Counter,
        data: npt.NDArray[np.uint8],
        dtype: np.dtype[np.void],
    ) -> None:
        """`consumed` and `produced` are the counters, one element each; `data` holds the ring twice."""
        self.name = name
        self.dtype = dtype
        self.size = len(data) // 2
        self._consumed = consumed
        self._produced = produced
        self._data = data
        # Opaque bytes: numpy copies those four times as fast as records of many fields.
        self._cell = np.dtype(
            {
                "names": ["header", "record"],
                "formats": ["u4", f"V{dtype.itemsize}"],
                "offsets": [0, _HEADER],
                "itemsize": (_HEADER + dtype.itemsize + 7) & ~7,
            }
        )
        self._empty: npt.NDArray[np.void] = np.zeros(0, dtype)
        self._fence = threading.Lock()
        self._fence.acquire()

    def pending(self) -> int:
        """Bytes that wait to be read, headers included; `size` is when the ring is full."""
        return int(self._produced[0]) - int(self._consumed[0])

    def read(self, limit: int = 1 << 20) -> npt.NDArray[np.void]:
        """Up to `limit` records, in the order in which programs took their places: a copy.

        It does not wait; it stops before a record that is still being written. Discarded records count
        towards `limit`. Raises ValueError when the ring holds records of another size.
        """
        start = int(self._consumed[0])
        stride = self._cell.itemsize
        offset = start & (self.size - 1)
        # Rounded up: what is left of records of another size must be seen, to be refused.
        waiting = (int(self._produced[0]) - start + stride - 1) // stride
        count = min(waiting, (2 * self.size - offset) // stride, limit)
        if count <= 0:
            return self._empty
        self._order()
        cells = self._data[offset : offset + count * stride].view(self._cell)
        headers = cells["header"]
        if bool((headers == self.dtype.itemsize).all()):
            self._order()
            records = cells["record"].copy()
        else:
            headers = headers.copy()
            self._order()
            busy = np.flatnonzero(headers & _BUSY)
            count = int(busy[0]) if len(busy) else count
            headers, cells = headers[:count], cells[:count]
            self._check(headers & _LENGTH)
            records = cells["record"][(headers & _DISCARDED) == 0]
        self._order()
        self._consumed[0] = start + count * stride
        return records.view(self.dtype)

    def skip(self) -> int:
        """Drops what is waiting, for a reader that begins with the present; how many bytes.

        It stops at a record that is still being written: to hand back that space would let the kernel
        give it out a second time.
        """
        start, end = int(self._consumed[0]), int(self._produced[0])
        before = -1
        while before < int(self._consumed[0]) < end:
            before = int(self._consumed[0])
            self.read()
        return int(self._consumed[0]) - start

    def _check(self, lengths: npt.NDArray[Any]) -> None:
        others = lengths[lengths != self.dtype.itemsize]
        if len(others):
            raise ValueError(
                f"ring {self.name}: a record has {others[0]} bytes, not {self.dtype.itemsize}: "
                "the programs that write it were built for other records than this reader"
            )

    def _order(self) -> None:
        """Accesses before this stay before those after it."""
        self._fence.release()
        self._fence.acquire()


class RingReader(Ring):
    """The one reader of a kernel's ring: what it has read, nobody else will.

    The counters live in the kernel: a reader that is closed, or killed, is followed by one that goes on
    where it stood.
    """

    def __init__(self, fd: int, dtype: np.dtype[np.void]) -> None:
        """`dtype` is that of every record in the ring. The file descriptor stays the caller's."""
        info = bpf.map_info(fd)
        if info.kind != MapType.RINGBUF:
            raise ValueError(f"map {info.name} ({info.kind_name}) is no ring buffer")
        page = mmap.PAGESIZE
        ours = mmap.mmap(fd, page)
        theirs = mmap.mmap(fd, page + 2 * info.max_entries, prot=mmap.PROT_READ, offset=page)
        super().__init__(
            info.name,
            np.frombuffer(ours, np.uint64, 1),
            np.frombuffer(theirs, np.uint64, 1),
            np.frombuffer(theirs, np.uint8, offset=page),
            dtype,
        )
        self._fd = os.dup(fd)

    @classmethod
    def pinned(cls, path: Path, dtype: np.dtype[np.void]) -> Self:
        """The reader of a ring by its pin. Raises `bpf.NotFound`."""
        fd = bpf.pinned(path)
        try:
            return cls(fd, dtype)
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """For poll and select: readable when a program that woke its readers has written."""
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        # The mappings go with the last view of them; from now on the ring is empty.
        self._produced = self._consumed = np.zeros(1, np.uint64)
        self._data = np.zeros(0, np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
