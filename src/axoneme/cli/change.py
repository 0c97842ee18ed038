"""`axo scale` and `axo label`: changing one thing of objects that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from axoneme.cli import kinds
from axoneme.cli.completing import complete_objects
from axoneme.cli.failures import Failure
from axoneme.cli.getting import find, with_selector
from axoneme.cli.kinds import Target
from axoneme.cli.merging import counted
from axoneme.cli.objects import Document, Stored, update, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.model import checks
from axoneme.model.labels import Selector
from axoneme.model.paths import ManifestError
from axoneme.model.paths import Place as Field
from axoneme.sources.store import Store

_SCALABLE = (kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME...", shell_complete=complete_objects)
@click.option("--replicas", type=click.IntRange(0), required=True, help="How many pods.")
@in_namespace
@in_sandbox
@click.pass_obj
def scale(place: Place, words: Sequence[str], replicas: int) -> None:
    """Set how many pods a deployment, replica set or stateful set has.

    `axo scale deployment web --replicas 3`, `axo scale deploy/web sts/db --replicas 3`.
    """
    targets = _named(words, "scale")
    for target in targets:
        if target.kind not in _SCALABLE:
            possible = ", ".join(kind.plural for kind in _SCALABLE)
            raise Failure(f"{target.kind.plural} have no number of pods to set; {possible} have")

    def change(document: Document) -> bool:
        before = dict(document)
        document["spec"] = {**document.get("spec", {}), "replicas": replicas}
        counted(before, document)
        return bool(document["spec"] != before.get("spec"))

    async def run(store: Store) -> None:
        for stored in await _all(store, targets, place, None):
            await update(store, stored, change)
            click.echo(f"{stored} scaled")

    work(place, run)


@click.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="KIND NAME... KEY=VALUE|KEY-...",
    shell_complete=complete_objects,
)
@click.option("--overwrite", is_flag=True, help="Change labels that have another value.")
@click.option("--all", "every", is_flag=True, help="All objects of the kind in the namespace.")
@with_selector
@in_namespace
@in_sandbox
@click.pass_obj
def label(
    place: Place, words: Sequence[str], overwrite: bool, every: bool, selector: Selector | None
) -> None:
    """Set labels of objects (KEY=VALUE), or remove them (KEY-).

    `axo label pod web-1 tier=front`, `axo label namespace shop team- --overwrite`.
    """
    objects = [word for word in words if not _is_change(word)]
    changes = _changes([word for word in words if _is_change(word)])
    if not objects or not changes:
        raise click.UsageError("give a kind, names, and at least one KEY=VALUE or KEY-")
    targets = kinds.targets(objects)
    if any(not target.name for target in targets) and not (every or selector):
        raise click.UsageError("give the name of an object, -l SELECTOR or --all")

    def change(document: Document) -> bool:
        metadata = document["metadata"]
        before: dict[str, str] = metadata.get("labels") or {}
        after = dict(before)
        for key, value in changes.items():
            there = after.pop(key, None)
            if value is None:
                continue
            if there not in {None, value} and not overwrite:
                raise Failure(
                    f"{document.get('kind')} {metadata.get('name')}: label {key} is {there} already; "
                    "--overwrite changes it"
                )
            after[key] = value
        metadata["labels"] = after
        return after != before

    async def run(store: Store) -> None:
        for stored in await _all(store, targets, place, selector):
            changed = await update(store, stored, change)
            click.echo(f"{stored} {'labeled' if changed else 'not labeled'}")

    work(place, run)


def _is_change(word: str) -> bool:
    return "=" in word or word.endswith("-")


def _changes(words: Sequence[str]) -> Mapping[str, str | None]:
    """The value of each label, None to remove it."""
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key if equals else word.removesuffix("-")
        try:
            checks.label_key(Field(key, word))
            changes[key] = checks.label_value(Field(value, word)) if equals else None
        except ManifestError as error:
            raise click.UsageError(str(error)) from None
    return changes


def _named(words: Sequence[str], command: str) -> list[Target]:
    targets = kinds.targets(words)
    if not all(target.name for target in targets):
        raise click.UsageError(f"give the name of what to {command}: KIND NAME, or KIND/NAME")
    return targets


async def _all(
    store: Store, targets: Sequence[Target], place: Place, selector: Selector | None
) -> list[Stored]:
    """The objects meant; `Failure` before anything is changed when one of them is not there."""
    found = await find(store, targets, place.in_namespace, selector)
    for each in found:
        if each.missing:
            raise each.missing[0]
        if each.kind in (kinds.ENDPOINT, kinds.IDENTITY):
            raise Failure(f"{each.kind.plural} are made by the nodes from pods: change the pods")
    return [item for each in found for item in each.items if isinstance(item, Stored)]
