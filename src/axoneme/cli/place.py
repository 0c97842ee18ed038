"""Where a command works: in which sandbox, or on this machine as a node; in which namespace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from axoneme.cli.failures import Failure

if TYPE_CHECKING:
    from axoneme.agent.config import AgentConfig
    from axoneme.sandbox.layout import Layout
    from axoneme.sandbox.services.allocation import Ranges
    from axoneme.sources.store import Store

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SANDBOX = "default"
DEFAULT_NAMESPACE = "default"


class Sockets(NamedTuple):
    """Where a node's two processes answer."""

    agent: Path
    flows: Path


@cache
def _read(config: Path) -> AgentConfig:
    from axoneme.agent.config import load

    return load(config)


@dataclass
class Place:
    """``namespace`` is None where the command line names none.

    ``config`` is the configuration of this machine's own agent; a sandbox that the command line names
    (``named``) counts more.
    """

    sandbox: str = DEFAULT_SANDBOX
    namespace: str | None = None
    config: Path | None = None
    named: bool = False

    @property
    def machine(self) -> AgentConfig | None:
        """This machine as a node, where a command works on that."""
        if self.config is None or self.named:
            return None
        return _read(self.config)

    def __str__(self) -> str:
        machine = self.machine
        return f"sandbox {self.sandbox}" if machine is None else f"node {machine.node}"

    @property
    def layout(self) -> Layout:
        """The files of the sandbox, which need not be there."""
        from axoneme.sandbox.layout import Layout, check_name

        return Layout(check_name(self.sandbox))

    @property
    def existing(self) -> Layout:
        """The files of the sandbox; SandboxError when there is none."""
        from axoneme.sandbox.errors import SandboxError

        if self.config is not None and not self.named:
            raise Failure(f"{self} is no sandbox, and only sandboxes have this; --sandbox names one")
        layout = self.layout
        if not layout.directory.is_dir():
            hint = "" if self.sandbox == DEFAULT_SANDBOX else f" --sandbox {self.sandbox}"
            raise SandboxError(f"there is no sandbox {self.sandbox}; `axo sandbox up{hint}` makes one")
        return layout

    def open_store(self) -> Store:
        """The shared state; it is for the caller to close."""
        if machine := self.machine:
            from axoneme.sources.config import open_store

            return open_store(machine.store)
        from axoneme.sources.sqlite import SqliteStore

        path = self.existing.store
        if not path.exists():
            raise Failure(f"{self} has no objects yet: it is still being made")
        return SqliteStore(path)

    @property
    def service_ranges(self) -> Ranges | None:
        """From where services get their addresses; None on a machine, whose services somebody else keeps."""
        from axoneme.sandbox import planfile

        if self.machine is not None or not self.existing.plan.exists():
            return None
        return planfile.load(self.existing).service_ranges()

    def sockets(self, node: str) -> Sockets:
        """Of one of the `nodes`; `Failure` for one that is another machine."""
        if machine := self.machine:
            if node != machine.node:
                raise Failure(f"{self} cannot ask {node}: run this there")
            return Sockets(machine.agent_socket_path, machine.flows_socket_path)
        files = self.existing.node(node)
        return Sockets(files.agent_socket, files.flows_socket)

    def configuration(self, node: str) -> Path:
        """The file that a node's processes read; of one of the `nodes`."""
        return self.config if self.config is not None and not self.named else self.existing.node(node).config

    def network(self, node: str) -> Path:
        """The file of the network namespace of one of the `nodes`."""
        if self.machine is not None:
            return Path("/proc/thread-self/ns/net")
        return self.existing.namespace(node)

    def nodes(self) -> list[str]:
        """The names of the nodes that can be asked from here, in their order."""
        if machine := self.machine:
            return [machine.node]
        folder = self.existing.nodes
        found = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(found, key=lambda name: (len(name), name))

    @property
    def in_namespace(self) -> str:
        return self.namespace or DEFAULT_NAMESPACE


def in_sandbox(command: F) -> F:
    """Adds ``--sandbox`` and ``--config``; they may stand before or behind the command's name."""
    command = click.option(
        "--config",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="AXO_CONFIG",
        help="This machine as a node: the file that its agent reads; default: $AXO_CONFIG, else a sandbox.",
        expose_value=False,
        callback=_take("config"),
    )(command)
    return click.option(
        "--sandbox",
        metavar="NAME",
        envvar="AXO_SANDBOX",
        help="Which sandbox; default: $AXO_SANDBOX, or 'default'.",
        expose_value=False,
        callback=_take("sandbox"),
    )(command)


def in_namespace(command: F) -> F:
    """Adds ``-n``; it may stand before or behind the command's name."""
    return click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        help="Which namespace; default: 'default'.",
        expose_value=False,
        callback=_take("namespace"),
    )(command)


def _take(field: str) -> Callable[[click.Context, click.Parameter, str | Path | None], None]:
    def take(context: click.Context, parameter: click.Parameter, value: str | Path | None) -> None:
        place = context.ensure_object(Place)
        source = context.get_parameter_source(parameter.name or "")
        # What was written behind the command counts more than the environment, which all of them read.
        from_environment = source is click.core.ParameterSource.ENVIRONMENT
        if value is not None and not (from_environment and context.parent is not None):
            setattr(place, field, value)
            place.named |= field == "sandbox" and not from_environment

    return take
