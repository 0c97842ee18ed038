"""BTF: the types of a compiled BPF object, as numpy dtypes.

Every struct that the kernel side and Python share is written once, in C. The compiler describes it
in the section ``.BTF`` (https://docs.kernel.org/bpf/btf.html), and this module turns the description
into dtypes with the same offsets and the same size. Pure: bytes in, values out.

How C becomes a dtype:

- Integers, ``bool``, floats and enums become numbers of their size; ``char`` and ``signed char``
  become int8, ``unsigned char`` uint8. Pointers become uint64.
- Typedefs are looked through, but for ``__be16``, ``__be32`` and ``__be64``: those become big-endian
  integers (``>u2`` ...), so that ``row["port"] = 80`` is right and ``row["port"] == 80`` too.
- An array becomes a subarray: ``__u8 address[16]`` is ``(u1, (16,))``.
- A struct becomes a structured dtype. Its holes stay holes. Members that are themselves structs
  nest; the members of an anonymous struct or union stand in the one around it, as they do in C.
- The members of a union are fields that overlap: all begin at the same offset.
- A bitfield has no dtype: asking for its struct raises `BtfError`.
"""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from axoneme.datapath.elf import Elf, ElfError

_MAGIC: Final = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_WORD = struct.Struct("=I")
_ARRAY = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_ENUM = struct.Struct("=Ii")
_ENUM_UNSIGNED = struct.Struct("=II")
_ENUM64 = struct.Struct("=III")
_SECTION_VARIABLE = struct.Struct("=III")


class _Kind(enum.IntEnum):
    VOID = 0
    INT = 1
    POINTER = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FORWARD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNCTION = 12
    PROTOTYPE = 13
    VARIABLE = 14
    DATA_SECTION = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_COMPOUND: Final = (_Kind.STRUCT, _Kind.UNION)
_TRANSPARENT: Final = (_Kind.TYPEDEF, _Kind.VOLATILE, _Kind.CONST, _Kind.RESTRICT, _Kind.TYPE_TAG)
#: Bytes that follow a type's head: so many for each of its `length`, or so many in all.
_TAIL_EACH: Final[Mapping[int, int]] = {
    _Kind.STRUCT: 12,
    _Kind.UNION: 12,
    _Kind.ENUM: 8,
    _Kind.PROTOTYPE: 8,
    _Kind.DATA_SECTION: 12,
    _Kind.ENUM64: 12,
}
_TAIL_FIXED: Final[Mapping[int, int]] = {_Kind.INT: 4, _Kind.ARRAY: 12, _Kind.VARIABLE: 4, _Kind.DECL_TAG: 4}

AnyDtype = np.dtype[Any]

_NETWORK_ORDER: Final[Mapping[str, AnyDtype]] = {
    "__be16": np.dtype(">u2"),
    "__be32": np.dtype(">u4"),
    "__be64": np.dtype(">u8"),
}


class BtfError(ValueError):
    """The types are damaged, or one of them has no counterpart in numpy."""


class _Type(NamedTuple):
    name: str
    kind: int
    length: int  # of members, enumerators, parameters or variables
    flag: bool  # structs: bitfield offsets; enums: signed
    refers: int  # a type's number, or a size, as the kind has it
    tail: int  # where its members are


