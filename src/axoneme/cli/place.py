"""Where a command works: in which sandbox, in which namespace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from axoneme.sandbox.layout import Layout

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SANDBOX = "default"
DEFAULT_NAMESPACE = "default"


@dataclass
class Place:
    """``namespace`` is None where the command line names none."""

    sandbox: str = DEFAULT_SANDBOX
    namespace: str | None = None

    @property
    def layout(self) -> Layout:
        """The files of the sandbox, which need not be there."""
        from axoneme.sandbox.layout import Layout, check_name

        return Layout(check_name(self.sandbox))

    @property
    def existing(self) -> Layout:
        """The files of the sandbox; SandboxError when there is none."""
        from axoneme.sandbox.errors import SandboxError

        layout = self.layout
        if not layout.directory.is_dir():
            hint = "" if self.sandbox == DEFAULT_SANDBOX else f" --sandbox {self.sandbox}"
            raise SandboxError(f"there is no sandbox {self.sandbox}; `axo sandbox up{hint}` makes one")
        return layout

    def nodes(self) -> list[str]:
        """The names of the sandbox's nodes, in their order."""
        folder = self.existing.nodes
        found = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(found, key=lambda name: (len(name), name))

    @property
    def in_namespace(self) -> str:
        return self.namespace or DEFAULT_NAMESPACE


def in_sandbox(command: F) -> F:
    """Adds ``--sandbox``; it may stand before or behind the command's name."""
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


def _take(field: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def take(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        place = context.ensure_object(Place)
        source = context.get_parameter_source(parameter.name or "")
        # What was written behind the command counts more than the environment, which all of them read.
        from_environment = source is click.core.ParameterSource.ENVIRONMENT
        if value is not None and not (from_environment and context.parent is not None):
            setattr(place, field, value)

    return take
