"""Network namespaces that live as long as their file: made, held by a bind mount, entered, let go.

No process is needed to keep one. A namespace is used through a descriptor of its file (`opened`), and
sockets are opened in it from any process (`open_socket`): a socket belongs to the namespace in which it
was made, whoever uses it afterwards.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from axoneme.net import kernel

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_SO_NETNS_COOKIE: Final = 71

#: Sysctls (below /proc/sys/net) of an ordinary endpoint: addresses are usable at once, since nobody else
#: on these links could have them.
ENDPOINT_SYSCTLS: Final[Mapping[str, str]] = {
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/accept_ra": "0",
    # As container runtimes set them: inside a pod no port is privileged, and everybody may ping.
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 2147483647",
}

#: What a node, or any router, needs besides.
ROUTER_SYSCTLS: Final[Mapping[str, str]] = {
    **ENDPOINT_SYSCTLS,
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/default/forwarding": "1",
}


def make(path: Path, sysctls: Mapping[str, str]) -> None:
    """Makes a network namespace with its loopback up, held by the file `path`.

    Raises FileExistsError when there is such a file. IPv6 sysctls are passed over on a machine that has
    no IPv6 at all.
    """
    path.touch(mode=0o600, exist_ok=False)

    def build() -> None:
        kernel.unshare(kernel.CLONE_NEWNET)
        kernel.bind("/proc/thread-self/ns/net", str(path))
        for name, value in sysctls.items():
            _set_sysctl(name, value)
        _bring_up("lo")

    # A thread of its own, which ends in there: this one never leaves its namespace.
    try:
        _in_thread(build)
    except BaseException:
        release(path)
        raise


def release(path: Path) -> bool:
    """Lets the namespace go; the kernel frees it with its last socket. False when there is no such file."""
    if not path.exists():
        return False
    if held(path):
        kernel.unmount(str(path))
    path.unlink()
    return True


def held(path: Path) -> bool:
    """Whether `path` is the file of a live namespace, and not an ordinary one that a crash left."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev  # nsfs is a device of its own
    except FileNotFoundError:
        return False


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_socket(path: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in the namespace that `path` holds, not blocking."""
    with opened(path) as descriptor, kernel.inside(descriptor):
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    return made


def cookie() -> int:
    """The kernel's number for the namespace that this thread is in, which no other ever has (Linux 5.14)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, sys.byteorder)


def _in_thread(work: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # handed to the caller, below
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _set_sysctl(name: str, value: str) -> None:
    try:
        # /proc/sys/net shows the namespace of the thread that opens it.
        descriptor = os.open(f"/proc/sys/net/{name}", os.O_WRONLY)
    except FileNotFoundError:
        if name.startswith("ipv6/"):
            return
        raise
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", interface.encode(), 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", interface.encode(), flags | _IFF_UP))
