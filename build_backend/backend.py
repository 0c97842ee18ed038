"""The PEP 517 build backend: setuptools, after the datapath and the messages have been compiled, and the web
UI's page has been built.

A wheel carries all of it, so that whoever installs it needs no compiler. A source distribution carries `bpf/`
and `ui/` instead; building a wheel from it needs clang and npm.
"""

from __future__ import annotations

from typing import Any

import build_ui
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
    build_ui.build()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    _compile()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def _compile() -> None:
    compile_bpf.compile_all()
    compile_proto.compile_all()
