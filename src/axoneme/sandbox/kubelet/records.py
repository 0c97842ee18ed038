"""What a supervisor that comes after this one must know of a pod: small files in the pod's directory.

pods/<uid>/pod.json                which pod it is, and its network once it has one
pods/<uid>/container-<name>.json   which process the container is
pods/<uid>/<name>.log              what it wrote
pods/<uid>/hosts, resolv.conf, …   what its processes see in /etc
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from axoneme.sandbox.kubelet.network import Attached
from axoneme.sandbox.processes import ProcessId

R = TypeVar("R", bound=msgspec.Struct)


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`network` is None until the agent has attached the pod, and always for a pod in its node's network."""

    namespace: str
    name: str
    uid: str
    node: str
    host_network: bool = False
    network: Attached | None = None


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`began`: the time as objects write it."""

    process: ProcessId
    restarts: int
    began: str


@dataclass(frozen=True, slots=True)
class PodFiles:
    """One pod's directory."""

    directory: Path

    @property
    def hosts(self) -> Path:
        return self.directory / "hosts"

    @property
    def resolv_conf(self) -> Path:
        return self.directory / "resolv.conf"

    @property
    def nsswitch(self) -> Path:
        return self.directory / "nsswitch.conf"

    def log(self, container: str) -> Path:
        return self.directory / f"{container}.log"

    def make(self) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def load_pod(self) -> PodRecord | None:
        return _load(self.directory / "pod.json", PodRecord)

    def save_pod(self, record: PodRecord) -> None:
        _save(self.directory / "pod.json", record)

    def load_container(self, name: str) -> ContainerRecord | None:
        return _load(self._container(name), ContainerRecord)

    def save_container(self, name: str, record: ContainerRecord) -> None:
        _save(self._container(name), record)

    def forget_container(self, name: str) -> None:
        self._container(name).unlink(missing_ok=True)

    def _container(self, name: str) -> Path:
        return self.directory / f"container-{name}.json"


def pods_of(directory: Path, node: str) -> Iterator[PodRecord]:
    """The pods of a node that an earlier supervisor has left."""
    for each in sorted(directory.iterdir()):
        record = PodFiles(each).load_pod()
        if record is not None and record.node == node:
            yield record


def _load(path: Path, kind: type[R]) -> R | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _save(path: Path, record: msgspec.Struct) -> None:
    # Whole or not at all: a crash in the middle must not leave half a record.
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(record))
    partial.replace(path)
