"""The schema: layouts and numbers that programs and control plane share, by their C names.

They are read from the types inside the objects that the package ships, so a change in ``tables.h`` is a
change here, without a second hand. The flow server and the agent need no more than this to understand
what the kernel holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import numpy as np

from axoneme.datapath.btf import Btf, BtfError

#: Where the build puts the compiled objects. (importlib.resources would cost 9 ms to import.)
OBJECTS: Final = Path(__file__).with_name("objects")


class SchemaError(ValueError):
    """The objects contradict each other, or there are none."""


class Schema:
    """Structs and enums of a set of objects that were built together."""

    def __init__(self, objects: Iterable[tuple[str, Btf]]) -> None:
        """Raises `SchemaError` when two objects have different layouts or numbers under one name."""
        self._structs: dict[str, np.dtype[np.void]] = {}
        enums: dict[str, Mapping[str, int]] = {}
        self._origin: dict[str, str] = {}
        for origin, btf in objects:
            for name in btf.struct_names:
                try:
                    dtype = btf.struct(name)
                except BtfError:
                    continue  # the kernel's own have bitfields; ours have not
                self._agree(name, origin, self._structs.setdefault(name, dtype), dtype)
            for name, numbers in btf.enums.items():
                self._agree(name, origin, enums.setdefault(name, numbers), numbers)
        #: Enums by name; each from enumerator to number.
        self.enums: Mapping[str, Mapping[str, int]] = MappingProxyType(enums)

    @classmethod
    def load(cls, folder: Path = OBJECTS) -> Self:
        """From the objects in this package."""
        found = sorted(folder.glob("*.o"))
        if not found:
            raise SchemaError(
                f"{folder} holds no compiled objects; build them (make bpf), or install a wheel"
            )
        return cls((item.name, Btf.of_object(item.read_bytes(), item.name)) for item in found)

    def struct(self, name: str) -> np.dtype[np.void]:
        """The dtype of ``struct name``."""
        try:
            return self._structs[name]
        except KeyError:
            raise KeyError(
                f"no struct {name!r} in the schema; it has {', '.join(sorted(self._structs))}"
            ) from None

    def fingerprint(self, names: Iterable[str]) -> str:
        """The same for the same layouts of these structs, and for others another."""
        text = "\n".join(f"{name} {_spelt(self.struct(name))}" for name in names)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def enum(self, name: str) -> Mapping[str, int]:
        """The enumerators of ``enum name``."""
        try:
            return self.enums[name]
        except KeyError:
            raise KeyError(
                f"no enum {name!r} in the schema; it has {', '.join(sorted(self.enums))}"
            ) from None

    def _agree(self, name: str, origin: str, first: object, other: object) -> None:
        if first != other:
            raise SchemaError(
                f"{name!r} is {first} in {self._origin[name]} but {other} in {origin}: "
                "the objects were not built together"
            )
        self._origin.setdefault(name, origin)


def _spelt(dtype: np.dtype[np.void]) -> str:
    """With the places of all fields, which numpy's own words leave out where nothing is between them."""
    if dtype.fields is None:
        return str(dtype)
    fields = (f"{name}@{entry[1]}:{_spelt(entry[0])}" for name, entry in dtype.fields.items())
    return f"{{{' '.join(fields)}}}/{dtype.itemsize}"
