"""The bpf(2) system call: objects by pin, id and file descriptor, programs, links.

What libbpf does for us is in `axoneme.datapath.libbpf`; here is what it lacks (its version 1.1 knows no
tcx links) and what must be quick. Elements of maps are in `axoneme.datapath.elements`.

File descriptors are plain integers that belong to the caller. Every failure is a `BpfError`, an
`OSError` whose text names the object and says what would help.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axoneme.datapath.uapi import AttachType, Command, LinkType, MapType, ProgramType

_NUMBERS: Final = {"x86_64": 321, "ppc64le": 361, "s390x": 351}
_SYSCALL: Final = _NUMBERS.get(platform.machine(), 280)  # 280: arm64, riscv64, loongarch64
_MEMBARRIER: Final = {"x86_64": 324, "ppc64le": 365, "s390x": 356}.get(platform.machine(), 283)
_GLOBAL: Final = 1  # MEMBARRIER_CMD_GLOBAL
#: Seconds, where the kernel does not tell: no program runs so long.
_LONGEST_RUN: Final = 0.02
_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)

#: Room for the attributes of any command: the kernel takes trailing zeros, and writes answers back.
ATTRIBUTES: Final = 160
#: What the kernel answers where a map type does not know an operation; errno has no name for it.
ENOTSUPP: Final = 524


class BpfError(OSError):
    """bpf(2) failed; `errno` is its reason."""


class Forbidden(BpfError, PermissionError):
    """The process lacks a capability."""


class NotFound(BpfError, FileNotFoundError):
    """No such pin, id or element."""


class MapFull(BpfError):
    """The map has its max_entries already."""


class NotSupported(BpfError):
    """This kernel, or this kind of object, does not know the operation."""


_CLASSES: Final[dict[int, type[BpfError]]] = {
    errno.EPERM: Forbidden,
    errno.EACCES: Forbidden,
    errno.ENOENT: NotFound,
    errno.EOPNOTSUPP: NotSupported,
    ENOTSUPP: NotSupported,
}


def failure(number: int, doing: str, hint: str = "", kind: type[BpfError] | None = None) -> BpfError:
    """The error for a failed call: what was tried, why it failed, and what would help."""
    reason = "operation not supported" if number == ENOTSUPP else os.strerror(number)
    if number == errno.EPERM and not hint:
        hint = "it needs root, or CAP_BPF and CAP_NET_ADMIN"
    text = f"{doing}: {reason}" + (f"; {hint}" if hint else "")
    return (kind or _CLASSES.get(number, BpfError))(number, text)


class Attributes:
    """One command's ``union bpf_attr``: packed values in, written-back values out."""

    __slots__ = ("_buffer",)

    def __init__(self, layout: struct.Struct, *values: object) -> None:
        self._buffer = ctypes.create_string_buffer(ATTRIBUTES)
        layout.pack_into(self._buffer, 0, *values)

    def call(self, command: Command) -> int:
        """The kernel's answer, or minus an errno."""
        result = _syscall(_SYSCALL, command, ctypes.addressof(self._buffer), ATTRIBUTES)
        return -ctypes.get_errno() if result < 0 else int(result)

    def word(self, offset: int) -> int:
        """A 32-bit value that the kernel wrote back."""
        return int.from_bytes(self._buffer.raw[offset : offset + 4], sys.byteorder)


_CREATE_MAP = struct.Struct("=IIIIIII16s")
_LOAD_PROGRAM = struct.Struct("=IIQQIIQII16sII")
_PIN = struct.Struct("=QII")
_INFO = struct.Struct("=IIQ")
_BY_ID = struct.Struct("=III")
_CREATE_LINK = struct.Struct("=IIIIIIQ")
_CREATE_ITERATOR = struct.Struct("=IIIIQI")
_ITERATED_MAP = struct.Struct("=I")
_OPEN_ITERATOR = struct.Struct("=II")
_UPDATE_LINK = struct.Struct("=IIII")
_QUERY = struct.Struct("=IIIIQI4xQQQQ")
_ONE = struct.Struct("=I")


