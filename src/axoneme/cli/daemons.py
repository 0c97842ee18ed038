"""Starting the processes of a node, ``axo agent``, ``axo flows serve`` and ``axo proxy``, or that of a
cluster, ``axo operator``, and nothing besides them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple


class Role(Enum):
    AGENT = "agent"
    FLOWS = "flows serve"
    HISTORY = "history"
    OPERATOR = "operator"
    RELAY = "relay"
    BALANCER = "lb run"
    UI = "ui"
    ENVOY = "proxy envoy"
    KAFKA = "proxy kafka"
    DNS = "proxy dns"


class Daemon(NamedTuple):
    role: Role
    config: Path
    level: str = "info"


def parse(arguments: Sequence[str]) -> Daemon | None:
    """The daemon that these arguments start; None when they are for the command line proper, be it only
    to say what is wrong with them."""
    for role in Role:
        words = role.value.split()
        if arguments[: len(words)] == words and len(arguments) == len(words) + 2:
            option, value = arguments[len(words) :]
            if option == "--config":
                return Daemon(role, Path(value))
    return None


def run(daemon: Daemon) -> int:
    """Until the process is told to end; the exit code."""
    logging.basicConfig(
        stream=sys.stderr,
        level=daemon.level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        _main(daemon.role)(daemon.config)
    except KeyboardInterrupt:
        return 0
    except Exception as failure:
        from axoneme.cli.failures import sentence

        said = sentence(failure)
        if said is None:
            raise
        print(f"axo {daemon.role.value}: {said}", file=sys.stderr)
        return 1
    return 0


def _main(role: Role) -> Callable[[Path], None]:
    if role is Role.AGENT:
        from axoneme.agent import main as agent

        return agent.run
    if role is Role.OPERATOR:
        from axoneme.operator import main as operator

        return operator.run
    if role is Role.RELAY:
        from axoneme.relay import main as relay

        return relay.run
    if role is Role.BALANCER:
        from axoneme.balancer import main as balancer

        return balancer.run
    if role is Role.UI:
        from axoneme.ui import main as ui

        return ui.run
    if role is Role.HISTORY:
        from axoneme.history import main as history

        return history.run
    if role is Role.FLOWS:
        from axoneme.flowserver import server

        return server.run
    from axoneme.proxy import process

    return partial(process.run, role.value.removeprefix("proxy "))
