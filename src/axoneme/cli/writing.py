"""Writing manifests into a sandbox's store: all of them at once, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from axoneme.cli.failures import Failure
from axoneme.cli.kinds import SERVICE, Kind, of_object
from axoneme.cli.merging import Document, Immutable, merge, wanted
from axoneme.cli.objects import encode
from axoneme.model.manifests import Manifest
from axoneme.model.paths import ManifestError
from axoneme.sandbox import admission
from axoneme.sandbox.clock import surroundings
from axoneme.sandbox.objects import ObjectKey
from axoneme.sandbox.services.allocation import Ranges
from axoneme.sandbox.services.registry import SERVICES, Registry, guarding
from axoneme.sources.store import Conflict, Put, Store

if TYPE_CHECKING:
    from axoneme.sandbox.lifecycle import Populate

_ATTEMPTS = 20


class Outcome(NamedTuple):
    """What became of an object: ``created``, ``configured`` or ``unchanged``."""

    kind: Kind
    name: str
    verb: str

    def __str__(self) -> str:
        return f"{self.kind.resource}/{self.name} {self.verb}"


class Written(NamedTuple):
    """``revision`` is the store's once everything is in it."""

    revision: int
    outcomes: list[Outcome]


def populate(manifests: Sequence[Manifest], ranges: Ranges) -> Populate:
    """`write` as `lifecycle.up` takes it."""

    async def fill(store: Store) -> int:
        return (await write(store, manifests, ranges)).revision

    return fill


async def write(
    store: Store,
    manifests: Sequence[Manifest],
    ranges: Ranges | None = None,
    *,
    check: Callable[[Mapping[str, bytes]], None] = lambda _: None,
    dry: bool = False,
) -> Written:
    """Creates and changes the objects in one transaction; ``dry`` only says what would be done.

    Services get what they need from ``ranges``; without these they stay as they are written.
    ``check`` sees what is about to be written, by key, and may raise. `Failure` when one of them changes what
    cannot be changed. Nothing is written then.
    """
    giving = ranges is not None and any(each.kind == SERVICE.name for each in manifests)
    for _ in range(_ATTEMPTS):
        registry = await Registry.look(store) if giving else None
        expect: dict[str, int] = registry.expected() if registry else {}
        before: dict[str, bytes] = {}
        after: dict[str, bytes] = {}
        outcomes: list[Outcome] = []
        for manifest in manifests:
            key = ObjectKey(manifest.kind, manifest.namespace, manifest.name)
            path = key.path()
            if path not in expect:
                entry = await store.get(path)
                expect[path] = entry.revision if entry else 0
                if entry:
                    before[path] = after[path] = entry.value
            known = path in after
            document = _change(manifest, key, after.get(path))
            if registry and ranges and manifest.kind == SERVICE.name and document != after.get(path):
                document = _admitted(manifest, registry, path, document, ranges)
            verb = "created" if not known else "unchanged" if document == after[path] else "configured"
            after[path] = document
            outcomes.append(Outcome(of_object(manifest.kind), manifest.name, verb))
        changed = {path: value for path, value in after.items() if before.get(path) != value}
        check(changed)
        if dry:
            return Written(0, outcomes)
        try:
            puts = [Put(path, value) for path, value in changed.items()]
            if any(path.startswith(SERVICES) for path in changed):
                puts.append(guarding())
            return Written(await store.transact(expect if changed else {}, puts), outcomes)
        except Conflict:
            continue  # a controller has just written to one of them: look again
    raise Failure(f"the objects change so fast that {_ATTEMPTS} attempts to write them failed")


def _change(manifest: Manifest, key: ObjectKey, live: bytes | None) -> bytes:
    new = wanted(manifest.object)
    if live is None:
        return admission.complete(key, encode(_first(new)), surroundings())
    old = json.loads(live)
    try:
        merged = merge(old, new)
    except Immutable as error:
        kind = of_object(manifest.kind)
        raise Failure(
            f"{manifest} ({manifest.origin}): {error.path}: it differs from the object that exists, where it "
            f"cannot be changed; delete it first (axo delete {kind.name.lower()} {manifest.name}"
            f"{f' -n {manifest.namespace}' if manifest.namespace else ''}), then apply again"
        ) from None
    return live if merged == old else encode(merged)


def _admitted(manifest: Manifest, registry: Registry, path: str, document: bytes, ranges: Ranges) -> bytes:
    try:
        return encode(registry.admit(path, json.loads(document), ranges))
    except ManifestError as error:
        raise Failure(str(error.of(origin=manifest.origin))) from None


def _first(new: Document) -> Document:
    if "spec" not in new:
        return new
    return {**new, "metadata": {**new["metadata"], "generation": 1}}
