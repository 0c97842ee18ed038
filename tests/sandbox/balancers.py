"""Standalone load balancers, a client and backends on one wire, each in a network namespace of its own.

    client ──┐
    lb1 lb2 ─┤ br0
    b1 b2 b3 ┘

The service's addresses stand on no device: the client's routes lead them to a balancer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from two_nodes import Namespaces, inside

from axoneme.balancer.client import ApiError, Client
from axoneme.balancer.reports import ConnectionsReport, ServiceReport, StatusReport
from axoneme.datapath import bpffs
from axoneme.net.commands import ip

T = TypeVar("T")

#: Seconds within which everything that a test waits for happens on a busy machine.
PATIENCE = 40.0
PORT, CHECKED = 8080, 8081
VIP = {4: "203.0.113.10", 6: "2001:db8:a::10"}
_HOSTS = {"client": 100, "lb1": 1, "lb2": 2, "b1": 11, "b2": 12, "b3": 13}


def address(name: str, version: int) -> str:
    return f"172.31.0.{_HOSTS[name]}" if version == 4 else f"fd00:a0::{_HOSTS[name]:x}"


def eventually(condition: Callable[[], T], what: str) -> T:
    """What the condition is once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)
    return found


class Server:
    """A backend: says its name and whom it talks to, then echoes; over TCP and UDP. A health check gets
    ``status``."""

    def __init__(self, name: str, namespace: Path) -> None:
        self.name, self.status = name, 200
        self._namespace = namespace
        self._open: list[socket.socket] = []
        self._listening: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        with inside(self._namespace):
            talks, checks = (
                socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
                for port in (PORT, CHECKED)
            )
            datagrams = [
                socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)
            ]
            for each, version in zip(datagrams, (4, 6), strict=True):
                each.bind((address(self.name, version), PORT))
        self._listening = [talks, checks, *datagrams]
        self._begin(self._accept, talks, self._talk)
        self._begin(self._accept, checks, self._answer_check)
        for each in datagrams:
            self._begin(self._answer, each)

    def _begin(self, work: Callable[..., None], *on: object) -> None:
        threading.Thread(target=work, args=on, daemon=True).start()

    def stop(self) -> None:
        """Listens no longer; who is connected stays so."""
        for each in self._listening:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._listening = []

    def close(self) -> None:
        self.stop()
        for each in self._open:
            each.close()

    def _accept(self, listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError):
            while True:
                talk, _ = listening.accept()
                self._open.append(talk)
                threading.Thread(target=serve, args=(talk,), daemon=True).start()

    def _talk(self, talk: socket.socket) -> None:
        with contextlib.suppress(OSError), talk:
            talk.sendall(f"{self.name} {talk.getpeername()[0].removeprefix('::ffff:')}\n".encode())
            while data := talk.recv(4096):
                talk.sendall(data)

    def _answer_check(self, talk: socket.socket) -> None:
        with contextlib.suppress(OSError), talk:
            talk.recv(4096)
            talk.sendall(f"HTTP/1.1 {self.status} Status\r\nContent-Length: 0\r\n\r\n".encode())

    def _answer(self, datagrams: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, sender = datagrams.recvfrom(4096)
                if sender is None:  # it is shut down
                    return
                datagrams.sendto(f"{self.name} {sender[0]}\n".encode(), sender)


class Tunnel:
    """What a tunnel device does, which not every kernel has: packets that come in others (IP in IP) are taken
    out of them, on a machine that has the services' addresses on its loopback."""

    _TUNSETIFF, _TUN, _NO_PI, _VNET_HDR = 0x400454CA, 0x1, 0x1000, 0x4000
    #: By protocol, where its checksum stands.
    _CHECKSUM: ClassVar = {6: 16, 17: 6}

    def __init__(self, namespace: Path) -> None:
        with inside(namespace):
            self._device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            flags = self._TUN | self._NO_PI | self._VNET_HDR
            fcntl.ioctl(self._device, self._TUNSETIFF, struct.pack("16sH22x", b"unwrap", flags))
            self._raw = [
                socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP),
                socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPV6),
            ]
        ip(["link set unwrap up", *(f"addr add {VIP[v]}/{bits} dev lo" for v, bits in ((4, 32), (6, 128)))],
           namespace)  # fmt: skip
        self.taken_out = 0
        self._open = True
        for raw in self._raw:
            raw.settimeout(0.1)
            threading.Thread(target=self._work, args=(raw,), daemon=True).start()

    def _work(self, raw: socket.socket) -> None:
        while True:
            try:
                packet = raw.recv(65536)
            except TimeoutError:
                if self._open:
                    continue
                return
            except OSError:
                return
            if raw.family == socket.AF_INET:  # with the outer header
                packet = packet[(packet[0] & 0xF) * 4 :]
            self.taken_out += 1
            v4 = packet[0] >> 4 == 4
            start, protocol = ((packet[0] & 0xF) * 4, packet[9]) if v4 else (40, packet[6])
            # Between namespaces of one machine nobody has completed the checksum, and nobody needs to.
            head = struct.pack("=BBHHHH", 1, 0, 0, 0, start, self._CHECKSUM[protocol])
            os.write(self._device, head + packet)

    def close(self) -> None:
        self._open = False
        for raw in self._raw:
            raw.close()
        os.close(self._device)


