"""The PEP 517 build backend: setuptools, after the datapath and the messages have been compiled.

A wheel carries the compiled BPF objects, so that whoever installs it needs no compiler. A source
distribution carries `bpf/` instead; building a wheel from it needs clang.
"""

from __future__ import annotations

from typing import Any

import compile_bpf
import compile_proto
from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    _compile()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    _compile()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def _compile() -> None:
    compile_bpf.compile_all()
    compile_proto.compile_all()
