"""containerd on a `Machine`: pods by its CRI, as a kubelet asks for them, and containers by ``ctr``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from typing import Any

from cri import CriError, call, texts
from machine import IDLE, IMAGE, NETWORKS, Machine, write_image

_CONFIG = """
version = 2
root = "{folder}/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE it cannot be lowered
sandbox_image = "{image}"
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{networks}"
bin_dir = "/opt/cni/bin"
"""


class Containerd:
    """A daemon of its own; pods have one container each, and are called by its name."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        folder = machine.folder / "containerd"
        folder.mkdir()
        self._socket = folder / "containerd.sock"
        config = folder / "config.toml"
        config.write_text(_CONFIG.format(folder=folder, image=IMAGE, networks=NETWORKS))
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            machine.words("containerd", "--config", str(config)), stdout=self._log, stderr=self._log
        )
        self._pods: dict[str, str] = {}
        self._wait()
        write_image(folder / "image.tar")
        self.ctr("-n", "k8s.io", "images", "import", "--snapshotter", "native", str(folder / "image.tar"))

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._call("Version", {})
                return
            except (OSError, CriError, AssertionError):
                assert self._process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.05)

    def log(self) -> str:
        return (self.machine.folder / "containerd" / "log").read_text()[-4000:]

    def ctr(self, *words: str, check: bool = True) -> str:
        return self.machine.run("ctr", "--address", str(self._socket), *words, check=check).stdout

    def _call(self, method: str, request: Mapping[int, Any]) -> dict[int, bytes]:
        return call(self._socket, method, request)

    def start(
        self,
        name: str,
        annotations: Mapping[str, str],
        command: tuple[str, ...] = IDLE,
        namespace: str = "default",
    ) -> None:
        """RunPodSandbox, CreateContainer, StartContainer."""
        sandbox = {
            1: {1: name, 2: f"uid-{name}", 3: namespace},
            6: texts({}),
            7: texts(annotations),
            8: {1: self.machine.cgroup},
        }
        pod = self._call("RunPodSandbox", {1: sandbox})[1].decode()
        self._pods[name] = pod
        container = {1: {1: "main"}, 2: {1: IMAGE}, 3: command}
        made = self._call("CreateContainer", {1: pod, 2: container, 3: sandbox})[1].decode()
        self._call("StartContainer", {1: made})

    def stop(self, name: str) -> None:
        self._call("StopPodSandbox", {1: self._pods[name]})

    def remove(self, name: str) -> None:
        self.stop(name)
        self._call("RemovePodSandbox", {1: self._pods.pop(name)})

    def close(self) -> None:
        for name in list(self._pods):
            self.remove(name)
        self._process.terminate()
        self._process.wait()
        self._log.close()