class Machine:
    """One load balancer."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.name, self.namespace = name, scene.namespaces.path(name)
        self.folder = scene.folder / name
        self.folder.mkdir()
        self.file = self.folder / "lb.yaml"
        self.client = Client(self.folder / "api.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, desired: Mapping[str, Any], **machine_fields: str) -> None:
        """Writes the file as a whole, as an editor does it."""
        machine = {
            "name": self.name,
            "uplinks": ["eth0"],
            "directory": str(self.folder),
            "state": str(self.folder / "state"),
            **machine_fields,
        }
        made = self.folder / "lb.yaml.new"
        made.write_text("# By hand.\n" + yaml.safe_dump({"machine": machine, **desired}, sort_keys=False))
        made.rename(self.file)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net={self.namespace}", "--", sys.executable, "-m", "axoneme.cli", "lb", "run",
                 "--config", str(self.file)],
                stderr=log,
            )  # fmt: skip
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, self.log()
            with contextlib.suppress(ApiError):
                return self.status().services > 0
            return False

        eventually(answers, f"{self.name} answers")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def status(self) -> StatusReport:
        return self.client.get("/v1/status", StatusReport)

    def service(self, name: str) -> ServiceReport:
        return next(
            each for each in self.client.get("/v1/services", list[ServiceReport]) if each.name == name
        )

    def states(self, name: str = "web") -> dict[str, str]:
        return {each.name: each.state for each in self.service(name).backends}

    def connections(self) -> ConnectionsReport:
        return self.client.get("/v1/connections", ConnectionsReport)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = (
            sys.executable,
            "-m",
            "axoneme.cli",
            "lb",
            "--socket",
            str(self.folder / "api.sock"),
            *words,
        )
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def close(self) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)
        bpffs.unmount(self.folder / "bpf")


class Scene:
    """All of them, and the wire. ``balancers`` are made, but not started."""

    def __init__(self, folder: Path, balancers: tuple[str, ...] = ("lb1",)) -> None:
        self.folder = folder
        self.namespaces = Namespaces()
        self.namespaces.add("wire")
        wire = self.namespaces.path("wire")
        ip(["link add br0 type bridge", "link set br0 up"], wire)
        names = ("client", *balancers, "b1", "b2", "b3")
        for name in names:
            self._plug(name)
        self.balancers = {name: Machine(self, name) for name in balancers}
        self.servers = {name: Server(name, self.namespaces.path(name)) for name in ("b1", "b2", "b3")}
        self.route(balancers[0])

    def _plug(self, name: str) -> None:
        there = self.namespaces.add(name)
        wire = self.namespaces.path("wire")
        ip([f"link add to-{name} type veth peer name eth0 netns {there.name}"], wire)
        ip([f"link set to-{name} master br0 up"], wire)
        ip(
            [
                f"addr add {address(name, 4)}/24 dev eth0",
                f"addr add {address(name, 6)}/64 dev eth0 nodad",
                "link set eth0 up",
            ],
            there,
        )

    def route(self, balancer: str) -> None:
        """Leads the client's packets for services to this one from now on."""
        ip(
            [f"route replace {VIP[v]} via {address(balancer, v)}" for v in (4, 6)],
            self.namespaces.path("client"),
        )

    def connect(self, version: int, port: int = 80, timeout: float = 10.0) -> Talk:
        with inside(self.namespaces.path("client")):
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        made.settimeout(timeout)
        try:
            made.connect((VIP[version], port))
        except OSError:
            made.close()
            raise
        return Talk(made)

    def ask(self, version: int, port: int = 53, source: int = 0) -> tuple[str, str]:
        """A datagram's answer: the backend's name, and whom it saw; from where it must come."""
        with inside(self.namespaces.path("client")):
            made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        with made:
            made.settimeout(10)
            made.bind((address("client", version), source))
            made.connect((VIP[version], port))
            made.send(b"who?")
            name, seen = made.recv(4096).decode().split()
            return name, seen

    def chosen(self, version: int, count: int, port: int = 80) -> dict[str, int]:
        """Which backends so many connections got."""
        found: dict[str, int] = {}
        for _ in range(count):
            with self.connect(version, port) as talk:
                found[talk.backend] = found.get(talk.backend, 0) + 1
        return found

    def close(self) -> None:
        for server in self.servers.values():
            server.close()
        for balancer in self.balancers.values():
            balancer.close()
        self.namespaces.close()


class Talk:
    """A connection over TCP: which ``backend`` it got, and the address that this one ``saw``."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._file = connection.makefile("rb")
        self.backend, self.saw = self._file.readline().decode().split() or ("", "")
        self.port = connection.getsockname()[1]

    def echo(self, text: str) -> bool:
        """Whether it comes back."""
        self.socket.sendall(f"{text}\n".encode())
        return self._file.readline() == f"{text}\n".encode()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@contextlib.contextmanager
def scene(*balancers: str) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="axo-") as folder:
        made = Scene(Path(folder), balancers or ("lb1",))
        try:
            yield made
        finally:
            made.close()


def service(name: str = "web", **fields: Any) -> dict[str, Any]:
    """Both families, a TCP port 80 and all three backends, unless fields say otherwise."""
    return {
        "name": name,
        "frontends": [{"address": VIP[version], "port": 80} for version in (4, 6)],
        "backends": backends("b1", "b2", "b3"),
        **fields,
    }


def backends(*names: str, **fields: Any) -> list[dict[str, Any]]:
    """Of both families."""
    return [
        {"name": f"{name}-v{version}", "address": address(name, version), "port": PORT, **fields}
        for name in names
        for version in (4, 6)
    ]


CHECK = {"kind": "http", "port": CHECKED, "path": "/", "interval": 0.1, "timeout": 2.0, "rise": 2, "fall": 2}


def shown(value: Any) -> str:
    return json.dumps(value, indent=1, default=str)
