"""A node as its container runtimes see it: their files are its own, and so is the network.

In a mount namespace of its own `/run`, `/opt`, `/etc/cni`, `/var/lib` and `/dev/shm` are empty; whatever a
runtime leaves there goes with the namespace.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import axoneme.cni

PLUGIN = Path(axoneme.cni.__file__).parent / "bin" / "axo-cni"
NETWORKS = "/etc/cni/net.d"
IMAGE = "localhost/busybox:1"
_PROGRAMS = ("sh", "sleep", "httpd", "mkdir", "nc")
#: Serves on port 7000, of both families.
SERVE = ("sh", "-c", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 7000 -h /www")
IDLE = ("sleep", "1000")

_PREPARE = """
set -e
mount -t tmpfs none {folder}
mkdir {folder}/axoneme {folder}/netns
if [ -d /run/axoneme ]; then mount --rbind /run/axoneme {folder}/axoneme; fi
mount --rbind {folder} /run
# podman would make a mount of it with what others have in it, and double that.
mount -t tmpfs none /run/netns
mkdir -p /etc/cni /opt
for each in /etc/cni /opt /var/lib /dev/shm; do mount -t tmpfs none $each; done
mkdir -p {networks} /opt/cni/bin
ln -s /usr/lib/cni/* {plugin} /opt/cni/bin/
mount --make-rshared /  # among its own, as systemd does
echo ready
exec sleep infinity
"""


def missing(*programs: str) -> str:
    """Why tests with these programs are skipped; empty: all are there."""
    lacking = [name for name in ("busybox", *programs) if shutil.which(name) is None]
    return f"needs {', '.join(lacking)}: sudo make setup" if lacking else ""


class Machine:
    """One node, from the network namespace ``network`` on; ``folder`` is for runtimes' storage."""

    def __init__(self, network: Path, name: str, networks: Mapping[str, Any]) -> None:
        """``networks`` are configurations by file name."""
        self.network, self.name = network, f"test-{name}-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="axo-"))  # a run root of podman has at most 50 letters
        (self.folder / "run").mkdir()
        script = _PREPARE.format(folder=self.folder / "run", networks=NETWORKS, plugin=PLUGIN)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        for file_name, network_config in networks.items():
            self.path(f"{NETWORKS}/{file_name}").write_text(json.dumps(network_config))

    def path(self, inside: str | Path) -> Path:
        """Where this process sees a file of the node. /var/run is a link which would lead out again."""
        return Path(f"/proc/{self._holder.pid}/root{str(inside).replace('/var/run/', '/run/')}")

    @property
    def cgroup(self) -> str:
        return f"/axoneme/{self.name}"

    def words(self, *command: str) -> list[str]:
        return [
            "nsenter",
            f"--mount=/proc/{self._holder.pid}/ns/mnt",
            f"--net={self.network}",
            "--",
            *command,
        ]

    def run(
        self, *command: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.words(*command),
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    def close(self) -> None:
        self._holder.terminate()
        self._holder.wait()
        root = Path("/sys/fs/cgroup")
        for hierarchy in (root, *root.iterdir()):  # version 2, or one folder for each controller
            for group in sorted(hierarchy.glob(f"{self.cgroup[1:]}/**/"), reverse=True):
                _remove_group(group)
        shutil.rmtree(self.folder)


def _remove_group(group: Path) -> None:
    """Once the last process in it has ended: a monitor outlives its container by a moment."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return group.rmdir()
        except OSError:
            assert time.monotonic() < deadline, (group, (group / "cgroup.procs").read_text())
            time.sleep(0.02)


@contextmanager
def machine(network: Path, name: str, networks: Mapping[str, Any]) -> Iterator[Machine]:
    made = Machine(network, name, networks)
    try:
        yield made
    finally:
        made.close()


def plugin(socket: Path | str, **more: Any) -> dict[str, Any]:
    return {"type": "axo-cni", "socket": str(socket), **more}


def network(name: str, *plugins: Mapping[str, Any]) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": plugins}


def write_image(path: Path, command: Sequence[str] = IDLE) -> None:
    """The archive of an image, as ``docker save`` makes it, from this machine's busybox: no registry is
    asked."""
    busybox = shutil.which("busybox")
    assert busybox
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        files.add(busybox, "bin/busybox")
        for name in _PROGRAMS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            files.addfile(link)
        # A static busybox must not look for libraries that know other ways to resolve names.
        _add(files, "etc/nsswitch.conf", b"hosts: files\n")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", layer.getvalue())
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    archive.addfile(header, io.BytesIO(data))
