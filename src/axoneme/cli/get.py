"""`axo get`: listing objects, in kubectl's forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from axoneme.cli import columns, kinds
from axoneme.cli.completing import complete_objects
from axoneme.cli.getting import (
    Found,
    Item,
    document_of,
    find,
    labels_of,
    name_of,
    namespace_of,
    with_selector,
)
from axoneme.cli.objects import Document, Stored, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.tables import Table, show
from axoneme.model.labels import Selector
from axoneme.model.state import EndpointState

_IDENTITY = ("IDENTITY", "LABELS")
_ENDPOINT = ("NAME", "ID", "IDENTITY", "ADDRESSES", "NODE", "STATE")


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="KIND[,KIND] [NAME]...", shell_complete=complete_objects
)
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="In which form.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("--show-labels", is_flag=True, help="Show the labels in a column.")
@click.option("--no-headers", is_flag=True, help="Leave the headers of columns away.")
@with_selector
@in_namespace
@in_sandbox
@click.pass_obj
def get(
    place: Place,
    words: Sequence[str],
    output: str | None,
    everywhere: bool,
    show_labels: bool,
    no_headers: bool,
    selector: Selector | None,
) -> int:
    """List objects: pods, services, deployments, policies, endpoints, identities, nodes and others.

    `axo get pods`, `axo get pods,services -o wide`, `axo get pod web-1 -o json`, `axo get deploy/web`.
    Ends with 1 when an object asked for by name is not there.
    """
    targets = kinds.targets(words)
    namespace = None if everywhere else place.in_namespace
    found = work(place, lambda store: find(store, targets, namespace, selector))
    items = [item for each in found for item in each.items]
    missing = [failure for each in found for failure in each.missing]
    if any(target.name for target in targets) and len(missing) < len(targets):
        # A category of kinds was asked for one name: that of whichever kind has it is meant.
        there = {name_of(item) for item in items}
        wanting = {target.name for target in targets} - there
        missing = [failure for failure in missing if any(f'"{name}"' in failure.message for name in wanting)]
    match output:
        case "json" | "yaml":
            single = len(targets) == 1 and bool(targets[0].name)
            _print(output, [document_of(item) for item in items], single)
        case "name":
            for each in found:
                for item in each.items:
                    click.echo(f"{each.kind.resource}/{name_of(item)}")
        case _:
            policies = len(words) == 1 and kinds.CATEGORIES.get(words[0].lower()) == kinds.POLICIES
            listings = [_Listing(found, "kind")] if policies else [_Listing([each]) for each in found]
            if len(listings) > 1:
                listings = [_Listing(each.found, "prefix") for each in listings]
            _tables(listings, everywhere, output == "wide", show_labels, not no_headers)
            if not items and not missing:
                where = "" if everywhere or not any(each.kind.namespaced for each in found) else namespace
                click.echo(f"No resources found{f' in {where} namespace' if where else ''}.", err=True)
    for failure in missing:
        failure.show()
    return 1 if missing else 0


class _Listing:
    """One table. ``naming``: how it tells kinds apart, by a ``prefix`` of names or a column ``kind``."""

    def __init__(self, found: Sequence[Found], naming: str = "") -> None:
        self.found = found
        self._naming = naming

    def table(self, namespaces: bool, wide: bool, show_labels: bool, now: datetime) -> Table:
        kind = self.found[0].kind
        headers, count = _headers(kind, wide)
        table = Table(
            [
                *(["NAMESPACE"] if namespaces and any(each.kind.namespaced for each in self.found) else []),
                *(["KIND"] if self._naming == "kind" else []),
                *headers,
                *(["LABELS"] if show_labels else []),
            ]
        )
        for each in self.found:
            for item in each.items:
                name, *cells = _cells(each.kind, item, now)[:count]
                table.rows.append(
                    [
                        *([namespace_of(item)] if table.headers[0] == "NAMESPACE" else []),
                        *([each.kind.name] if self._naming == "kind" else []),
                        f"{each.kind.resource}/{name}" if self._naming == "prefix" else name,
                        *cells,
                        *([_labels(item)] if show_labels else []),
                    ]
                )
        return table


def _tables(
    listings: Sequence[_Listing], namespaces: bool, wide: bool, show_labels: bool, headers: bool
) -> None:
    now = datetime.now(UTC)
    tables = [listing.table(namespaces, wide, show_labels, now) for listing in listings]
    filled = [table for table in tables if table.rows]
    for number, table in enumerate(filled):
        if number:
            click.echo()
        show(table, headers)


def _headers(kind: kinds.Kind, wide: bool) -> tuple[Sequence[str], int]:
    if kind == kinds.ENDPOINT:
        return ((*_ENDPOINT, "LABELS"), len(_ENDPOINT) + 1) if wide else (_ENDPOINT, len(_ENDPOINT))
    if kind == kinds.IDENTITY:
        return _IDENTITY, len(_IDENTITY)
    shown = columns.of(kind)
    count = len(shown.headers) if wide else shown.narrow
    return shown.headers[:count], count


def _cells(kind: kinds.Kind, item: Item, now: datetime) -> Sequence[str]:
    if isinstance(item, Stored):
        return columns.of(kind).of(item, now)
    if isinstance(item, EndpointState):
        return (
            item.pod,
            str(item.id),
            str(item.identity),
            ",".join(item.addresses),
            item.node,
            item.state,
            ",".join(item.labels),
        )
    number, identity = item
    return str(number), ",".join(identity.labels)


def _labels(item: Item) -> str:
    shown = (
        f"{label.key}={label.value}" if isinstance(item, Stored) else str(label) for label in labels_of(item)
    )
    return ",".join(shown)


def _print(form: str, documents: list[Document], single: bool) -> None:
    """One object as it is, or a ``List`` of them."""
    if single and not documents:
        return
    value = (
        documents[0]
        if single
        else {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": documents}
    )
    if form == "json":
        click.echo(json.dumps(value, indent=4, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
