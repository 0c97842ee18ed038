"""The walk-through of docs/cni.md on a machine without sandbox and Kubernetes: its blocks, its commands, and
the privileges that the units leave."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machine import NETWORKS, SERVE, Machine, machine, missing
from one_node import group, node
from podman import Podman
from two_nodes import inside

from axoneme.datapath import bpf, sockets
from axoneme.net.node import OVERLAY

lacking = missing("podman", "runc")
pytestmark = pytest.mark.skipif(bool(lacking), reason=lacking)
ROOT = Path(__file__).resolve().parents[2]
AXO = str(Path(sys.executable).with_name("axo"))
#: What makes systemd give a service a mount namespace.
_OWN_MOUNTS = re.compile(
    r"^(ProtectSystem|ProtectHome|ProtectKernel\w+|ProtectControlGroups|Private\w+)=", re.M
)
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "cni.md").read_text(), re.DOTALL)


def block(kind: str, word: str) -> str:
    """The block of the page that has this word."""
    return next(text for found, text in BLOCKS if found == kind and word in text)


def directive(unit: str, name: str) -> str:
    text = (ROOT / "packaging" / unit).read_text()
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}="))


class Plain:
    """The machine, and its services as systemd would run them."""

    def __init__(self, place: Machine, group: Path) -> None:
        """`group` stands for the machine's control group."""
        self.place, self.group = place, group
        self.config = place.folder / "agent.yaml"
        self.config.write_text(f"{block('yaml', 'cni_config')}\ncgroup: {group}\n")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        place.run("mkdir", "-p", f"/var/lib/{directive('axoneme-agent.service', 'StateDirectory')}")

    def start(self, unit: str) -> None:
        """With its capabilities alone, and a mount namespace of its own where the unit asks for that."""
        command = directive(f"{unit}.service", "ExecStart").split()[2:]
        capabilities = directive(f"{unit}.service", "CapabilityBoundingSet").lower().split()
        kept = ",".join(["-all", *(f"+{each.removeprefix('cap_')}" for each in capabilities)])
        assert directive(f"{unit}.service", "NoNewPrivileges") == "yes"
        private = _OWN_MOUNTS.search((ROOT / "packaging" / f"{unit}.service").read_text())
        with (self.place.folder / f"{unit}.log").open("ab") as log:
            self._running[unit] = subprocess.Popen(
                self.place.words(
                    *(("unshare", "--mount", "--propagation", "slave") if private else ()),
                    *("setpriv", "--no-new-privs", "--bounding-set", kept, AXO),
                    *command[:-1],
                    str(self.config),
                ),
                stderr=log,
            )

    def stop(self, unit: str) -> None:
        process = self._running.pop(unit)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, self.log(unit)

    def log(self, unit: str) -> str:
        return (self.place.folder / f"{unit}.log").read_text()[-3000:]

    def axo(self, *words: str, check: bool = True) -> str:
        done = self.place.run(AXO, *words, check=check, env={"AXO_CONFIG": str(self.config)})
        return done.stdout + done.stderr

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.log('axoneme-agent')}"
            time.sleep(0.05)

    def close(self) -> None:
        for unit in list(self._running):
            self.stop(unit)


def at_sockets(group: Path) -> list[str]:
    """Of our programs' places at the sockets of a control group, those that are taken."""
    target = os.open(group, os.O_RDONLY)
    try:
        return [name for name, point in sockets.POINTS.items() if bpf.query(target, point)]
    finally:
        os.close(target)


@pytest.fixture
def plain() -> Iterator[Plain]:
    with ExitStack() as stack:
        network = stack.enter_context(node())  # its agent is never started
        made = Plain(stack.enter_context(machine(network.namespace, "plain", {})), group(network.folder))
        stack.callback(made.close)
        yield made


def test_from_nothing_to_a_policy_and_back(plain: Plain) -> None:
    conflist = plain.place.path(f"{NETWORKS}/05-axoneme.conflist")
    for unit in ("axoneme-agent", "axoneme-flows"):
        plain.start(unit)
    plain.wait(conflist.exists, "the network for runtimes is written")
    plain.wait(lambda: "node machine1: well" in plain.axo("status", check=False), "all is well")

    text = block("json", '"name": "web"')
    for role in ("web", "friend"):
        plain.place.path(f"{NETWORKS}/{role}.conflist").write_text(text.replace("web", role))
    podman = Podman(plain.place)
    try:
        podman.start("shop", "web", SERVE)
        podman.start("visitor", "friend")
        podman.start("someone", "axoneme")
        found = json.loads(plain.axo("get", "endpoints", "-o", "json"))["items"]
        networking = {
            each["metadata"]["name"]: each["status"]["networking"]["addressing"][0]["ipv4"] for each in found
        }
        assert set(networking) == {"shop", "visitor", "someone"}

        def fetch(name: str) -> bool:
            ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {networking['shop']} 7000"
            return "hello" in podman.run("exec", name, "sh", "-c", ask, check=False)

        plain.wait(lambda: fetch("visitor") and fetch("someone"), "the server listens")
        policy = plain.place.folder / "policy.yaml"
        policy.write_text(block("yaml", "NetworkPolicy"))
        assert "networkpolicy.networking.k8s.io/only-friends created" in plain.axo("apply", "-f", str(policy))
        plain.wait(lambda: not fetch("someone"), "the policy holds")
        assert fetch("visitor")
        dropped = plain.axo("observe", "--verdict", "DROPPED")
        assert "default/someone" in dropped and "default/shop:7000" in dropped and "only-friends" in dropped
        why = plain.axo("policy", "why", "--from", "someone", "--to", "shop", "--port", "7000", check=False)
        assert "denied" in why and "only-friends" in why

        plain.stop("axoneme-agent")
        assert fetch("visitor") and not fetch("someone"), "without the agent, as before"
        assert conflist.exists() and plain.place.path("/run/axoneme/bpf/maps").exists()
        assert at_sockets(plain.group) == list(sockets.POINTS)
        assert "3 containers are attached" in plain.axo("leave", "--config", str(plain.config), check=False)
        plain.start("axoneme-agent")
        plain.wait(lambda: "node machine1: well" in plain.axo("status", check=False), "all is well again")
        refused = plain.axo("leave", "--config", str(plain.config), check=False)
        assert "the agent of machine1 runs" in refused
    finally:
        podman.close()

    for unit in ("axoneme-flows", "axoneme-agent"):
        plain.stop(unit)
    done = plain.axo("leave", "--config", str(plain.config))
    assert (
        done.splitlines()[0] == f"removed {NETWORKS}/05-axoneme.conflist: the network of container runtimes"
    )
    assert "removed node machine1" in done
    assert not conflist.exists()
    assert plain.axo("leave", "--config", str(plain.config)) == "", "nothing is left"
    assert not at_sockets(plain.group)
    with inside(plain.place.network):
        links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
        assert OVERLAY not in links and "axo" not in links
    programs = plain.place.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout
    assert programs == ""
    assert "only-friends" in plain.axo("get", "netpol"), "objects stay"