class _Member(NamedTuple):
    name: str
    type: int
    bit_offset: int
    bits: int  # of a bitfield; 0: a plain member


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable of the program: a place in one of its data sections."""

    name: str
    section: str  # ".rodata", ".bss", ".data"
    offset: int
    dtype: AnyDtype

    @property
    def size(self) -> int:
        return self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class MapTypes:
    """Key and value of a map; None where it has none, or its definition gives a bare size."""

    key: AnyDtype | None
    value: AnyDtype | None


class Btf:
    """The types of one object. Dtypes are made when asked for, and remembered."""

    def __init__(self, section: bytes, name: str = "object", elf: Elf | None = None) -> None:
        """`section` is the content of ``.BTF``; `elf` gives the places of variables."""
        self._name = name
        self._elf = elf
        self._data, self._types = _parse(section, name)
        self._dtypes: dict[int, AnyDtype] = {}
        self._by_name: dict[tuple[int, str], int] = {}
        for number, found in enumerate(self._types):
            if found.name:
                kind = _Kind.ENUM if found.kind == _Kind.ENUM64 else found.kind
                self._by_name.setdefault((kind, found.name), number)

    @classmethod
    def of_object(cls, image: bytes, name: str = "object") -> Btf:
        """From the bytes of an object file. Raises `BtfError` when it was compiled without ``-g``."""
        elf = Elf(image, name)
        section = elf.section(".BTF")
        if section is None:
            raise BtfError(f"{name}: has no section .BTF; compile it with -g")
        return cls(section, name, elf)

    @property
    def struct_names(self) -> list[str]:
        """Names of the structs and unions that have a body."""
        return [name for kind, name in self._by_name if kind in _COMPOUND]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Numbers that lead nowhere, or round in circles, are the object's fault."""
        try:
            yield
        except (BtfError, ElfError):
            raise
        except (struct.error, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BtfError(f"{self._name}: its BTF is damaged: {error}") from error

    def struct(self, name: str) -> np.dtype[np.void]:
        """The dtype of ``struct name`` (or union, or a typedef of one). KeyError when there is none."""
        with self._reading():
            return self._struct(name)

    def _struct(self, name: str) -> np.dtype[np.void]:
        for kind in (*_COMPOUND, _Kind.TYPEDEF):
            number = self._by_name.get((kind, name))
            if number is not None and self._types[self._resolve(number)].kind in _COMPOUND:
                found = self._dtype(number)
                assert found.type is np.void
                return found
        raise KeyError(f"{self._name}: no struct {name!r} in its BTF; does a map or a function use it?")

    def type(self, number: int) -> AnyDtype:
        """The dtype of a type by its number, as the kernel names types."""
        if not 0 < number < len(self._types):
            raise BtfError(f"{self._name}: has no type {number}")
        with self._reading():
            return self._dtype(number)

    def name(self, number: int) -> str:
        """The name of a type, or of a function, by its number; empty when it has none."""
        if not 0 < number < len(self._types):
            raise BtfError(f"{self._name}: has no type {number}")
        return self._types[number].name

    @cached_property
    def enums(self) -> Mapping[str, Mapping[str, int]]:
        """Named enums: each a mapping from enumerator to number."""
        with self._reading():
            return MappingProxyType(
                {
                    name: MappingProxyType(dict(self._enumerators(self._types[number])))
                    for (kind, name), number in self._by_name.items()
                    if kind == _Kind.ENUM
                }
            )

    @cached_property
    def variables(self) -> Mapping[str, Variable]:
        """Variables of ``.rodata``, ``.data`` and ``.bss``, by name."""
        with self._reading():
            return self._variables()

    @cached_property
    def maps(self) -> Mapping[str, MapTypes]:
        """Types of the maps in ``.maps``, by name."""
        with self._reading():
            return self._maps()

    def _variables(self) -> Mapping[str, Variable]:
        found: dict[str, Variable] = {}
        for section in self._types:
            if section.kind != _Kind.DATA_SECTION or not section.name.startswith(
                (".rodata", ".data", ".bss")
            ):
                continue
            for at in range(section.length):
                number, offset, _ = _SECTION_VARIABLE.unpack_from(self._data, section.tail + 12 * at)
                variable = self._types[number]
                symbol = self._elf.variables.get(variable.name) if self._elf else None
                place = symbol.offset if symbol else offset
                found[variable.name] = Variable(
                    variable.name, section.name, place, self._dtype(variable.refers)
                )
        return MappingProxyType(found)

    def _maps(self) -> Mapping[str, MapTypes]:
        number = self._by_name.get((_Kind.DATA_SECTION, ".maps"))
        if number is None:
            return MappingProxyType({})
        section = self._types[number]
        found: dict[str, MapTypes] = {}
        for at in range(section.length):
            (index,) = _WORD.unpack_from(self._data, section.tail + 12 * at)
            variable = self._types[index]
            body = self._types[self._resolve(variable.refers)]
            members = {member.name: member.type for member in self._members(body)}
            found[variable.name] = MapTypes(
                *(self._pointee(members[side]) if side in members else None for side in ("key", "value"))
            )
        return MappingProxyType(found)

    def _pointee(self, number: int) -> AnyDtype:
        return self._dtype(self._types[self._resolve(number)].refers)

    def _resolve(self, number: int) -> int:
        """Through typedefs and qualifiers to the type itself."""
        for _ in self._types:
            if self._types[number].kind not in _TRANSPARENT:
                return number
            number = self._types[number].refers
        raise BtfError(f"{self._name}: type {number} stands for itself")

    def _dtype(self, number: int) -> AnyDtype:
        known = self._dtypes.get(number)
        if known is None:
            known = self._dtypes[number] = self._make(number)
        return known

    def _make(self, number: int) -> AnyDtype:
        found = self._types[number]
        if found.kind == _Kind.TYPEDEF and found.name in _NETWORK_ORDER:
            return _NETWORK_ORDER[found.name]
        if found.kind in _TRANSPARENT:
            return self._dtype(found.refers)
        match found.kind:
            case _Kind.INT:
                (encoding,) = _WORD.unpack_from(self._data, found.tail)
                return np.dtype(f"{'i' if encoding >> 24 & 1 else 'u'}{found.refers}")
            case _Kind.ENUM | _Kind.ENUM64:
                return np.dtype(f"{'i' if found.flag else 'u'}{found.refers}")
            case _Kind.FLOAT:
                return np.dtype(f"f{found.refers}")
            case _Kind.POINTER:
                return np.dtype("u8")
            case _Kind.ARRAY:
                element, _, length = _ARRAY.unpack_from(self._data, found.tail)
                inner = self._dtype(element)
                base, shape = inner.subdtype or (inner, ())
                array: AnyDtype = np.dtype((base, (length, *shape)))
                return array
            case _Kind.STRUCT | _Kind.UNION:
                return self._make_struct(found)
        raise BtfError(f"{self._name}: a {_Kind(found.kind).name.lower()} {found.name!r} has no dtype")

    def _make_struct(self, found: _Type) -> np.dtype[np.void]:
        names: list[str] = []
        formats: list[AnyDtype] = []
        offsets: list[int] = []
        for name, dtype, offset in self._fields(found, 0):
            names.append(name)
            formats.append(dtype)
            offsets.append(offset)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": found.refers})

    def _fields(self, found: _Type, base: int) -> Iterator[tuple[str, AnyDtype, int]]:
        for member in self._members(found):
            inner = self._types[self._resolve(member.type)]
            if member.bits:
                raise BtfError(
                    f"{self._name}: member {member.name!r} of struct {found.name or '(anonymous)'} is a "
                    f"bitfield of {member.bits} bits, which has no dtype; use a whole integer and masks"
                )
            offset = base + member.bit_offset // 8
            if member.name:
                yield member.name, self._dtype(member.type), offset
            elif inner.kind in _COMPOUND:
                yield from self._fields(inner, offset)

    def _members(self, found: _Type) -> Iterator[_Member]:
        for at in range(found.length):
            name, number, place = _MEMBER.unpack_from(self._data, found.tail + 12 * at)
            bits = place >> 24 if found.flag else 0
            yield _Member(self._string(name), number, place & 0xFFFFFF if found.flag else place, bits)

    def _enumerators(self, found: _Type) -> Iterator[tuple[str, int]]:
        if found.kind == _Kind.ENUM and found.refers > 4:
            # clang does this when the enum's base is a typedef.
            raise BtfError(
                f"{self._name}: of the {found.refers * 8} bits of enum {found.name or '(anonymous)'} the "
                "compiler kept 32; write its base as a plain type, such as unsigned long long"
            )
        for at in range(found.length):
            if found.kind == _Kind.ENUM64:
                name, low, high = _ENUM64.unpack_from(self._data, found.tail + 12 * at)
                value = high << 32 | low
                if found.flag and value >> 63:
                    value -= 1 << 64
            else:
                layout = _ENUM if found.flag else _ENUM_UNSIGNED
                name, value = layout.unpack_from(self._data, found.tail + 8 * at)
            yield self._string(name), value

    def _string(self, offset: int) -> str:
        return _string(self._data, self._strings, offset)

    @cached_property
    def _strings(self) -> int:
        return _strings_start(self._data)


def _strings_start(section: bytes) -> int:
    _, _, _, header, _, _, strings, _ = _HEADER.unpack_from(section)
    return int(header + strings)


def _string(section: bytes, strings: int, offset: int) -> str:
    start = strings + offset
    return section[start : section.index(b"\0", start)].decode(errors="backslashreplace")


def _parse(section: bytes, name: str) -> tuple[bytes, list[_Type]]:
    """The heads of all types; number 0 is void."""
    if len(section) < _HEADER.size:
        raise BtfError(f"{name}: its BTF is {len(section)} bytes, less than a header")
    magic, version, _, header, start, length, _, _ = _HEADER.unpack_from(section)
    if magic != _MAGIC or version != 1:
        order = "the other" if magic == 0x9FEB else "no known"
        raise BtfError(
            f"{name}: BTF of {order} byte order or version (this machine is {sys.byteorder}-endian)"
        )
    strings = _strings_start(section)
    types = [_Type("void", _Kind.VOID, 0, False, 0, 0)]
    at, end = header + start, header + start + length
    try:
        while at < end:
            name_at, info, refers = _TYPE.unpack_from(section, at)
            at += _TYPE.size
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind > _Kind.ENUM64:
                raise BtfError(
                    f"{name}: type {len(types)} is of kind {kind}, which is newer than this reader"
                )
            types.append(_Type(_string(section, strings, name_at), kind, count, bool(info >> 31), refers, at))
            at += count * _TAIL_EACH[kind] if kind in _TAIL_EACH else _TAIL_FIXED.get(kind, 0)
    except (struct.error, ValueError) as error:
        raise error if isinstance(error, BtfError) else BtfError(f"{name}: its BTF is cut off") from None
    return section, types
