"""`axo ca`: the authority that certifies a cluster's nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axoneme.cli.failures import Failure
from axoneme.cli.place import Place, in_sandbox
from axoneme.cli.tables import Table, show

if TYPE_CHECKING:
    from axoneme.certificates.authority import Authority

#: Of a machine that is none of a sandbox's.
DEFAULT = Path("/etc/axoneme/ca")

_DIRECTORY = click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="AXO_CA",
    help=f"Where the authority is; default: $AXO_CA, that of the sandbox, or with --config {DEFAULT}.",
)


@click.group()
def group() -> None:
    """Make and keep the authority that certifies nodes.

    Its directory holds the key, so only who may read that can do any of this. Nodes are certified by
    themselves, by whoever runs with that directory: `axo operator`, in a sandbox a process of its own.
    """


@group.command()
@_DIRECTORY
@click.option("--cluster", metavar="NAME", help="Which cluster; default: the sandbox's, or the agent's.")
@click.option("--trust-domain", metavar="NAME", help="Of identities; default: spiffe.cilium, as Cilium's.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="How long nodes' certificates hold."
)
@click.option(
    "--root-certificate", metavar="FILE", type=click.Path(path_type=Path), help="A root of your own."
)
@click.option("--root-key", metavar="FILE", type=click.Path(path_type=Path), help="Its key (ECDSA).")
@in_sandbox
@click.pass_obj
def init(
    place: Place,
    directory: Path | None,
    cluster: str | None,
    trust_domain: str | None,
    days: float | None,
    root_certificate: Path | None,
    root_key: Path | None,
) -> None:
    """Make an authority."""
    from axoneme.certificates.authority import CERTIFICATE_DAYS, read_root
    from axoneme.certificates.names import TRUST_DOMAIN

    if (root_certificate is None) is not (root_key is None):
        raise click.UsageError("--root-certificate and --root-key belong together")
    root = read_root(root_certificate, root_key) if root_certificate and root_key else None
    authority = _authority(place, directory)
    cluster = cluster or (place.machine.cluster_name if place.machine else "default")
    authority.init(cluster, trust_domain or TRUST_DOMAIN, days or CERTIFICATE_DAYS, root)
    click.echo(f"{authority.folder}: the authority of cluster {cluster}")


@group.command()
@click.argument("name")
@click.option("--dns", metavar="NAME", multiple=True, help="A DNS name of its holder; may be repeated.")
@click.option("--ip", metavar="ADDRESS", multiple=True, help="An address of its holder; may be repeated.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How long it holds.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to write NAME.crt, NAME.key and ca.crt.",
)
@_DIRECTORY
@in_sandbox
@click.pass_obj
def issue(
    place: Place,
    name: str,
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    days: float | None,
    out: Path,
    directory: Path | None,
) -> None:
    """Certify by hand: a client, such as `hubble` or Prometheus, or a server that is no node.

    Nodes do not need it. It is not renewed by itself.
    """
    from axoneme.certificates.files import write

    authority = _authority(place, directory)
    chain, key = authority.issue(name, dns, ip, days or authority.days)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(out / f"{name}.key", key, 0o600)
    write(out / f"{name}.crt", chain, 0o644)
    write(out / "ca.crt", authority.public().bundle.encode(), 0o644)
    click.echo(f"{out}: {name}.crt, {name}.key, ca.crt")


@group.command("show")
@_DIRECTORY
@in_sandbox
@click.pass_obj
def show_(place: Place, directory: Path | None) -> None:
    """Whom the cluster trusts, and who has certificates."""
    authority = _authority(place, directory)
    state = authority.public()
    click.echo(f"cluster {state.cluster}, trust domain {state.trust_domain}, {authority.folder}")
    for problem in authority.problems():
        click.echo(click.style("warning", fg="yellow") + f"  {problem}")
    click.echo()
    show(Table(("AUTHORITY", "SHA-256", "TRUSTED UNTIL"), list(_roots(authority))))
    if rows := list(_holders(authority)):
        click.echo()
        show(Table(("HOLDER", "KIND", "SERIAL", "ENDS"), rows))


@group.command()
@click.option("--now", is_flag=True, help="Trust the present key no longer: it has got into wrong hands.")
@_DIRECTORY
@in_sandbox
@click.pass_obj
def rotate(place: Place, now: bool, directory: Path | None) -> None:
    """Give the authority a new key.

    What the present one has certified stays good until it ends, and all nodes get new certificates at once.
    With --now it is good no longer: connections fail until both ends have been certified anew, which takes
    seconds, and what was issued by hand must be issued again.
    """
    authority = _authority(place, directory)
    authority.rotate(at_once=now)
    roots = authority.roots()
    click.echo(f"{authority.folder}: a new key; earlier ones that are still trusted: {len(roots) - 1}")


@group.command()
@click.argument("node")
@_DIRECTORY
@in_sandbox
@click.pass_obj
def forget(place: Place, node: str, directory: Path | None) -> None:
    """Believe the next key that asks in the name of NODE: the machine was made anew."""
    if not _authority(place, directory).forget(node):
        raise Failure(f"node {node}: it has no certificate of this authority; `axo ca show` tells who has")
    click.echo(f"node {node}: the next key that asks in its name is certified")


def _authority(place: Place, directory: Path | None) -> Authority:
    from axoneme.certificates.authority import Authority

    if directory is None:
        directory = DEFAULT if place.machine else place.existing.authority
    return Authority(directory)


def _roots(authority: Authority) -> Iterator[Sequence[str]]:
    from axoneme.certificates.making import fingerprint

    for root, until in authority.roots():
        yield root.subject.rfc4514_string(), fingerprint(root)[:16], _said(until)


def _holders(authority: Authority) -> Iterator[Sequence[str]]:
    journal = authority.journal()
    for name, record in sorted(journal.nodes.items()):
        yield name, "node", record.serial[:16], _said(record.ends)
    for each in journal.others:
        yield each.name, "by hand", each.serial[:16], _said(each.ends)


def _said(moment: float) -> str:
    ended = " (ended)" if moment <= time.time() else ""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment)) + ended
