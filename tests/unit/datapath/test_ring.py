"""Reading rings, on memory that these tests fill as the kernel would."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.datapath.ring import Ring

RECORD = np.dtype([("number", "u8"), ("address", "u1", (12,))])
STRIDE = 8 + 24  # a header, 20 bytes, rounded up to 8
SIZE = 512  # holds 16 records
BUSY, DISCARDED = 1 << 31, 1 << 30


class Kernel:
    """The producer: writes into memory that is mapped twice."""

    def __init__(self, start: int = 0) -> None:
        self.consumed = np.array([start], np.uint64)
        self.produced = np.array([start], np.uint64)
        self.data = np.zeros(2 * SIZE, np.uint8)
        self.ring = Ring("test", self.consumed, self.produced, self.data, RECORD)
        self.count = 0

    def write(self, flags: int = 0, length: int = 20) -> bool:
        stride = (8 + length + 7) & ~7
        at = int(self.produced[0])
        if at + stride - int(self.consumed[0]) > SIZE:
            return False
        self.put(at, struct.pack("=IIQ", length | flags, 0xABCD, self.count) + bytes([self.count % 256] * 12))
        self.count += 1
        self.produced[0] = at + stride
        return True

    def put(self, at: int, raw: bytes) -> None:
        for place, byte in enumerate(raw, at):
            self.data[place % SIZE] = self.data[place % SIZE + SIZE] = byte

    def commit(self, at: int) -> None:
        self.put(at, struct.pack("=I", 20))

    def numbers(self, limit: int = 1000) -> list[int]:
        return [int(number) for number in self.ring.read(limit)["number"]]


def test_an_empty_ring_gives_nothing() -> None:
    records = Kernel().ring.read()
    assert len(records) == 0
    assert records.dtype == RECORD


def test_records_come_in_order_and_are_copies() -> None:
    kernel = Kernel()
    for _ in range(3):
        kernel.write()
    assert kernel.ring.pending() == 3 * STRIDE
    records = kernel.ring.read()
    kernel.data[:] = 0
    assert records["number"].tolist() == [0, 1, 2]
    assert records["address"].tolist() == [[n] * 12 for n in range(3)]
    assert kernel.ring.pending() == 0


def test_a_limit_leaves_the_rest_for_later() -> None:
    kernel = Kernel()
    for _ in range(5):
        kernel.write()
    assert [kernel.numbers(2), kernel.numbers(2), kernel.numbers(2)] == [[0, 1], [2, 3], [4]]


def test_a_record_that_crosses_the_end_is_read_whole() -> None:
    kernel = Kernel(start=(1 << 40) + SIZE - 16)
    kernel.write()
    kernel.write()
    assert kernel.numbers() == [0, 1]


def test_reading_stops_before_a_record_that_is_being_written() -> None:
    kernel = Kernel()
    kernel.write()
    kernel.write(BUSY)
    kernel.write()
    assert kernel.numbers() == [0]
    assert kernel.numbers() == []
    kernel.commit(STRIDE)
    assert kernel.numbers() == [1, 2]


def test_discarded_records_are_left_out() -> None:
    kernel = Kernel()
    for flags in (0, DISCARDED, 0, DISCARDED):
        kernel.write(flags)
    assert kernel.numbers() == [0, 2]
    assert kernel.ring.pending() == 0


def test_records_of_another_size_are_refused() -> None:
    kernel = Kernel()
    kernel.write()
    kernel.write(length=8)
    with pytest.raises(ValueError, match="ring test: a record has 8 bytes, not 20"):
        kernel.ring.read()


def test_skip_drops_what_waits_but_not_what_is_being_written() -> None:
    kernel = Kernel()
    kernel.write()
    kernel.write(DISCARDED)
    kernel.write(BUSY)
    kernel.write()
    assert kernel.ring.skip() == 2 * STRIDE
    kernel.commit(2 * STRIDE)
    assert kernel.numbers() == [2, 3]
    assert kernel.ring.skip() == 0


@given(
    st.integers(0, 1 << 50),
    st.lists(
        st.one_of(
            st.sampled_from(["plain", "busy", "discarded", "commit"]),
            st.integers(1, 20).map(lambda n: ("read", n)),
        ),
        max_size=80,
    ),
)
def test_every_committed_record_is_read_once_and_in_order(
    start: int, steps: list[str | tuple[str, int]]
) -> None:
    kernel = Kernel(start * 8)
    written: list[tuple[int, int, bool]] = []  # number, place, kept
    pending: list[int] = []
    read: list[int] = []
    for step in steps:
        if isinstance(step, tuple):
            read += kernel.numbers(step[1])
        elif step == "commit":
            if pending:
                kernel.commit(pending.pop())
        else:
            at = int(kernel.produced[0])
            if kernel.write({"plain": 0, "busy": BUSY, "discarded": DISCARDED}[step]):
                written.append((kernel.count - 1, at, step != "discarded"))
                if step == "busy":
                    pending.append(at)
        assert read == [number for number, _, kept in written if kept][: len(read)]
    for at in pending:
        kernel.commit(at)
    read += kernel.numbers()
    assert read == [number for number, _, kept in written if kept]
    assert kernel.ring.pending() == 0
