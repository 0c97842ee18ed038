"""`axo delete`: taking objects away, pods the graceful way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from axoneme.cli import kinds, manifests
from axoneme.cli.completing import complete_objects
from axoneme.cli.failures import Failure
from axoneme.cli.getting import find, with_selector
from axoneme.cli.kinds import Target, of_object
from axoneme.cli.objects import Document, Stored, get, missing, update, work
from axoneme.cli.place import DEFAULT_NAMESPACE, Place, in_namespace, in_sandbox
from axoneme.model.labels import Selector
from axoneme.sandbox.clock import now
from axoneme.sources.store import Store

#: Seconds between two looks at whether pods are gone.
_LOOK = 0.05
_GRACE = 30


@click.command()
@click.argument("words", nargs=-1, metavar="[KIND [NAME]...]", shell_complete=complete_objects)
@manifests.with_files(required=False)
@click.option("--all", "every", is_flag=True, help="All objects of the kind in the namespace.")
@click.option("--ignore-not-found", is_flag=True, help="An object that is not there is no failure.")
@click.option("--grace-period", type=click.IntRange(0), help="Seconds that a pod's processes get to end.")
@click.option("--force", is_flag=True, help="Without any grace.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until pods are gone.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait at most.")
@with_selector
@in_namespace
@in_sandbox
@click.pass_obj
def delete(
    place: Place,
    words: Sequence[str],
    files: Sequence[str],
    recursive: bool,
    every: bool,
    ignore_not_found: bool,
    grace_period: int | None,
    force: bool,
    wait: bool,
    timeout: float,
    selector: Selector | None,
) -> int:
    """Delete objects: by name, by label, all of a kind, or those that manifests name.

    `axo delete pod web-1`, `axo delete deploy,svc -l app=web`, `axo delete -f app.yaml`. What an object
    controls goes with it. Ends with 1 when an object was not there.
    """
    if bool(words) == bool(files):
        raise click.UsageError("give either a kind with names, or -f FILE")
    if files and (selector or every):
        raise click.UsageError("-l and --all go with a kind, not with -f")
    if words:
        targets = kinds.targets(words)
        if any(not target.name for target in targets) and not (selector or every):
            raise click.UsageError("give the name of an object, -l SELECTOR or --all")
    grace = 0 if force else grace_period

    async def run(store: Store) -> list[Failure]:
        if files:
            stored, lacking = await _written(store, place, files, recursive)
        else:
            stored, lacking = await _asked(store, place, targets, selector)
        for each in stored:
            _refuse(each)
        # A namespace that goes first would be made again for what is still in it.
        stored.sort(key=lambda each: each.kind == kinds.NAMESPACE)
        leaving = [each for each in stored if await _delete(store, each, grace)]
        if wait:
            await _gone(store, leaving, timeout)
        if not stored and not lacking:
            click.echo("No resources found.", err=True)
        return lacking

    lacking = work(place, run)
    if ignore_not_found:
        return 0
    for failure in lacking:
        failure.show()
    return 1 if lacking else 0


async def _asked(
    store: Store, place: Place, targets: Sequence[Target], selector: Selector | None
) -> tuple[list[Stored], list[Failure]]:
    for target in targets:
        if target.kind in (kinds.ENDPOINT, kinds.IDENTITY):
            raise Failure(f"{target.kind.plural} are made by the nodes from pods: delete the pods")
    found = await find(store, targets, place.in_namespace, selector)
    stored = [item for each in found for item in each.items if isinstance(item, Stored)]
    lacking = [failure for each in found for failure in each.missing]
    if any(target.name for target in targets) and len({target.kind for target in targets}) > 1:
        # Of a category, such as policies, one kind that has the name is enough.
        names = {each.key.name for each in stored}
        lacking = [each for each in lacking if not any(f'"{name}"' in each.message for name in names)]
    return stored, lacking


async def _written(
    store: Store, place: Place, files: Sequence[str], recursive: bool
) -> tuple[list[Stored], list[Failure]]:
    """What manifests name. They need not be sound for that, as long as their objects have names."""
    stored: list[Stored] = []
    lacking: list[Failure] = []
    for kind, namespace, name in manifests.names(place, files, recursive):
        found = await get(store, of_object(kind), namespace, name)
        if found:
            stored.append(found)
        else:
            lacking.append(missing(of_object(kind), namespace, name))
    return stored, lacking


def _refuse(stored: Stored) -> None:
    if stored.kind == kinds.NODE:
        raise Failure(
            f"{stored}: nodes are the sandbox's own; `axo sandbox up --nodes N` says how many it has"
        )
    if stored.kind == kinds.NAMESPACE and stored.key.name == DEFAULT_NAMESPACE:
        raise Failure(f"{stored}: this namespace cannot be deleted; delete what is in it")


async def _delete(store: Store, stored: Stored, grace: int | None) -> bool:
    """Whether it is a pod that its node has yet to end."""
    if stored.kind == kinds.POD and stored.document().get("spec", {}).get("nodeName"):

        def mark(document: Document) -> bool:
            metadata, spec = document["metadata"], document.get("spec", {})
            seconds = spec.get("terminationGracePeriodSeconds", _GRACE) if grace is None else grace
            if metadata.get("deletionTimestamp") and metadata.get("deletionGracePeriodSeconds") == seconds:
                return False
            metadata.setdefault("deletionTimestamp", now())
            metadata["deletionGracePeriodSeconds"] = seconds
            return True

        try:
            await update(store, stored, mark)
        except Failure:
            if await store.get(stored.key.path()) is not None:
                raise
        on_node = True
    else:
        await store.delete(stored.key.path())
        on_node = False
    click.echo(f'{stored.kind.resource} "{stored.key.name}" deleted')
    return on_node


async def _gone(store: Store, pods: Sequence[Stored], timeout: float) -> None:
    uids = {each.key.path(): each.document()["metadata"].get("uid") for each in pods}
    try:
        async with asyncio.timeout(timeout):
            for path, uid in uids.items():
                while (entry := await store.get(path)) is not None:
                    if Stored.of(entry).document()["metadata"].get("uid") != uid:
                        break  # another one has its name by now
                    await asyncio.sleep(_LOOK)
    except TimeoutError:
        raise Failure(
            f"{path}: still there after {timeout:g} s; its node has not ended it, `axo status` may say why"
        ) from None