def map_create(
    kind: MapType, key_size: int, value_size: int, max_entries: int, flags: int = 0, name: str = ""
) -> int:
    """Creates a map without BTF; for the datapath's own tables libbpf does it."""
    attributes = Attributes(
        _CREATE_MAP, kind, key_size, value_size, max_entries, flags, 0, 0, name.encode()[:15]
    )
    fd = attributes.call(Command.MAP_CREATE)
    if fd < 0:
        raise failure(-fd, f"creating map {name or '(unnamed)'} ({kind.name.lower()}, {max_entries} entries)")
    return fd


def map_freeze(fd: int) -> None:
    """From now on only programs can write to the map."""
    result = Attributes(_ONE, fd).call(Command.MAP_FREEZE)
    if result < 0:
        raise failure(-result, f"freezing {describe(fd)}")


def program_load(
    kind: ProgramType,
    instructions: bytes,
    name: str = "",
    license_: str = "GPL",
    log_size: int = 0,
    attach_type: int = 0,
) -> int:
    """Loads bare instructions. With `log_size` the error carries the verifier's words in ``log``."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    text = ctypes.create_string_buffer(license_.encode())
    log = ctypes.create_string_buffer(log_size) if log_size else None
    attributes = Attributes(
        _LOAD_PROGRAM,
        kind,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(text),
        1 if log else 0,
        log_size,
        ctypes.addressof(log) if log else 0,
        0,
        0,
        name.encode()[:15],
        0,
        attach_type,
    )
    fd = attributes.call(Command.PROG_LOAD)
    if fd < 0:
        error = failure(-fd, f"loading program {name or '(unnamed)'} ({kind.name.lower()})")
        if log:
            error.add_note(log.value.decode(errors="replace"))
        raise error
    return fd


def pin(fd: int, path: Path) -> None:
    """Gives the object a name in a bpffs, where it lives on without us."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    result = Attributes(_PIN, ctypes.addressof(text), fd, 0).call(Command.OBJ_PIN)
    if result < 0:
        hints = {
            errno.EEXIST: "the name is taken",
            errno.EPERM: "its directory must be in a bpffs (and the process root, or CAP_BPF)",
            errno.ENOENT: "its directory does not exist",
        }
        raise failure(-result, f"pinning {describe(fd)} at {path}", hints.get(-result, ""))


