"""A program that calls services: in a control group and a network namespace, told over its standard input.

What a socket is translated by is the group of the process that makes it, so a test cannot call by itself.
Each line is a list ``[operation, arguments…]``; each is answered by one line of JSON. Connections that are
held have a number.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import dns.resolver

#: What `Caller.ask` gives for a call that did not get through.
REFUSED, TIMEOUT = "refused", "timeout"


class Caller:
    """The test's end. ``group`` None: in nobody's group, so only packets are translated."""

    def __init__(self, namespace: Path, group: Path | None) -> None:
        self._process = subprocess.Popen(
            ["nsenter", f"--net={namespace}", "--", sys.executable, __file__, str(group or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)

    def _do(self, *wish: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def ask(
        self, address: str, port: int, protocol: str = "tcp", patience: float = 3.0, source: str = ""
    ) -> Any:
        """What the echo server says, with ``from``: the address that its answer came from, as the program
        sees it; `REFUSED`, `TIMEOUT` or what else went wrong. ``protocol``: tcp, udp, or udp-unconnected."""
        return self._do("ask", address, port, protocol, patience, source)

    def hold(self, address: str, port: int, protocol: str = "tcp") -> int:
        """A connection that stays open."""
        found: int = self._do("hold", address, port, protocol)
        return found

    def say(self, number: int) -> Any:
        """What the server of a held connection answers."""
        return self._do("say", number)

    def resolve(self, server: str, name: str, kind: str) -> list[str]:
        """The records of a name, by a name server."""
        found: list[str] = self._do("resolve", server, name, kind)
        return found


# ---- the program -----------------------------------------------------------------------------------


class _Program:
    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def ask(self, address: str, port: int, protocol: str, patience: float, source: str) -> Any:
        try:
            if protocol == "udp-unconnected":
                return _datagram(address, port, patience)
            with _connected(address, port, protocol, patience, source) as talk:
                return _talk(talk)
        except OSError as error:
            return _word(error)

    def hold(self, address: str, port: int, protocol: str) -> Any:
        self._held.append(_connected(address, port, protocol, 3.0))
        return len(self._held) - 1

    def say(self, number: int) -> Any:
        try:
            return _talk(self._held[number])
        except OSError as error:
            return _word(error)

    def resolve(self, server: str, name: str, kind: str) -> list[str]:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.lifetime = [server], 5.0
        return sorted(str(each) for each in resolver.resolve(name, kind))


def _connected(address: str, port: int, protocol: str, patience: float, source: str = "") -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    talk = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    talk.settimeout(patience)
    try:
        if source:
            talk.bind((source, 0))
        talk.connect((address, port))
    except OSError:
        talk.close()
        raise
    return talk


def _talk(talk: socket.socket) -> Any:
    """The answer to a line, and who the socket says the peer is."""
    talk.sendall(b"who are you?\n")
    heard = b""
    while b"\n" not in heard:
        part = talk.recv(65536)
        if not part:
            return "closed"
        heard += part
        if talk.type == socket.SOCK_DGRAM:
            break
    return json.loads(heard.partition(b"\n")[0]) | {"from": list(talk.getpeername()[:2])}


def _datagram(address: str, port: int, patience: float) -> Any:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as talk:
        talk.sendto(b"who are you?\n", (address, port))
        if not select.select([talk], [], [], patience)[0]:
            return TIMEOUT
        heard, sender = talk.recvfrom(65536)
        return json.loads(heard) | {"from": list(sender[:2])}


def _word(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return TIMEOUT
    return REFUSED if isinstance(error, ConnectionRefusedError) else str(error)


def _main(group: str) -> None:
    if group:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    program = _Program()
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        print(json.dumps(getattr(program, operation)(*arguments)), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
