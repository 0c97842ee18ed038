"""`axo apply`: objects from manifests into the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from axoneme.cli import manifests
from axoneme.cli.objects import work
from axoneme.cli.place import Place, in_namespace, in_sandbox


@click.command()
@manifests.with_files(required=True)
@click.option("--dry-run", is_flag=True, help="Check, and say what would be done.")
@in_namespace
@in_sandbox
@click.pass_obj
def apply(place: Place, files: Sequence[str], recursive: bool, dry_run: bool) -> None:
    """Create or change objects from manifests.

    All objects are checked first and written together: when one is wrong, or the policies would not fit the
    tables of a node, nothing is changed. Kinds that play no part in a sandbox are listed as ignored.
    """
    from axoneme.cli.fitting import check
    from axoneme.cli.writing import write

    found = manifests.read(place, files, recursive)
    fits = partial(check, place)
    written = work(
        place, lambda store: write(store, found.objects, place.service_ranges, check=fits, dry=dry_run)
    )
    for outcome in written.outcomes:
        click.echo(f"{outcome}{' (dry run)' if dry_run else ''}")
    found.mention_ignored()
    if not found.objects:
        click.echo("there are no objects in it", err=True)
