"""What loaded programs cost, by function."""

import struct

import pytest

from axoneme.datapath.footprint import deepest_chain, footprint
from axoneme.datapath.libbpf import Object

from .conftest import Compile

SOURCE = """
__noinline int below(struct __sk_buff *skb)
{
	char room[48] = {};
	bpf_skb_load_bytes(skb, 0, room, sizeof(room));
	return room[7];
}
SEC("tc") int above(struct __sk_buff *skb)
{
	char room[100] = {};
	bpf_skb_load_bytes(skb, 0, room, sizeof(room));
	return below(skb) + room[3];
}
"""


def test_each_function_has_its_size_and_its_stack(compile_program: Compile) -> None:
    with Object.open(compile_program(SOURCE)) as item:
        item.keep_statistics()
        item.load()
        found = footprint(item, "above")
    assert [(function.name, function.stack) for function in found.functions] == [
        ("above", 104),
        ("below", 48),
    ]
    assert all(function.instructions > 3 for function in found.functions)
    assert found.stack == 128 + 64
    assert found.steps >= found.instructions / 2


def test_without_statistics_the_stack_is_not_known(compile_program: Compile) -> None:
    with Object.open(compile_program(SOURCE)) as item:
        item.load()
        with pytest.raises(ValueError, match="no stack depths"):
            footprint(item, "above")


def test_the_deepest_chain_is_found_among_calls() -> None:
    def call(from_: int, to: int) -> bytes:
        return struct.pack("=BBhi", 0x85, 0x10, 0, to - from_ - 1)

    leave = struct.pack("=BBhi", 0x95, 0, 0, 0)
    # 0 calls 3 and 5; 3 calls 5; 5 calls nobody. A helper's call (source register 0) is none.
    helper = struct.pack("=BBhi", 0x85, 0, 0, 1)
    code = call(0, 3) + call(1, 5) + leave + call(3, 5) + leave + helper + leave
    assert deepest_chain(code, [33, 0, 64]) == 64 + 32 + 64
    assert deepest_chain(leave, [0]) == 32
