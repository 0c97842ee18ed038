"""`axo policy confirm`: policies for nodes that are tried stay in force."""

from __future__ import annotations

import click
import msgspec

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place, in_sandbox
from axoneme.model.hostpolicystate import HostPolicyState


@click.command()
@in_sandbox
@click.pass_obj
def confirm(place: Place) -> int:
    """Keep the policies for nodes that are tried now.

    A new or changed policy for nodes is in force for a while only; then what was confirmed before is again.
    That this command reaches the agents shows that the nodes can be reached. On machines, run it on each.
    """
    from axoneme.rpc import Client, RpcError

    failures = []
    for node in place.nodes():
        agent = Client(place.sockets(node).agent)
        try:
            before = agent.call("status", None, _Status).host_policies
            after = agent.call("policy.confirm", None, HostPolicyState)
        except RpcError as failure:
            failures.append(f"node {node}: not confirmed: {failure.message}")
            continue
        what = ", ".join(before.pending) or "nothing was tried"
        tried = f"; still tried: {', '.join(after.pending)}" if after.pending else ""
        click.echo(f"node {node}: {what}; confirmed are {', '.join(after.confirmed) or 'none'}{tried}")
    if failures:
        raise Failure("\n".join(failures))
    return 0


class _Status(msgspec.Struct, frozen=True):
    host_policies: HostPolicyState = HostPolicyState()