def pinned(path: Path) -> int:
    """A file descriptor of the object pinned there. Raises `NotFound`."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    fd = Attributes(_PIN, ctypes.addressof(text), 0, 0).call(Command.OBJ_GET)
    if fd < 0:
        hints = {errno.EPERM: "it is no file of a bpffs, or the process lacks CAP_BPF"}
        raise failure(-fd, f"opening the pin {path}", hints.get(-fd, ""))
    return fd


def by_id(command: Command, number: int) -> int:
    """A file descriptor for an id; `command` is one of the GET_FD_BY_ID. Raises `NotFound`."""
    fd = Attributes(_BY_ID, number, 0, 0).call(command)
    if fd < 0:
        raise failure(-fd, f"{command.name.split('_')[0].lower()} with id {number}")
    return fd


@dataclass(frozen=True, slots=True)
class MapInfo:
    kind: int  # a `MapType`, or one that is newer than this code
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    extra: int
    btf_id: int  # 0: it was created without types
    btf_key: int  # numbers of types in that BTF
    btf_value: int

    @property
    def kind_name(self) -> str:
        known = MapType._value2member_map_.get(self.kind)
        return str(known.name).lower() if known else f"type {self.kind}"


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    kind: int
    id: int
    tag: str  # a hash of its instructions
    name: str
    translated_size: int  # bytes of instructions after the verifier's rewriting
    native_size: int  # bytes of machine code
    verified_instructions: int  # how many steps the verifier took
    btf_id: int  # of its functions' types; 0: it has none
    run_time: int  # ns, while `enable_run_time_stats` was on
    run_count: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    kind: int
    id: int
    program_id: int
    ifindex: int  # tcx, xdp, netkit; 0 when the interface is gone
    attach_type: int  # tcx, netkit, cgroup
    cgroup_id: int  # 0 when the group is gone

    @property
    def is_attached(self) -> bool:
        return bool(self.ifindex or self.cgroup_id)


def _info(fd: int, size: int, given: bytes = b"") -> bytes:
    answer = ctypes.create_string_buffer(given, size)
    result = Attributes(_INFO, fd, size, ctypes.addressof(answer)).call(Command.OBJ_GET_INFO_BY_FD)
    if result < 0:
        raise failure(-result, f"asking about file descriptor {fd}")
    return answer.raw


_MAP_INFO = struct.Struct("=IIIIII16s24xIII4xQ")
_BTF_INFO = struct.Struct("=QII")
_PROGRAM_INFO = struct.Struct("=II8sII40x16s48xI60xQQ8xI12x")
_LINK_INFO = struct.Struct("=III4xQII")
_LINK_DEVICE = struct.Struct("=II")


def map_info(fd: int) -> MapInfo:
    kind, number, key, value, entries, flags, name, *types, extra = _MAP_INFO.unpack(
        _info(fd, _MAP_INFO.size)
    )
    return MapInfo(kind, number, key, value, entries, flags, _name(name), extra, *types)


def btf_section(number: int) -> bytes:
    """The BTF that the kernel holds under an id, as the section ``.BTF`` of the object was."""
    fd = by_id(Command.BTF_GET_FD_BY_ID, number)
    try:
        size = _BTF_INFO.unpack(_info(fd, _BTF_INFO.size))[1]
        section = ctypes.create_string_buffer(size)
        _info(fd, _BTF_INFO.size, _BTF_INFO.pack(ctypes.addressof(section), size, 0))
        return section.raw
    finally:
        os.close(fd)


def program_info(fd: int) -> ProgramInfo:
    kind, number, tag, native, translated, name, btf, time, count, steps = _PROGRAM_INFO.unpack(
        _info(fd, _PROGRAM_INFO.size)
    )
    return ProgramInfo(kind, number, tag.hex(), _name(name), translated, native, steps, btf, time, count)


@dataclass(frozen=True, slots=True)
class ProgramFunctions:
    """Where the functions of a loaded program are; empty where it was loaded without types."""

    functions: list[tuple[int, int]]  # first instruction, type in the program's BTF
    native_sizes: list[int]  # bytes of machine code; empty without a JIT, or for one function only


_FUNCTION_COUNTS = struct.Struct("=104x4xI20xI8xI84x")
_FUNCTION_REQUEST = struct.Struct("=104x4xI8xQ4xIQI84x")


def program_functions(fd: int) -> ProgramFunctions:
    native, size, count = _FUNCTION_COUNTS.unpack(_info(fd, _FUNCTION_COUNTS.size))
    functions = ctypes.create_string_buffer(max(1, size * count))
    lengths = (ctypes.c_uint32 * max(1, native))()
    _info(
        fd,
        _FUNCTION_REQUEST.size,
        _FUNCTION_REQUEST.pack(native, ctypes.addressof(lengths), size, ctypes.addressof(functions), count),
    )
    return ProgramFunctions(
        [struct.unpack_from("=II", functions, at * size) for at in range(count)], list(lengths[:native])
    )


def link_info(fd: int) -> LinkInfo:
    raw = _info(fd, 64)
    kind, number, program, cgroup, cgroup_attach, _ = _LINK_INFO.unpack_from(raw)
    if kind == LinkType.CGROUP:
        return LinkInfo(kind, number, program, 0, cgroup_attach, cgroup)
    ifindex, attach = _LINK_DEVICE.unpack_from(raw, 16)
    if kind == LinkType.XDP:
        return LinkInfo(kind, number, program, ifindex, AttachType.XDP, 0)
    if kind in (LinkType.TCX, LinkType.NETKIT):
        return LinkInfo(kind, number, program, ifindex, attach, 0)
    return LinkInfo(kind, number, program, 0, 0, 0)


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def wait_for_programs() -> None:
    """Returns when every program has ended that ran when it was called (membarrier(2): it waits for a grace
    period of RCU, within which programs run)."""
    if _syscall(_MEMBARRIER, _GLOBAL, None, 0) < 0:
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):  # not in this kernel, or not with nohz_full
            raise failure(number, "waiting for programs to end")
        time.sleep(_LONGEST_RUN)


def is_map(fd: int) -> bool:
    return _target(fd).endswith("bpf-map")


def is_link(fd: int) -> bool:
    """The kernel writes it in one way for a new link, and in another for one opened by its pin."""
    return _target(fd).endswith(("bpf_link", "bpf-link"))


def _target(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def describe(fd: int) -> str:
    """What a file descriptor is, for messages: ``map policies (lpm_trie, 262144 entries)``."""
    try:
        target = _target(fd)
        if "bpf-map" in target:
            info = map_info(fd)
            return f"map {info.name or info.id} ({info.kind_name}, {info.max_entries} entries)"
        if "bpf-prog" in target:
            program = program_info(fd)
            return f"program {program.name or program.id} (id {program.id})"
        if is_link(fd):
            return f"link {link_info(fd).id}"
    except OSError:
        pass
    return f"file descriptor {fd}"


def link_create(
    program: int, target: int, attach_type: AttachType, flags: int = 0, relative: int = 0, revision: int = 0
) -> int:
    """Attaches a program for as long as the link lives.

    `target` is an ifindex of the caller's network namespace for tcx, a cgroup's file descriptor for the
    cgroup kinds. For tcx, `flags` (`LinkFlag`) and `relative` say before or after whom, and a `revision`
    that is not 0 must be the one that `query` saw.
    """
    fd = Attributes(_CREATE_LINK, program, target, attach_type, flags, relative, 0, revision).call(
        Command.LINK_CREATE
    )
    if fd < 0:
        hints = {
            errno.ENODEV: f"no interface {target} in this network namespace",
            errno.EINVAL: "does this kernel know that attach point, and is the program of its kind?",
            errno.EEXIST: "the same program is there already, by another link",
            errno.ESTALE: "the programs there have changed meanwhile",
        }
        raise failure(
            -fd,
            f"attaching {describe(program)} to {attach_type.name.lower()} of {target}",
            hints.get(-fd, ""),
        )
    return fd


def iterate(program: int, table: int) -> bytes:
    """Runs a program for each element of a map; all that it has written."""
    over = ctypes.create_string_buffer(_ITERATED_MAP.pack(table))
    doing = f"going through {describe(table)} with {describe(program)}"
    link = Attributes(
        _CREATE_ITERATOR, program, 0, AttachType.TRACE_ITER, 0, ctypes.addressof(over), _ITERATED_MAP.size
    ).call(Command.LINK_CREATE)
    if link < 0:
        raise failure(-link, doing)
    try:
        reader = Attributes(_OPEN_ITERATOR, link, 0).call(Command.ITER_CREATE)
    finally:
        os.close(link)
    if reader < 0:
        raise failure(-reader, doing)
    with open(reader, "rb", buffering=0) as file:
        return file.readall()


def link_update(link: int, program: int) -> None:
    """Replaces the link's program; no packet goes by without one of the two."""
    result = Attributes(_UPDATE_LINK, link, program, 0, 0).call(Command.LINK_UPDATE)
    if result < 0:
        hint = "its interface is gone" if result == -errno.ENOLINK else ""
        raise failure(-result, f"putting {describe(program)} into {describe(link)}", hint)


