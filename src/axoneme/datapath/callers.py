"""Who has called which backend: what the sockets of this machine have in `calls`.

Such a map has no list of its elements for user space; a program of the kernel's goes through it (Linux 5.9),
and costs nothing until it is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath import bpf
from axoneme.datapath.libbpf import Object
from axoneme.datapath.schema import OBJECTS


class Callers:
    """The program, loaded; to be closed."""

    def __init__(self, source: Object, record: np.dtype[np.void]) -> None:
        self._source = source
        self._record = record

    @classmethod
    def load(cls, folder: Path = OBJECTS) -> Self:
        """`axoneme.datapath.libbpf.LoadError` when the kernel refuses it: it must have its own types with it
        (CONFIG_DEBUG_INFO_BTF)."""
        source = Object.open(folder / "callers.o")
        try:
            source.load()
        except BaseException:
            source.close()
            raise
        return cls(source, source.btf.struct("caller"))

    def of(self, calls: int) -> npt.NDArray[Any]:
        """A ``struct caller`` for each socket that has called; `calls` is a file descriptor of that map."""
        return np.frombuffer(bpf.iterate(self._source.program_fd("list_callers"), calls), self._record)

    def close(self) -> None:
        self._source.close()
