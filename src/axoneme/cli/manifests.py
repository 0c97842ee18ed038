"""What stands behind ``-f``: files, folders, standard input; all of it checked before anything is done."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from axoneme.cli.failures import Failure
from axoneme.cli.place import DEFAULT_NAMESPACE, Place
from axoneme.model import envoyconfig
from axoneme.model.manifests import Manifest, load, validate
from axoneme.model.paths import ManifestError
from axoneme.sandbox.objects import ObjectKey

F = TypeVar("F", bound=Callable[..., Any])

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Manifests:
    """``objects`` are sound, in the order in which they stand; ``ignored`` counts kinds that play no part."""

    objects: tuple[Manifest, ...]
    ignored: Counter[str]

    def __add__(self, others: Manifests) -> Manifests:
        return Manifests(self.objects + others.objects, self.ignored + others.ignored)

    def mention_ignored(self) -> None:
        """Says once what is passed over, so that nobody waits for it."""
        if self.ignored:
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.ignored.items()))
            click.echo(f"ignored: {counts} (these kinds play no part in a sandbox)", err=True)


def with_files(required: bool) -> Callable[[F], F]:
    """Adds ``-f`` and ``-R``."""

    def add(command: F) -> F:
        command = click.option(
            "-R", "--recursive", is_flag=True, help="Of a folder, read the folders in it as well."
        )(command)
        return click.option(
            "-f",
            "--filename",
            "files",
            multiple=True,
            required=required,
            metavar="FILE|DIR|-",
            type=click.Path(exists=True, allow_dash=True),
            help="Manifests: a file, a folder, or - for standard input; may be repeated.",
        )(command)

    return add


def read(place: Place, files: Sequence[str], recursive: bool = False) -> Manifests:
    """The objects in ``files``; `Failure` with every one that is wrong, if any is."""
    return check(texts(files, recursive), place.namespace)


def check(texts: Iterable[tuple[str, str]], namespace: str | None = None) -> Manifests:
    """The same of pairs of what a text is called and the text; ``namespace`` is the one asked for."""
    found: list[Manifest] = []
    wrong: list[str] = []
    for origin, text in texts:
        try:
            found += load(text, origin, namespace=namespace or DEFAULT_NAMESPACE)
        except ManifestError as error:
            wrong.append(str(error))
    return sound(found, namespace, wrong)


def sound(found: Sequence[Manifest], namespace: str | None = None, wrong: Sequence[str] = ()) -> Manifests:
    """The same of objects that have been loaded; ``wrong`` is what has been found to be wrong before."""
    wrong = list(wrong)
    for manifest in found:
        try:
            validate(manifest)
            _in_namespace(manifest, namespace)
            _understood(manifest)
        except ManifestError as error:
            wrong.append(str(error))
    if wrong:
        raise Failure("\n  ".join(["nothing was done, because of", *wrong] if len(wrong) > 1 else wrong))
    return Manifests(
        tuple(manifest for manifest in found if manifest.supported),
        Counter(manifest.kind for manifest in found if not manifest.supported),
    )


def names(place: Place, files: Sequence[str], recursive: bool = False) -> list[ObjectKey]:
    """Which objects the files name, ignored kinds left out; they need not be sound otherwise."""
    found = [
        manifest
        for origin, text in texts(files, recursive)
        for manifest in load(text, origin, namespace=place.in_namespace)
        if manifest.supported
    ]
    for manifest in found:
        _in_namespace(manifest, place.namespace)
    return list(dict.fromkeys(ObjectKey(each.kind, each.namespace, each.name) for each in found))


def _understood(manifest: Manifest) -> None:
    """What Envoy is to do has to be what Envoy can understand."""
    if manifest.kind not in envoyconfig.KINDS:
        return
    from axoneme.proxy.envoy.given import Given

    try:
        Given(envoyconfig.parse_envoy_config(manifest.object))
    except ManifestError:
        raise
    except ValueError as error:
        wrong = ManifestError("spec.resources", "something else", f"what Envoy takes belongs here: {error}")
        raise wrong.of(str(manifest), manifest.origin) from None


def _in_namespace(manifest: Manifest, namespace: str | None) -> None:
    """An object whose own namespace is another than the one asked for would land where nobody looks."""
    if namespace and manifest.supported and manifest.namespace not in {"", namespace}:
        raise ManifestError(
            "metadata.namespace",
            f'"{manifest.namespace}"',
            f"the command says namespace {namespace}: leave one of the two away",
            object=str(manifest),
            origin=manifest.origin,
        )


def texts(files: Sequence[str], recursive: bool) -> Iterator[tuple[str, str]]:
    """Where it stands, and what."""
    for name in files:
        if name == "-":
            yield "standard input", sys.stdin.read()
            continue
        path = Path(name)
        for each in _inside(path, recursive) if path.is_dir() else [path]:
            try:
                yield str(each), each.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise Failure(f"{each}: not a text in UTF-8: {error.reason} at byte {error.start}") from None


def _inside(path: Path, recursive: bool) -> list[Path]:
    found = sorted(
        each
        for each in (path.rglob("*") if recursive else path.iterdir())
        if each.suffix in _SUFFIXES and each.is_file()
    )
    if not found:
        hint = "" if recursive else "; -R looks into the folders in it"
        raise Failure(f"{path}: there is no file ending in {', '.join(_SUFFIXES)}{hint}")
    return found
