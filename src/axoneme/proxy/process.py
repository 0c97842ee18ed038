"""The life of a proxy as a process: what is the same for all kinds.

It starts as root, for it has to enter the agent's directories; makes what is in its folder its own, stays
there, and becomes an unprivileged user for the rest of its life. It ends when its plan is taken away, or
when it is told to.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import platform
import pwd
import resource
import stat
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from axoneme.proxy.config import ProxyConfig, load
from axoneme.proxy.following import Following
from axoneme.proxy.plan import KINDS, directory
from axoneme.rpc import privileges
from axoneme.rpc.daemon import until_told
from axoneme.sources.config import ConfigError

log = logging.getLogger(__name__)

#: The mode of a proxy's folder: plans have secrets in them.
_CLOSED = 0o700


@dataclass(frozen=True)
class Surroundings:
    """What a proxy has to work with. Its folder is the current directory."""

    config: ProxyConfig
    following: Following
    _directory: int

    def reachable(self, path: Path) -> Path:
        """Another name of what lies in the agent's directory, to which this user might not find its way; the
        directory itself has to be open to it."""
        inside = os.path.relpath(path, self.config.directory)
        return path if inside.startswith("..") else Path(f"/proc/self/fd/{self._directory}/{inside}")


class Proxy(Protocol):
    """The module ``axoneme.proxy.KIND.process``."""

    @staticmethod
    def start(surroundings: Surroundings) -> Coroutine[object, object, None]:
        """What has to be done as root is done in here, before there are threads; the rest in the coroutine,
        which ends when there are no more plans."""


def capabilities() -> tuple[int, ...]:
    """Those of a proxy: sockets with others' addresses, and marks on them."""
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    marks = () if release >= (5, 17) else (privileges.CAP_NET_ADMIN,)
    return privileges.CAP_NET_RAW, *marks


def run(kind: str, path: Path) -> None:
    """Until SIGTERM or SIGINT. Raises `axoneme.sources.config.ConfigError`, OSError."""
    if kind not in KINDS:
        raise ValueError(f"no proxy is called {kind!r}; there are {', '.join(KINDS)}")
    config = load(path)
    _enter(directory(config.state_path, kind), config.proxies.user)
    proxy = cast(Proxy, importlib.import_module(f"axoneme.proxy.{kind}.process"))
    root = os.open(config.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    work = proxy.start(Surroundings(config, Following(Path()), root))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    privileges.become(config.proxies.user, capabilities())
    if asyncio.run(until_told(work)):
        log.info("asked to stop")


def _enter(folder: Path, user: str) -> None:
    """Makes the folder the user's own, and the current directory."""
    folder.mkdir(mode=_CLOSED, parents=True, exist_ok=True)
    os.chdir(folder)
    os.umask(0o077)
    here = Path()
    if stat.S_IMODE(here.stat().st_mode) != _CLOSED:
        here.chmod(_CLOSED)
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise ConfigError(
                f"proxies.user: this machine has no user {user!r}; name one that exists"
            ) from None
        os.chown(here, entry.pw_uid, entry.pw_gid)
