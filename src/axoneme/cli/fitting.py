"""Whether the nodes can put policies in force that are about to be written: their agents know."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place
from axoneme.model.manifests import CIDR_GROUP
from axoneme.model.policies import POLICY_KINDS
from axoneme.rpc import Client, RpcError
from axoneme.sandbox.objects import ObjectKey

#: Seconds that an agent may take to try them: it compiles all of them.
_PATIENCE = 60.0
#: Kinds that make entries; Services only change what these mean.
_KINDS = (*POLICY_KINDS, CIDR_GROUP)
#: How many objects an error names.
_NAMED = 3


def check(place: Place, changed: Mapping[str, bytes]) -> None:
    """`Failure` when a node that can be asked has no room for these objects, by their keys, or when they
    cannot hold together.

    A node that cannot be asked has to refuse them itself. When none can be, that is said.
    """
    keys = {path: ObjectKey.parse(path) for path in changed}
    names = [str(key) for key in keys.values() if key.kind in _KINDS]
    nodes = place.nodes() if names else []
    kinds = {*_KINDS, "Service"}
    objects = {path: json.loads(changed[path]) for path, key in keys.items() if key.kind in kinds}
    problems: list[str] = []
    silent: list[str] = []
    for node in nodes:
        try:
            needs = Client(place.sockets(node).agent, _PATIENCE).call("policy.fits", {"objects": objects})
        except RpcError as error:
            silent.append(f"the agent of {node}: {error.message}")
        else:
            problems += [f"{node}: {need['problem']}" for need in needs if need["problem"]]
    if problems:
        what = ", ".join(names[:_NAMED]) + (f" and {more} more" if (more := len(names) - _NAMED) > 0 else "")
        raise Failure("\n  ".join([f"nothing was done: {what} cannot be put in force", *problems]))
    if silent and len(silent) == len(nodes):
        click.echo(f"whether it fits the nodes' tables is not known: {silent[0]}", err=True)
