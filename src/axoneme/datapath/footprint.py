"""What a program costs once it is loaded: instructions, machine code, stack, and the verifier's trouble
with it, by function.

The verifier's limits are the datapath's: a million steps, and 512 bytes of stack along the deepest chain of
calls. Both depend on the kernel, which is why they are read from one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from axoneme.datapath import bpf
from axoneme.datapath.btf import Btf
from axoneme.datapath.libbpf import Object

#: The verifier's limits (BPF_COMPLEXITY_LIMIT_INSNS, MAX_BPF_STACK).
STEPS_LIMIT: Final = 1_000_000
STACK_LIMIT: Final = 512

_INSTRUCTION = struct.Struct("=BBhi")
_CALL: Final = 0x85
_OWN_FUNCTION: Final = 1  # in the source register of a call: BPF_PSEUDO_CALL
_STACK = re.compile(r"^stack depth ([\d+]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a program, as the kernel holds it."""

    name: str
    instructions: int
    native_bytes: int  # 0 without a JIT
    stack: int  # bytes, of its own


@dataclass(frozen=True, slots=True)
class Footprint:
    """A program; its first function is its entry."""

    name: str
    functions: tuple[Function, ...]
    stack: int  # bytes, of the deepest chain of calls, as the verifier adds them up
    steps: int  # instructions that the verifier walked through

    @property
    def instructions(self) -> int:
        return sum(function.instructions for function in self.functions)

    @property
    def native_bytes(self) -> int:
        return sum(function.native_bytes for function in self.functions)


def footprint(item: Object, name: str) -> Footprint:
    """Of a program of an object which was loaded after `Object.keep_statistics`."""
    fd = item.program_fd(name)
    info = bpf.program_info(fd)
    stacks = _stacks(item.verifier_log(name))
    layout = bpf.program_functions(fd)
    names = _names(info.btf_id, [number for _, number in layout.functions])
    starts = [start for start, _ in layout.functions] or [0]
    ends = [*starts[1:], info.translated_size // _INSTRUCTION.size]
    natives = layout.native_sizes or [info.native_size]
    functions = tuple(
        Function(each, end - start, native, stack)
        for each, start, end, native, stack in zip(
            names or [name], starts, ends, natives, stacks, strict=True
        )
    )
    return Footprint(
        name, functions, deepest_chain(item.instructions(name), stacks), info.verified_instructions
    )


def _stacks(log: str) -> list[int]:
    """From the statistics at the log's end: one depth for each function, in their order."""
    found = _STACK.search(log)
    if found is None:
        raise ValueError(f"no stack depths in the verifier's statistics: {log!r}")
    return [int(depth) for depth in found[1].split("+")]


def _names(btf_id: int, types: Sequence[int]) -> list[str]:
    if not btf_id or not types:
        return []
    types_of_kernel = Btf(bpf.btf_section(btf_id), f"BTF {btf_id}")
    return [types_of_kernel.name(number) for number in types]


def deepest_chain(code: bytes, stacks: Sequence[int]) -> int:
    """Bytes of stack along the deepest chain of calls. `code` is what was given to the verifier: functions
    one after the other, of which each but the first is called by some other."""
    calls = [
        (at, at + 1 + immediate)
        for at, (operation, registers, _, immediate) in enumerate(_INSTRUCTION.iter_unpack(code))
        if operation == _CALL and registers >> 4 == _OWN_FUNCTION
    ]
    starts = sorted({0, *(target for _, target in calls)})
    callees: dict[int, set[int]] = {}
    for at, target in calls:
        caller = max(start for start in starts if start <= at)
        callees.setdefault(caller, set()).add(target)
    depths = dict(zip(starts, stacks, strict=True))

    def below(start: int) -> int:
        # As check_max_stack_depth does it: a frame takes at least 32 bytes, and a multiple of that.
        own: int = (max(depths[start], 1) + 31) // 32 * 32
        return own + max((below(target) for target in callees.get(start, ())), default=0)

    return below(0)
