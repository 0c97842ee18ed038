"""podman on a `Machine`, by its CNI backend."""

from __future__ import annotations

import json
from typing import Any

from machine import IDLE, IMAGE, NETWORKS, Machine, write_image


class Podman:
    """Its containers are on a network each."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        folder = machine.folder / "podman"
        folder.mkdir()
        self._config = folder / "containers.conf"
        # Without CAP_SYS_RESOURCE limits cannot be raised to what podman sets by itself.
        self._config.write_text(
            "[containers]\ndefault_ulimits = []\noom_score_adj = 0\n"
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            f'[network]\nnetwork_backend = "cni"\nnetwork_config_dir = "{NETWORKS}"\n'
            'cni_plugin_dirs = ["/opt/cni/bin"]\n'
        )
        write_image(folder / "image.tar")
        self.run("load", "--quiet", "--input", str(folder / "image.tar"))

    def run(self, *words: str, check: bool = True) -> str:
        return self.machine.run(
            "podman",
            "--storage-driver",
            "vfs",
            *words,
            check=check,
            env={"CONTAINERS_CONF": str(self._config)},
        ).stdout

    def start(self, name: str, network: str, command: tuple[str, ...] = IDLE) -> None:
        options = (
            "--detach",
            "--ulimit",
            "host",
            "--log-driver",
            "none",
            "--cgroup-parent",
            self.machine.cgroup,
        )
        self.run("run", *options, "--name", name, "--network", network, IMAGE, *command)

    def kill(self, name: str) -> None:
        self.run("kill", name)

    def remove(self, *names: str) -> None:
        self.run("rm", "--force", "--time", "0", *names)

    def inspect(self, name: str) -> Any:
        return json.loads(self.run("inspect", name))[0]

    def close(self) -> None:
        self.run("rm", "--all", "--force", "--time", "0", check=False)
