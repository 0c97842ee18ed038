"""The tag of our wheel, which says honestly where it works.

Python apart, it holds BPF objects. They are the same for every Linux machine that stores numbers with
the small end first, and mean nothing to any other: so neither ``any`` nor the one architecture that the
wheel happened to be built on would be right.
"""

from __future__ import annotations

from setuptools.command.bdist_wheel import bdist_wheel

PLATFORMS = "linux_x86_64.linux_aarch64.linux_riscv64"


class TaggedWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", PLATFORMS
