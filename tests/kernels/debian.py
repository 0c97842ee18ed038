"""Debian's kernels: fetched as packages, unpacked into the checkout, never installed."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / "build" / "kernels"
#: By series: the package that always names the newest build of it.
PACKAGES = {"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64"}
#: For the guest's files, and what nodes and pods are made of.
MODULES = (
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "veth",
    "bridge",
    "dummy",
    "vxlan",
    "ip6_udp_tunnel",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
)


class Unavailable(Exception):
    """This machine cannot get the kernel."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """``modules`` in the order in which they can be inserted, uncompressed."""

    series: str
    image: Path
    modules: tuple[Path, ...]


def kernel(series: str) -> Kernel:
    """From the cache, or fetched into it. Raises `Unavailable`."""
    place = CACHE / series
    if not place.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetching-") as name:
            unpacked = Path(name) / "unpacked"
            made = Path(name) / "made"
            subprocess.run(["dpkg-deb", "-x", _download(series, Path(name)), unpacked], check=True)
            _keep(unpacked, made)
            made.rename(place)
    return Kernel(series, place / "vmlinuz", tuple(sorted((place / "modules").iterdir())))


def _download(series: str, folder: Path) -> Path:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"no {tool} here: Debian's kernels cannot be fetched")
    package = PACKAGES[series]
    said = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    found = re.search(rf"Depends: (linux-image-{re.escape(series)}\S*)", said.stdout)
    if found is None:
        raise Unavailable(
            f"apt knows no {package} that is a {series} (is this Debian 12, and apt-get update done?)"
        )
    got = subprocess.run(
        ["apt-get", "download", "-q", found[1]], cwd=folder, capture_output=True, text=True, check=False
    )
    if got.returncode:
        raise Unavailable(f"{found[1]} could not be downloaded: {got.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("*.deb"))


def _keep(unpacked: Path, place: Path) -> None:
    """The image, and the modules that we use with those that they use."""
    (place / "modules").mkdir(parents=True)
    shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), place / "vmlinuz")
    files = {_name(path): path for path in unpacked.glob("lib/modules/*/kernel/**/*.ko*")}
    for number, (name, content) in enumerate(_closure(MODULES, files)):
        (place / "modules" / f"{number:02}-{name}.ko").write_bytes(content)


def _closure(wanted: Iterable[str], files: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    done: set[str] = set()

    def add(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name not in files:  # what is no module is built in
            return
        done.add(name)
        path = files[name]
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        needs = re.search(rb"\0depends=([^\0]*)\0", content)
        for need in needs[1].decode().split(",") if needs else ():
            yield from add(need.replace("-", "_"))
        yield name, content

    for name in wanted:
        yield from add(name)


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")