def link_detach(link: int) -> None:
    """Detaches now, whoever else holds the link."""
    result = Attributes(_ONE, link).call(Command.LINK_DETACH)
    if result < 0:
        raise failure(-result, f"detaching {describe(link)}")


@dataclass(frozen=True, slots=True)
class Attached:
    """One program at an attach point; `link_id` is 0 when it was attached without a link."""

    program_id: int
    link_id: int


def query(target: int, attach_type: AttachType, room: int = 64) -> Sequence[Attached]:
    """Who is attached there, in the order in which they run."""
    programs, links = (ctypes.c_uint32 * room)(), (ctypes.c_uint32 * room)()
    attributes = Attributes(
        _QUERY,
        target,
        attach_type,
        0,
        0,
        ctypes.addressof(programs),
        room,
        0,
        ctypes.addressof(links),
        0,
        0,
    )
    result = attributes.call(Command.PROG_QUERY)
    count = attributes.word(24)
    if result == -errno.ENOSPC:
        return query(target, attach_type, count)
    if result < 0:
        hints = {
            errno.ENODEV: f"no interface {target} in this network namespace",
            errno.EINVAL: "this kernel does not know that attach point",
        }
        raise failure(-result, f"listing {attach_type.name.lower()} of {target}", hints.get(-result, ""))
    return [Attached(programs[at], links[at]) for at in range(count)]


def enable_run_time_stats() -> int:
    """Counts and times every program run until the returned file descriptor is closed; it costs."""
    fd = Attributes(_ONE, 0).call(Command.ENABLE_STATS)
    if fd < 0:
        raise failure(-fd, "switching on run-time statistics")
    return fd
