"""The proxy for HTTP between a client and a server that know nothing of it (`steered`), and servers."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from steered import ADDRESSES, Rig, rig_in
from webserver import Echo

from axoneme.model.l7 import L7
from axoneme.model.l7event import L7Event, L7Report
from axoneme.proxy.following import read_report, write_plan
from axoneme.proxy.plan import PLAN, Listener, Plan, Report, SecretData, directory

FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def seen(self) -> dict[str, Any]:
        """What the server was asked."""
        assert self.status == 200, self
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def asked(self) -> dict[str, str]:
        """Its headers."""
        return {name.lower(): value for name, value in self.seen["headers"]}


class Connection:
    """Of a client, by HTTP/1.1, which stays the same all the time."""

    def __init__(self, connected: socket.socket, host: str) -> None:
        self.socket = connected
        self._http = http.client.HTTPConnection(host)
        self._http.sock = connected

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        self._http.putrequest(method, path)
        if body is not None:
            self._http.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            self._http.putheader(name.replace("__", "-"), value)
        self._http.endheaders(body)
        answer = self._http.getresponse()
        content = answer.read()
        assert self._http.sock is not None or answer.will_close, "the connection was closed"
        return Answer(answer.status, content, {name.lower(): value for name, value in answer.getheaders()})

    def status(self, path: str, method: str = "GET", **headers: str) -> int:
        return self.ask(path, method, **headers).status


class Proxy:
    """The process, and the agent's and the flow server's ends of it."""

    def __init__(self, rig: Rig, folder: Path, stack: ExitStack) -> None:
        self.rig = rig
        self.place = folder / "node"
        self.place.mkdir()
        (self.place / "agent.yaml").write_text(json.dumps({"node": "node1", "directory": str(self.place)}))
        self.folder = directory(self.place / "state", "envoy")
        self.folder.mkdir(parents=True)
        self.revision = 0
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._stack = stack
        self._events: list[L7Event] = []
        #: Requests that were left out.
        self.untold = 0
        hearing = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        hearing.bind(str(self.place / "l7.sock"))
        (self.place / "l7.sock").chmod(0o666)
        hearing.listen()
        threading.Thread(target=self._hear, args=(hearing,), daemon=True).start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *("nsenter", f"--net={self.rig.proxy}", sys.executable, "-m", "axoneme.proxy", "envoy"),
                    str(self.place / "agent.yaml"),
                ],
                stderr=output,
            )

    def follow(self, *listeners: Listener, secrets: tuple[SecretData, ...] = ()) -> Report:
        """Gives it a plan, and returns when it is in force."""
        self.revision += 1
        plan = Plan(
            node="node1",
            revision=self.revision,
            families=(4, 6),
            events=str(self.place / "l7.sock"),
            listeners=listeners,
            secrets=secrets,
        )
        write_plan(self.folder, plan)
        if self.process is None:
            self.start()
        return self.report(lambda report: report.revision == self.revision)

    def serve(self, port: int, rules: L7, direction: str = "egress", **more: Any) -> None:
        """A plan of one listener."""
        report = self.follow(Listener(port, direction, rules), **more)
        assert report.ready == (port,), (report, self.log.read_text())

    def report(self, condition: Callable[[Report], bool]) -> Report:
        assert self.process is not None
        end = time.monotonic() + 30
        while (found := read_report(self.folder)) is None or not condition(found):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, (found, self.log.read_text())
            time.sleep(0.005)
        return found

    def take_away(self) -> int:
        """Its plan; the code with which it ends."""
        assert self.process is not None
        (self.folder / PLAN).unlink()
        code = self.process.wait(20)
        self.process = None
        return code

    def envoy(self) -> int:
        """The number of the process."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for child in children.read_text().split():
                if b"--config-yaml" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
            time.sleep(0.005)
        raise AssertionError("there is no Envoy")

    def event(self, condition: Callable[[L7Event], bool]) -> L7Event:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for event in list(self._events):
                if condition(event):
                    return event
            time.sleep(0.005)
        raise AssertionError(f"not among {self._events}")

    def told(self, path: str) -> int:
        """How many of the events so far are of requests for it."""
        return sum(it.http is not None and it.http.url.endswith(path) for it in list(self._events))

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, (self.untold, self._events[-3:])
            time.sleep(0.01)

    def connect(self, port: int, family: socket.AddressFamily = socket.AF_INET) -> Connection:
        """To the server, by HTTP."""
        host = ADDRESSES[family][1]
        return Connection(self.call(port, family), f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def call(self, port: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """From the client to the server."""
        called = self._stack.enter_context(self.rig.socket(self.rig.client, family, socket.SOCK_STREAM))
        called.connect((ADDRESSES[family][1], port))
        return called

    def curl(self, *arguments: str) -> str:
        return self.rig.run(self.rig.client, " ".join(("curl", "-sS", "-m", "20", *arguments)))

    def _hear(self, hearing: socket.socket) -> None:
        while True:
            try:
                taken, _ = hearing.accept()
            except OSError:
                return
            threading.Thread(target=self._take, args=(taken,), daemon=True).start()

    def _take(self, taken: socket.socket) -> None:
        while message := taken.recv(1 << 20):
            report = msgspec.json.decode(message, type=L7Report)
            self._events += report.events
            self.untold += report.lost


@contextmanager
def proxy(folder: Path, ports: dict[int | None, int]) -> Iterator[Proxy]:
    """``ports``: by the port of a server, that of the listener in its way. A plan starts it."""
    (folder / "rig").mkdir()
    with rig_in(folder / "rig", ports) as rig, ExitStack() as stack:
        made = Proxy(rig, folder, stack)
        try:
            yield made
        finally:
            if made.process is not None:
                made.process.kill()
                made.process.wait()


def serve_http(it: Proxy, port: int, stack: ExitStack, context: ssl.SSLContext | None = None) -> None:
    """`Echo` at the server's addresses."""
    for family in FAMILIES:
        listening = stack.enter_context(it.rig.socket(it.rig.server, family, socket.SOCK_STREAM))
        listening.bind((ADDRESSES[family][1], port))
        listening.listen(64)
        listening.settimeout(None)
        server = http.server.ThreadingHTTPServer(("", 0), Echo, bind_and_activate=False)
        server.socket.close()
        server.socket = context.wrap_socket(listening, server_side=True) if context else listening
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return b"Z" in Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2][:3]
