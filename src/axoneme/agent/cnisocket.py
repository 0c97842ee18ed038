"""One request of ``axo-cni`` as it comes over the socket; cni/axo-cni.c has its form."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from axoneme.cni.request import CniError, Code

PROTOCOL = b"1"
#: Bytes: the plugin lets 1 MiB of configuration through; the variables are the kernel's to bound.
_LONGEST = 4 << 20
#: Seconds that a whole request may take to come in.
_PATIENCE = 10.0
_NS_GET_NSTYPE, _CLONE_NEWNET = 0xB703, 0x40000000


class Namespace:
    """A network namespace by a descriptor of it, so that neither its path nor its life matters."""

    def __init__(self, descriptor: int) -> None:
        """`CniError` when it is something else, or the agent's own."""
        self._descriptor = descriptor
        try:
            is_network = fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
        except OSError:
            is_network = False
        if not is_network:
            message = "CNI_NETNS is no network namespace"
            raise CniError(Code.INVALID_ENVIRONMENT, message, "expected a path such as /run/netns/NAME")
        if os.path.samestat(os.fstat(descriptor), Path("/proc/self/ns/net").stat()):
            message = "CNI_NETNS is the node's own network namespace"
            raise CniError(Code.INVALID_ENVIRONMENT, message, "a container needs one of its own")

    @property
    def path(self) -> Path:
        """For other processes too, as long as it is open here."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")


@dataclass(frozen=True, slots=True)
class Message:
    """``environment`` are the CNI_ variables, ``text`` the network configuration."""

    environment: Mapping[str, str]
    text: bytes
    descriptor: int | None

    def namespace(self) -> Namespace | None:
        return None if self.descriptor is None else Namespace(self.descriptor)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def receive(connection: socket.socket) -> Message:
    """The whole request; blocks. `CniError`, and OSError as sockets raise it."""
    connection.setblocking(True)
    until, descriptors, data = time.monotonic() + _PATIENCE, list[int](), bytearray()
    try:
        while True:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            part, found, _, _ = socket.recv_fds(connection, 1 << 16, 1)
            descriptors += found
            data += part
            if not part:
                break
            if len(data) > _LONGEST:
                raise CniError(Code.INVALID_CONFIG, f"the request is longer than {_LONGEST >> 20} MiB")
        if not data.startswith(PROTOCOL):
            message = "axo-cni is of another release than the agent"
            raise CniError(Code.FAILED, message, "install the one that comes with the agent")
        head, _, text = bytes(data[1:]).partition(b"\0\0")
        variables = (each.decode(errors="replace").partition("=") for each in head.split(b"\0"))
        descriptor = descriptors.pop(0) if descriptors else None
        return Message({key: value for key, _, value in variables}, text, descriptor)
    finally:
        for each in descriptors:
            os.close(each)
