"""What a shell offers for the next word: kinds, and names of objects from the store.

A completion that cannot find anything offers nothing; it never complains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click

from axoneme.cli import kinds
from axoneme.cli.place import Place

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def complete_objects(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Kinds, then names of that kind; ``kind/name`` as well."""
    words: Sequence[str] = context.params.get(parameter.name or "") or ()
    if words and "/" not in words[0]:
        return _names(context, words[0], incomplete, but=words[1:])
    kind, slash, start = incomplete.partition("/")
    if slash:
        return [f"{kind}/{name}" for name in _names(context, kind, start)]
    offered = [*kinds.CATEGORIES, *(kind.plural for kind in kinds.KINDS)]
    return [word for word in offered if word.startswith(incomplete.lower())]


def complete_kind(kind: kinds.Kind) -> Completer:
    """Names of objects of one kind."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        return _names(context, kind.name, incomplete)

    return complete


def complete_pod_of_any_namespace(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """``pod`` of the command's namespace, ``namespace/pod`` of others."""
    namespace, slash, start = incomplete.partition("/")
    if not slash:
        found = _names(context, kinds.NAMESPACE.name, incomplete)
        return [*_names(context, kinds.POD.name, incomplete), *(f"{name}/" for name in found)]
    return [f"{namespace}/{name}" for name in _names(context, kinds.POD.name, start, namespace=namespace)]


def complete_nodes(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    return _names(context, kinds.NODE.name, incomplete)


def complete_containers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Of the pod that stands in the command already."""
    from axoneme.cli import objects

    place = context.ensure_object(Place)
    # An option without its value yet keeps click from giving the arguments their names.
    words = [context.params.get("pod"), *context.args]
    pod = next((word for word in words if word), "").removeprefix("pod/")
    try:
        stored = objects.work(place, lambda store: objects.need(store, kinds.POD, place.in_namespace, pod))
        containers = stored.document()["spec"]["containers"]
        return [each["name"] for each in containers if each["name"].startswith(incomplete)]
    except Exception:
        return []


def _names(
    context: click.Context, word: str, incomplete: str, but: Iterable[str] = (), namespace: str = ""
) -> list[str]:
    from axoneme.cli.getting import find, name_of

    place = context.ensure_object(Place)
    try:
        targets = [kinds.Target(kind) for kind in kinds.find(word.partition(",")[0])]
        from axoneme.cli.objects import work

        inside = namespace or place.in_namespace
        found = work(place, lambda store: find(store, targets, inside))
    except Exception:  # there may be no sandbox, no right to see it, or no such kind
        return []
    names = (name_of(item) for each in found for item in each.items)
    return sorted(name for name in names if name.startswith(incomplete) and name not in but)
