"""Compiled objects: ELF, and the types in them."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.datapath.btf import Btf, BtfError
from axoneme.datapath.elf import ElfError
from axoneme.datapath.schema import OBJECTS
from fuzz.target import Target, says_why


def _images() -> Iterable[bytes]:
    images = [path.read_bytes() for path in OBJECTS.glob("*.o")]
    yield min(images, key=len)


def _sections() -> Iterable[bytes]:
    for image in _images():
        section = Btf.of_object(image)._data
        yield section


def _use(types: Btf) -> None:
    """All that anybody asks of types."""
    for ask in (
        lambda: [types.struct(name) for name in types.struct_names],
        lambda: types.enums,
        lambda: types.variables,
        lambda: types.maps,
        lambda: [types.type(number) for number in range(1, 50)],
    ):
        try:
            ask()
        except (BtfError, ElfError) as error:
            says_why(error)


def check_object(data: bytes) -> None:
    try:
        types = Btf.of_object(data)
    except (BtfError, ElfError) as error:
        says_why(error)
        return
    _use(types)


def check_btf(data: bytes) -> None:
    try:
        types = Btf(data)
    except BtfError as error:
        says_why(error)
        return
    _use(types)


TARGETS = [
    Target("elf", check_object, _images, longest=1 << 18),
    Target("btf", check_btf, _sections, longest=1 << 17),
]
