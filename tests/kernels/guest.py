"""A command under another kernel: a virtual machine, emulated in software, that has this machine's files.

The guest's root is this machine's, by 9p and read only, with a tmpfs laid over it: the same interpreter, the
same checkout, at the same paths; whatever it writes is gone with it. Its initramfs holds busybox, the modules
and a script, and nothing has to be installed into an image.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.debian import Kernel, Unavailable

_NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static"}
_NINE = "trans=virtio,version=9p2000.L,msize=512000"
_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /below /above /root
$b mount -t proc proc /proc
for module in /modules/*; do $b insmod $module; done
$b mount -t 9p -o ro,cache=loose,{_NINE} files /below
$b mount -t tmpfs above /above
$b mkdir /above/upper /above/work
$b mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work root /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sys /root/sys
$b mount -t bpf bpf /root/sys/fs/bpf
$b mount -t cgroup2 cgroups /root/sys/fs/cgroup
$b mount -t devtmpfs dev /root/dev
$b mkdir -p /root/dev/pts /root/dev/shm
$b mount -t devpts pts /root/dev/pts
$b mount -t tmpfs shm /root/dev/shm
$b mount -t tmpfs run /root/run
$b mkdir /root/run/answer
$b mount -t 9p -o {_NINE} answer /root/run/answer
$b ip link set lo up
$b chroot /root /bin/sh /run/answer/command >/root/run/answer/output 2>&1
echo $? >/root/run/answer/status
$b umount /root/run/answer
$b poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: int | None  # None: it never ended
    output: str  # of the command, both streams
    console: str  # of the kernel

    def explain(self) -> str:
        return f"status {self.status}\n--- output\n{self.output}\n--- console\n{self.console[-4000:]}"


def run(kernel: Kernel, command: Sequence[str], folder: Path, seconds: float, cpus: int = 1) -> Outcome:
    """Boots, runs the command from this process's working directory, powers off. `folder` must be empty, and
    on a disk. Raises `Unavailable` when there is no emulator."""
    for program, package in _NEEDED.items():
        if shutil.which(program) is None:
            raise Unavailable(f"no {program} here (Debian: {package})")
    answer = folder / "answer"
    answer.mkdir()
    (answer / "command").write_text(
        f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\ncd {shlex.quote(str(Path.cwd()))}\n"
        f"{shlex.join(command)}\n"
    )
    console = folder / "console"
    machine = [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *(
            "-smp",
            str(cpus),
            "-m",
            "2048",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ),
        *("-serial", f"file:{console}", "-append", "console=ttyS0 quiet panic=-1 no_timer_check nowatchdog"),
        *("-kernel", str(kernel.image), "-initrd", str(_initramfs(kernel, folder / "initramfs"))),
        *("-virtfs", "local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={answer},mount_tag=answer,security_model=none"),
    ]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(machine, stdin=subprocess.DEVNULL, timeout=seconds, check=True)
    return Outcome(
        int(status) if (status := _text(answer / "status")) else None,
        _text(answer / "output"),
        _text(console),
    )


def _initramfs(kernel: Kernel, tree: Path) -> Path:
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    shutil.copy(shutil.which("busybox") or "", tree / "bin" / "busybox")
    for module in kernel.modules:
        shutil.copy(module, tree / "modules")
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    archive = tree.with_suffix(".cpio")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with archive.open("wb") as made:
        pack = ["busybox", "cpio", "-o", "-H", "newc"]
        subprocess.run(
            pack, cwd=tree, input=names.encode(), stdout=made, stderr=subprocess.DEVNULL, check=True
        )
    return archive


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
