"""The little of ELF that a compiled BPF object needs: its sections and its symbols.

ELF64 in the byte order of this machine, as clang writes it for ``-target bpf``
(https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html). Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
import sys
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

_EM_BPF: Final = 247
_SHT_SYMTAB: Final = 2
_SHT_NOBITS: Final = 8
_STT_OBJECT: Final = 1
_LARGEST_BSS: Final = 1 << 26
_DATA_ENCODING: Final = 1 if sys.byteorder == "little" else 2

_HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("=IIQQQQIIQQ")
_SYMBOL = struct.Struct("=IBBHQQ")


class ElfError(ValueError):
    """These bytes are not an object file that can be loaded here."""


class Section(NamedTuple):
    name: str
    kind: int
    data: bytes  # zeros for .bss
    link: int


class Variable(NamedTuple):
    """A data symbol: where it lies in its section."""

    section: str
    offset: int
    size: int


class Elf:
    """The sections and variables of one object file."""

    def __init__(self, image: bytes, name: str = "object") -> None:
        self.name = name
        if image[:4] != b"\x7fELF":
            raise ElfError(f"{name}: not an ELF file (it begins with {image[:4]!r})")
        if len(image) < _HEADER.size or image[4] != 2 or image[5] != _DATA_ENCODING:
            raise ElfError(f"{name}: not ELF64 in this machine's byte order; compile it with -target bpf")
        header = _HEADER.unpack_from(image)
        machine, table, size, count, names = header[2], header[6], header[11], header[12], header[13]
        if machine != _EM_BPF:
            raise ElfError(f"{name}: compiled for machine {machine}, not for BPF ({_EM_BPF})")
        try:
            rows = [_SECTION.unpack_from(image, table + index * size) for index in range(count)]
            strings = rows[names]
        except (struct.error, IndexError, OverflowError):
            raise ElfError(f"{name}: its section table is cut off") from None
        if any(row[1] == _SHT_NOBITS and row[5] > _LARGEST_BSS for row in rows):
            raise ElfError(f"{name}: a section without bytes is larger than {_LARGEST_BSS >> 20} MiB")
        name_table = image[strings[4] : strings[4] + strings[5]]
        self.sections = [
            Section(
                _text(name_table, row[0]),
                row[1],
                bytes(row[5]) if row[1] == _SHT_NOBITS else image[row[4] : row[4] + row[5]],
                row[6],
            )
            for row in rows
        ]

    def section(self, name: str) -> bytes | None:
        """The bytes of the first section of that name; None when there is none."""
        return next((section.data for section in self.sections if section.name == name), None)

    @cached_property
    def variables(self) -> MappingProxyType[str, Variable]:
        """Global and static variables by name. clang leaves their places out of BTF: they are here."""
        found: dict[str, Variable] = {}
        for table in self.sections:
            if table.kind != _SHT_SYMTAB:
                continue
            if table.link >= len(self.sections) or len(table.data) % _SYMBOL.size:
                raise ElfError(f"{self.name}: its symbol table is cut off")
            names = self.sections[table.link].data
            for name, info, _, index, value, size in _SYMBOL.iter_unpack(table.data):
                if info & 0xF == _STT_OBJECT and 0 < index < len(self.sections):
                    found[_text(names, name)] = Variable(self.sections[index].name, value, size)
        return MappingProxyType(found)


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    if end < 0:
        raise ElfError("a name stands beyond the table of names")
    return table[offset:end].decode(errors="backslashreplace")
