"""The table of commands, and how they are run.

Each command names the module and attribute that implement it, which are imported only when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from axoneme.cli.failures import Failure, sentence
from axoneme.cli.place import Place, in_namespace, in_sandbox


class Entry(NamedTuple):
    """``where`` is ``module:attribute`` within this package."""

    where: str
    help: str


Table = dict[str, dict[str, Entry]]

COMMANDS: Table = {
    "Sandbox": {
        "sandbox": Entry("sandbox:group", "Make, remove and look at sandboxes."),
        "demo": Entry("demo:demo", "Show in one go what this is."),
        "status": Entry("status:status", "How the sandbox and its nodes are."),
        "doctor": Entry("doctor:doctor", "Find out what is broken, and what to do about it."),
    },
    "Objects": {
        "apply": Entry("apply:apply", "Create or change objects from manifests."),
        "get": Entry("get:get", "List objects."),
        "describe": Entry("describe:describe", "All that is known of an object."),
        "delete": Entry("delete:delete", "Delete objects."),
        "scale": Entry("change:scale", "Set how many pods a workload has."),
        "label": Entry("change:label", "Set and remove labels of objects."),
        "exec": Entry("pods:exec_", "Run a command in a pod."),
        "logs": Entry("pods:logs", "Print what a pod's container has written."),
    },
    "Network": {
        "observe": Entry("observe:observe", "Watch flows: who talks to whom, and what was decided."),
        "relay": Entry("relay:relay", "Serve the flows of all nodes at one address."),
        "ui": Entry("ui:ui", "Serve the web UI: service map, flows, policies, nodes."),
        "top": Entry("top:top", "See the busiest edges: traffic, drops, latencies, live."),
        "capture": Entry("capture:capture", "Write packets of chosen flows into a file for Wireshark."),
        "metrics": Entry("metrics:group", "Dashboards and alert rules for Prometheus metrics."),
        "names": Entry("names:names", "See what nodes know of DNS names."),
        "service": Entry("service:group", "See what is balanced, to which backends."),
        "policy": Entry("policy:group", "Explain and test what policies decide."),
    },
    "Processes of a node": {
        "agent": Entry("processes:agent", "Run the agent."),
        "flows": Entry("flows:group", "Run the flow server; ask recorded and present flows in SQL."),
        "history": Entry("processes:history", "Keep flows on disk."),
        "proxy": Entry("processes:proxy", "Run a proxy."),
        "operator": Entry("processes:operator", "Run the operator of a cluster."),
        "leave": Entry("processes:leave", "Take this machine out of the network for good."),
    },
    "Certificates": {
        "ca": Entry("authority:group", "Make and keep the authority that certifies nodes."),
    },
    "Without a cluster": {
        "lb": Entry("balancer:group", "The standalone load balancer."),
    },
    "Other": {
        "version": Entry("other:version", "Print versions."),
        "completion": Entry("other:completion", "Print the completion script for a shell."),
    },
}


class Lazy(click.Group):
    """A group that knows its commands from a table."""

    def __init__(self, *arguments: Any, table: Table, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._table = table
        self._entries = {name: entry for section in table.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.where.partition(":")
        command = getattr(import_module(f"axoneme.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=entry.help)
            for name, entry in self._entries.items()
            if name.startswith(incomplete)
        ]
        # The group's own options are a command's; a group would import all of its commands to ask them.
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in self._table.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in section.items()], col_max=12)


@click.group(cls=Lazy, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@in_sandbox
@in_namespace
def cli() -> None:
    """Connect, secure and observe workloads with eBPF.

    `axo sandbox up` makes a small cluster on this machine; the commands for objects work as kubectl's do.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs a command and says what went wrong, if something did; the exit code."""
    try:
        code = cli.main(list(arguments), prog_name="axo", standalone_mode=False, obj=Place())
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.ClickException as failure:
        failure.show()
        return failure.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`); nothing may be flushed there at exit.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as failure:
        said = sentence(failure)
        if said is None:
            raise
        Failure(said).show()
        return 1
