"""Loading compiled BPF objects, through the distribution's libbpf.

The binding is small: libbpf relocates, creates maps and loads programs; all that comes after (elements,
links, test runs) goes to the kernel directly. An `Object` is configured between its opening and its
loading::

    with Object.open(path) as endpoint:
        endpoint.set_constants(overlay_ifindex=7, masquerade=1)
        endpoint.set_max_entries("flows", 131072)
        endpoint.use("flows", flows_fd)  # a map that is there already
        endpoint.load()
        bpf.pin(endpoint.program_fd("from_pod"), ...)

libbpf prints nothing: what it says while an object loads goes into the error, if there is one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from axoneme.datapath import bpf, sharing
from axoneme.datapath.btf import Btf, MapTypes
from axoneme.datapath.verifier import Diagnosis, diagnose

_LIBRARY: Final = "libbpf.so.1"
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_WARNINGS: Final = 0
_LOG_STATISTICS: Final = 4  # BPF_LOG_STATS
_STATISTICS_ROOM: Final = 4096

_said = threading.local()


class LoadError(bpf.BpfError):
    """An object could not be opened or loaded. `diagnosis` has the verifier's whole log."""

    diagnosis: Diagnosis


class _OpenOptions(ctypes.Structure):
    """The head of ``struct bpf_object_open_opts``; libbpf sees from `size` where we stop."""

    _fields_ = (("size", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


@cache
def library() -> ctypes.CDLL:
    """The shared library, loaded when first needed, with the types of the functions in use."""
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise OSError(
            errno.ENOENT, f"cannot load {_LIBRARY} ({error}); install libbpf 1.x (Debian: libbpf1)"
        ) from None
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    signatures: dict[str, tuple[object, tuple[object, ...]]] = {
        "bpf_object__open_mem": (pointer, (text, size, ctypes.POINTER(_OpenOptions))),
        "bpf_object__load": (number, (pointer,)),
        "bpf_object__close": (None, (pointer,)),
        "bpf_object__next_map": (pointer, (pointer, pointer)),
        "bpf_object__next_program": (pointer, (pointer, pointer)),
        "bpf_object__find_map_by_name": (pointer, (pointer, text)),
        "bpf_map__name": (text, (pointer,)),
        "bpf_map__fd": (number, (pointer,)),
        "bpf_map__type": (ctypes.c_uint, (pointer,)),
        "bpf_map__key_size": (ctypes.c_uint, (pointer,)),
        "bpf_map__value_size": (ctypes.c_uint, (pointer,)),
        "bpf_map__max_entries": (ctypes.c_uint, (pointer,)),
        "bpf_map__map_flags": (ctypes.c_uint, (pointer,)),
        "bpf_map__set_max_entries": (number, (pointer, ctypes.c_uint)),
        "bpf_map__reuse_fd": (number, (pointer, number)),
        "bpf_map__set_autocreate": (number, (pointer, ctypes.c_bool)),
        "bpf_map__is_internal": (ctypes.c_bool, (pointer,)),
        "bpf_map__initial_value": (pointer, (pointer, ctypes.POINTER(size))),
        "bpf_program__name": (text, (pointer,)),
        "bpf_program__fd": (number, (pointer,)),
        "bpf_program__set_autoload": (number, (pointer, ctypes.c_bool)),
        "bpf_program__set_log_level": (number, (pointer, ctypes.c_uint)),
        "bpf_program__set_log_buf": (number, (pointer, pointer, size)),
        "bpf_program__insns": (pointer, (pointer,)),
        "bpf_program__insn_cnt": (size, (pointer,)),
        "bpf_tc_hook_create": (number, (pointer,)),
        "bpf_tc_attach": (number, (pointer, pointer)),
        "bpf_tc_detach": (number, (pointer, pointer)),
        "bpf_tc_query": (number, (pointer, pointer)),
        "libbpf_set_print": (pointer, (_PRINT,)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_listener)
    return library


_libc: Final = ctypes.CDLL(None)
_libc.vasprintf.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_void_p)
_libc.free.argtypes = (ctypes.c_void_p,)


def _listen(level: int, form: int | None, arguments: int | None) -> int:
    """libbpf's printf. `arguments` is a va_list, which every Linux ABI passes as a pointer."""
    heard: list[str] | None = getattr(_said, "lines", None)
    if level != _WARNINGS or heard is None:
        return 0
    text = ctypes.c_void_p()
    if _libc.vasprintf(ctypes.byref(text), form, arguments) >= 0:
        heard.append(ctypes.string_at(text.value or 0).decode(errors="replace"))
        _libc.free(text)
    return 0


_listener = _PRINT(_listen)  # libbpf keeps the pointer, so the object must live as long


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What libbpf says in this thread."""
    heard: list[str] = []
    _said.lines = heard
    try:
        yield heard
    finally:
        del _said.lines


class Object:
    """A compiled object: opened, configured, then loaded. Closing it closes its file descriptors;
    what is pinned or attached stays in the kernel."""

    def __init__(self, image: bytes, name: str) -> None:
        self.name = name
        self._image = image
        self._library = library()
        self._loaded = False
        self._logs: dict[str, ctypes.Array[ctypes.c_char]] = {}
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
        with _listening() as heard:
            handle: int | None = self._library.bpf_object__open_mem(image, len(image), ctypes.byref(options))
            number = ctypes.get_errno()
        if not handle:
            raise _load_error(number, f"opening object {name}", heard)
        self._handle: int | None = handle
        self._maps = dict(self._each("map"))
        self._programs = dict(self._each("program"))

    @classmethod
    def open(cls, path: Path) -> Self:
        return cls(path.read_bytes(), path.name.removesuffix(".o").removesuffix(".bpf"))

    def _each(self, what: str) -> Iterator[tuple[str, int]]:
        follow = getattr(self._library, f"bpf_object__next_{what}")
        name = getattr(self._library, f"bpf_{what}__name")
        item: int | None = follow(self._handle, None)
        while item:
            yield name(item).decode(), item
            item = follow(self._handle, item)

    @cached_property
    def btf(self) -> Btf:
        """The types that the object was compiled with."""
        return Btf.of_object(self._image, self.name)

    @property
    def map_names(self) -> list[str]:
        """The maps of section ``.maps``; not those that hold its global variables."""
        return [name for name, item in self._maps.items() if not self._library.bpf_map__is_internal(item)]

    @property
    def program_names(self) -> list[str]:
        return list(self._programs)

    def declaration(self, name: str) -> sharing.Declaration:
        item, lib = self._map(name), self._library
        return sharing.Declaration(
            name,
            lib.bpf_map__type(item),
            lib.bpf_map__key_size(item),
            lib.bpf_map__value_size(item),
            lib.bpf_map__max_entries(item),
            lib.bpf_map__map_flags(item),
            self.btf.maps.get(name, MapTypes(None, None)),
        )

    def map_types(self, name: str) -> MapTypes:
        """Dtypes of a map's key and value."""
        self._map(name)
        return self.btf.maps[name]

    # ---- before loading

    def set_max_entries(self, name: str, entries: int) -> None:
        item = self._map(name)
        self._before_load()
        result = self._library.bpf_map__set_max_entries(item, entries)
        if result < 0:
            raise bpf.failure(-result, f"object {self.name}: setting max_entries of map {name} to {entries}")

    def set_constants(self, **values: npt.ArrayLike) -> None:
        """Gives ``const volatile`` variables (or others with a first value) what they hold at load.

        A value is what numpy can put into the variable's dtype: a number, a sequence for an array (bytes
        for one of bytes), a tuple or record for a struct. Raises KeyError for a name that the object does
        not have, ValueError for a value that does not fit.
        """
        self._before_load()
        for name, value in values.items():
            self._set_constant(name, value)

    def _set_constant(self, name: str, value: npt.ArrayLike) -> None:
        variable = self.btf.variables.get(name)
        if variable is None:
            known = ", ".join(sorted(self.btf.variables)) or "none"
            raise KeyError(f"object {self.name} has no variable {name!r}; it has {known}")
        cell = np.zeros((), variable.dtype)
        try:
            cell[...] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"object {self.name}: {value!r} does not fit into variable {name} ({variable.dtype}): {error}"
            ) from None
        size = ctypes.c_size_t()
        section = self._library.bpf_object__find_map_by_name(self._handle, variable.section.encode())
        memory = self._library.bpf_map__initial_value(section, ctypes.byref(size)) if section else None
        if not memory or variable.offset + variable.size > size.value:
            raise ValueError(
                f"object {self.name}: variable {name} lies outside its section {variable.section}"
            )
        ctypes.memmove(memory + variable.offset, cell.tobytes(), variable.size)

    def use(self, name: str, fd: int) -> None:
        """Has an existing map stand for this one, whatever it is; the file descriptor stays the caller's."""
        item = self._map(name)
        self._before_load()
        result = self._library.bpf_map__reuse_fd(item, fd)
        if result < 0:
            raise bpf.failure(-result, f"object {self.name}: using {bpf.describe(fd)} for map {name}")

    def omit(self, name: str) -> None:
        """Does without a map, which only code refers to that the constants make unreachable."""
        item = self._map(name)
        self._before_load()
        self._library.bpf_map__set_autocreate(item, False)

    def select(self, programs: Iterable[str]) -> None:
        """Only these programs are loaded; without a call of this, all are."""
        self._before_load()
        chosen = set(programs)
        for name in chosen:
            self._program(name)
        for name, item in self._programs.items():
            self._library.bpf_program__set_autoload(item, name in chosen)

    def keep_statistics(self) -> None:
        """Has the verifier say what each program took; see `verifier_log`. When it refuses one, its reasons
        are not in the error then: load the object again without this."""
        self._before_load()
        for name, item in self._programs.items():
            self._logs[name] = log = ctypes.create_string_buffer(_STATISTICS_ROOM)
            self._library.bpf_program__set_log_level(item, _LOG_STATISTICS)
            self._library.bpf_program__set_log_buf(item, ctypes.addressof(log), len(log))

    def load(self) -> None:
        """Creates the maps and has the kernel verify the programs. Raises `LoadError`.

        After an error the object is of no more use but to be closed.
        """
        self._before_load()
        self._loaded = True
        with _listening() as heard:
            result = self._library.bpf_object__load(self._handle)
        if result < 0:
            raise _load_error(-result, f"loading object {self.name}", heard)

    # ---- after loading

    def map_fd(self, name: str) -> int:
        """Lives as long as the object is open; os.dup it to keep it longer."""
        return self._after_load(self._library.bpf_map__fd(self._map(name)), f"map {name}")

    def program_fd(self, name: str) -> int:
        """Lives as long as the object is open; os.dup it to keep it longer."""
        return self._after_load(self._library.bpf_program__fd(self._program(name)), f"program {name}")

    def verifier_log(self, name: str) -> str:
        """What the verifier said of a program at load; empty without `keep_statistics`."""
        self._program(name)
        log = self._logs.get(name)
        return log.value.decode(errors="replace") if log else ""

    def instructions(self, name: str) -> bytes:
        """What the kernel was given for a program: relocated, with all functions that it calls."""
        item = self._program(name)
        count = self._library.bpf_program__insn_cnt(item)
        return ctypes.string_at(self._library.bpf_program__insns(item), 8 * count)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        self._maps, self._programs = {}, {}
        if handle:
            self._library.bpf_object__close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _map(self, name: str) -> int:
        return self._one(self._maps, "map", name)

    def _program(self, name: str) -> int:
        return self._one(self._programs, "program", name)

    def _one(self, items: Mapping[str, int], what: str, name: str) -> int:
        if self._handle is None:
            raise ValueError(f"object {self.name} is closed")
        if name not in items:
            raise KeyError(f"object {self.name} has no {what} {name!r}; it has {', '.join(items) or 'none'}")
        return items[name]

    def _before_load(self) -> None:
        if self._handle is None or self._loaded:
            raise ValueError(f"object {self.name} is {'loaded already' if self._handle else 'closed'}")

    def _after_load(self, fd: int, what: str) -> int:
        if fd < 0:
            raise ValueError(f"{what} of object {self.name} is not loaded")
        return fd


def _load_error(number: int, doing: str, heard: list[str]) -> LoadError:
    diagnosis = diagnose(heard)
    if diagnosis.subject:
        doing += f": {diagnosis.subject}"
    reason = "the verifier refuses it" if diagnosis.log else os.strerror(number)
    error = LoadError(number, f"{doing}: {reason}\n{diagnosis.text()}".rstrip())
    error.diagnosis = diagnosis
    return error
