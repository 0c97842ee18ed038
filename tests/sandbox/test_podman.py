"""Real containers of podman on our network, by its CNI backend, with a policy between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_node import Node, node
from test_cni import ONLY_FRIENDS, PLUGIN, links, reaches

NEEDED = ("podman", "runc", "busybox")
missing = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing),
    reason=f"needs {', '.join(missing)}: apt-get install --no-install-recommends podman runc busybox-static",
)
PROGRAMS = ("sh", "sleep", "nc", "httpd", "mkdir", "printf")


class Podman:
    """A podman with everything of its own in a folder: images, state, networks."""

    def __init__(self, agent: Node, folder: Path) -> None:
        self.agent, self.folder = agent, folder
        networks = folder / "net.d"
        networks.mkdir()
        for role in ("web", "friend", "stranger"):
            plugin = {
                "type": "axo-cni",
                "socket": str(agent.folder / "cni.sock"),
                "labels": {"app": role},
            }
            network = {"cniVersion": "1.0.0", "name": role, "plugins": [plugin]}
            (networks / f"{role}.conflist").write_text(json.dumps(network))
        # Without CAP_SYS_RESOURCE limits cannot be raised to what podman sets by itself.
        (folder / "containers.conf").write_text(
            "[containers]\ndefault_ulimits = []\noom_score_adj = 0\n"
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'[network]\nnetwork_backend = "cni"\nnetwork_config_dir = "{networks}"\n'
            f'cni_plugin_dirs = ["{PLUGIN.parent}"]\n'
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["podman", "--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        command += ["--tmpdir", str(self.folder / "tmp"), "--storage-driver", "vfs", *words]
        done = subprocess.run(
            ["nsenter", f"--net={self.agent.namespace}", "--", *command],
            env={**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0 or not check, f"podman {words[0]}: {done.stderr}"
        return done

    def image(self) -> None:
        """From the machine's busybox, since no registry is asked."""
        binaries = self.folder / "image" / "bin"
        binaries.mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox
        shutil.copy(busybox, binaries / "busybox")
        for name in PROGRAMS:
            (binaries / name).symlink_to("busybox")
        # A static busybox must not look for libraries that know other ways to resolve names.
        (binaries.parent / "etc").mkdir()
        (binaries.parent / "etc" / "nsswitch.conf").write_text("hosts: files\n")
        archive = self.folder / "image.tar"
        subprocess.run(["tar", "-C", binaries.parent, "-cf", archive, "."], check=True)
        self.run("import", str(archive), "busybox")

    def start(self, role: str, *command: str) -> None:
        # Without CAP_SYS_RESOURCE limits cannot be raised to what podman sets by itself.
        self.run(
            "run", "--detach", "--ulimit", "host", "--name", role, "--network", role, "busybox", *command
        )

    def address(self, role: str) -> str:
        found = json.loads(self.run("inspect", role).stdout)[0]["NetworkSettings"]["Networks"][role]
        return str(found["IPAddress"])

    def fetch(self, role: str, address: str) -> bool:
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80"
        done = self.run("exec", role, "sh", "-c", ask, check=False)
        assert done.returncode < 128, f"{ask}: {done.stderr}"
        return "hello" in done.stdout


@pytest.fixture
def podman() -> Iterator[Podman]:
    # pytest's folders are too deep: a run root has at most 50 letters.
    with tempfile.TemporaryDirectory(prefix="axo-") as folder, node(cni_socket="FOLDER/cni.sock") as agent:
        agent.start()
        made = Podman(agent, Path(folder))
        try:
            made.image()
            yield made
        finally:
            made.run("rm", "--all", "--force", "--time", "0", check=False)
            made.run("system", "reset", "--force", check=False)


def test_containers_talk_as_policies_allow(podman: Podman) -> None:
    serve = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
    podman.start("web", "sh", "-c", serve)
    for role in ("friend", "stranger"):
        podman.start(role, "sleep", "1000")
    web = podman.address("web")
    assert web.startswith("10.244.")
    deadline = time.monotonic() + 5
    while not podman.fetch("friend", web):
        assert time.monotonic() < deadline, podman.run("logs", "web").stderr
    assert podman.fetch("stranger", web)
    since = podman.agent.write({"objects/NetworkPolicy/default/only-friends": ONLY_FRIENDS})
    podman.agent.wait_for_policies(1, since)
    assert podman.fetch("friend", web)
    assert not podman.fetch("stranger", web)
    assert reaches(podman.agent.namespace, web), "the node reaches its own"
    podman.agent.kill()
    assert podman.fetch("friend", web), "the agent is not needed for that"
    podman.agent.start()
    assert not podman.fetch("stranger", web)
    podman.run("rm", "--all", "--force", "--time", "0")
    assert podman.agent.client.call("endpoint.list") == []
    podman.agent.kill()
    podman.agent.start()
    assert links(podman.agent) == set()
