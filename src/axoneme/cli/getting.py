"""Finding what `axo get` and other commands are asked for, stored objects and published state alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from axoneme.cli import objects, state
from axoneme.cli.failures import Failure
from axoneme.cli.kinds import ENDPOINT, IDENTITY, Kind, Target
from axoneme.cli.objects import Document, Stored
from axoneme.model.labels import Label, Labels, Selector
from axoneme.model.state import EndpointState, IdentityState
from axoneme.sources.store import Store

#: An item of a listing: an object of the store, or a node's word.
Item = Stored | EndpointState | tuple[int, IdentityState]


@dataclass
class Found:
    """The items of one kind, and the failures of those that were asked for by name and are not there."""

    kind: Kind
    items: list[Item]
    missing: list[Failure]


def parse_selector(_: click.Context, parameter: click.Parameter, value: str | None) -> Selector | None:
    """The callback of ``-l``."""
    from axoneme.model.selectortext import parse_selector as parse

    if not value:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}", param=parameter) from None


def with_selector(command: Any) -> Any:
    """Adds ``-l``."""
    return click.option(
        "-l",
        "--selector",
        metavar="SELECTOR",
        callback=parse_selector,
        help="By labels: app=web,tier!=db,env in (a,b),!canary.",
    )(command)


async def find(
    store: Store, targets: Iterable[Target], namespace: str | None, selector: Selector | None = None
) -> list[Found]:
    """What the targets mean, one `Found` for each kind; all namespaces for None."""
    found: dict[Kind, Found] = {}
    for kind, name in targets:
        group = found.setdefault(kind, Found(kind, [], []))
        inside = namespace if kind.namespaced else None
        if name and namespace is None and kind.namespaced:
            raise Failure("an object cannot be found by its name over all namespaces: give -n instead of -A")
        items = [
            item for item in await _items(store, kind, inside, name) if not name or name_of(item) == name
        ]
        if name and not items:
            group.missing.append(objects.missing(kind, namespace or "", name))
        group.items += [item for item in items if selector is None or selector.matches(labels_of(item))]
    return list(found.values())


async def _items(store: Store, kind: Kind, namespace: str | None, name: str) -> list[Item]:
    if kind == ENDPOINT:
        return [*await state.endpoints(store, namespace)]
    if kind == IDENTITY:
        return [*(await state.identities(store)).items()]
    if name:
        stored = await objects.get(store, kind, namespace or "", name)
        return [stored] if stored else []
    return [*await objects.listing(store, kind, namespace)]


def name_of(item: Item) -> str:
    if isinstance(item, Stored):
        return item.key.name
    return item.pod if isinstance(item, EndpointState) else str(item[0])


def namespace_of(item: Item) -> str:
    if isinstance(item, Stored):
        return item.key.namespace
    return item.namespace if isinstance(item, EndpointState) else ""


def labels_of(item: Item) -> Labels:
    if isinstance(item, Stored):
        labels: Mapping[str, str] = item.document()["metadata"].get("labels") or {}
        return Labels(Label("k8s", key, value) for key, value in labels.items())
    return Labels.parse(item.labels if isinstance(item, EndpointState) else item[1].labels)


def document_of(item: Item) -> Document:
    if isinstance(item, Stored):
        return item.document()
    return state.of_endpoint(item) if isinstance(item, EndpointState) else state.of_identity(*item)
