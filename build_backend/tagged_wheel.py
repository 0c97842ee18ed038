"""The tag of our wheel, which says honestly where it works.

It holds the CNI plugin, a program of one architecture, statically linked; the BPF objects in it would suit
every Linux machine that stores numbers with the small end first.
"""

from __future__ import annotations

import platform

from setuptools.command.bdist_wheel import bdist_wheel


class TaggedWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", f"linux_{platform.machine()}"
