"""`axo describe`: all that is known of an object, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from axoneme.cli import describeservice, kinds, state, views
from axoneme.cli.ages import since
from axoneme.cli.completing import complete_objects
from axoneme.cli.failures import Failure
from axoneme.cli.getting import Item, document_of, find, with_selector
from axoneme.cli.merging import LAST_APPLIED
from axoneme.cli.objects import Document, Stored, listing, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.cli.sheets import field, many, section
from axoneme.model.labels import Labels, Selector
from axoneme.model.paths import ManifestError
from axoneme.model.policies import parse_policy
from axoneme.model.policy import Policy, Tier
from axoneme.model.state import EndpointState
from axoneme.sources.store import Store


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND [NAME]...", shell_complete=complete_objects)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@with_selector
@in_namespace
@in_sandbox
@click.pass_obj
def describe(place: Place, words: Sequence[str], everywhere: bool, selector: Selector | None) -> int:
    """Print all that is known of objects.

    Of a pod also its identity and the policies that select it; of a policy the pods that it selects; of a
    service the pods behind each of its ports.
    """
    targets = kinds.targets(words)
    namespace = None if everywhere else place.in_namespace

    async def run(store: Store) -> tuple[list[str], list[Failure], bool]:
        found = await find(store, targets, namespace, selector)
        surroundings = await _Surroundings.read(store)
        texts = [_text(item, surroundings) for each in found for item in each.items]
        return texts, [failure for each in found for failure in each.missing], bool(texts)

    texts, missing, there = work(place, run)
    if texts:
        click.echo("\n\n".join(texts))
    if there and len(targets) > 1:
        missing = []  # one kind of a category has the name
    elif not there and not missing:
        click.echo("No resources found.", err=True)
    for failure in missing:
        failure.show()
    return 1 if missing else 0


class _Surroundings:
    """What objects are set in relation to."""

    def __init__(self, endpoints: list[EndpointState], policies: list[Policy], slices: list[Stored]) -> None:
        self.endpoints = endpoints
        self.policies = policies
        self.slices = slices

    @classmethod
    async def read(cls, store: Store) -> _Surroundings:
        found: list[Policy] = []
        for kind in kinds.POLICIES:
            for stored in await listing(store, kind, None):
                found += _policies(stored)
        slices = await listing(store, kinds.ENDPOINT_SLICE, None)
        return cls(await state.endpoints(store), found, slices)

    def endpoint(self, stored: Stored) -> EndpointState | None:
        key = (stored.key.namespace, stored.key.name)
        return next((each for each in self.endpoints if (each.namespace, each.pod) == key), None)

    def selecting(self, endpoint: EndpointState) -> list[Policy]:
        labels = Labels.parse(endpoint.labels)
        return [policy for policy in self.policies if policy.subject.matches(labels)]

    def selected(self, policies: Sequence[Policy]) -> list[str]:
        return [
            f"{each.namespace}/{each.pod}"
            for each in self.endpoints
            if any(policy.subject.matches(Labels.parse(each.labels)) for policy in policies)
        ]


def _policies(stored: Stored) -> tuple[Policy, ...]:
    try:
        return parse_policy(stored.document())
    except ManifestError:
        return ()  # the agents say in `axo status` what is wrong with it


def _text(item: Item, around: _Surroundings) -> str:
    document = document_of(item)
    lines = list(_head(document))
    if isinstance(item, Stored) and item.kind == kinds.POD:
        lines += _pod(item, document, around)
    elif isinstance(item, Stored) and item.kind == kinds.SERVICE:
        lines += describeservice.lines(item, around.slices)
    elif isinstance(item, Stored) and item.kind in kinds.POLICIES:
        lines += _policy(item, document, around)
    else:
        if isinstance(item, EndpointState):
            lines += section("Policies", _policy_lines(around.selecting(item)))
        lines += _rest(document)
    return "\n".join(lines)


# ---- parts -------------------------------------------------------------------------------------------


def _head(document: Document) -> Iterator[str]:
    metadata = document.get("metadata", {})
    yield field("Name", metadata.get("name", ""))
    if metadata.get("namespace"):
        yield field("Namespace", metadata["namespace"])
    yield field("Kind", f"{document.get('kind', '')} ({document.get('apiVersion', '')})")
    if created := metadata.get("creationTimestamp"):
        yield field("Created", f"{created} ({since(created, datetime.now(UTC))} ago)")
    if "labels" in metadata:
        yield from many("Labels", _pairs(metadata["labels"]))
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST_APPLIED, None)
    if annotations:
        yield from many("Annotations", [f"{key}: {value}" for key, value in annotations.items()])
    for owner in metadata.get("ownerReferences") or ():
        yield field("Controlled by", f"{owner.get('kind')}/{owner.get('name')}")


def _pod(stored: Stored, document: Document, around: _Surroundings) -> Iterator[str]:
    pod = views.view(stored.value, views.Pod)
    ready, containers = pod.ready
    yield field("Status", f"{pod.state} ({ready} of {containers} containers ready)")
    yield field("Node", pod.spec.node_name or "<none>")
    yield from many("Addresses", pod.addresses)
    if endpoint := around.endpoint(stored):
        yield field("Endpoint", f"{endpoint.id} ({endpoint.state}), interface {endpoint.host_interface}")
        yield field("Identity", str(endpoint.identity))
        yield from many("Identity labels", endpoint.labels)
        yield from section("Policies", _policy_lines(around.selecting(endpoint)))
    yield "Containers:"
    statuses = {each.name: each for each in pod.status.container_statuses}
    written = document.get("spec", {}).get("containers") or []
    for container in written:
        yield f"  {container.get('name')}:"
        yield from (f"    {line}" for line in _container(container, statuses.get(container.get("name", ""))))
    if pod.status.conditions:
        yield "Conditions:"
        for each in pod.status.conditions:
            why = f" ({each.reason}{f': {each.message}' if each.message else ''})" if each.reason else ""
            yield f"  {each.type:<26} {each.status}{why}"


def _container(written: Mapping[str, Any], status: views.ContainerStatus | None) -> Iterator[str]:
    for name in ("image", "command", "args"):
        if value := written.get(name):
            yield field(name.capitalize(), value if isinstance(value, str) else " ".join(map(str, value)))
    if ports := written.get("ports"):
        shown = (
            f"{each.get('containerPort')}/{each.get('protocol', 'TCP')}"
            + (f" ({each['name']})" if each.get("name") else "")
            for each in ports
        )
        yield field("Ports", ", ".join(shown))
    if status is None:
        return
    now = status.state
    if now.running:
        yield field("State", f"Running since {now.running.started_at}")
    elif now.waiting:
        message = f": {now.waiting.message}" if now.waiting.message else ""
        yield field("State", f"Waiting ({now.waiting.reason}{message})")
    elif now.terminated:
        yield field("State", f"Terminated ({now.terminated.reason}, exit code {now.terminated.exit_code})")
    yield field("Ready", str(status.ready))
    yield field("Restarts", str(status.restart_count))


def _policy(stored: Stored, document: Document, around: _Surroundings) -> Iterator[str]:
    policies = _policies(stored)
    for policy in policies:
        yield field("Subject", str(policy.subject) if policy.subject.requirements else "every pod")
        yield field("Effect", _closed(policy))
        if policy.description:
            yield field("Description", policy.description)
    yield from many("Selected pods", around.selected(policies))
    yield from _rest(document)


def _policy_lines(policies: Sequence[Policy]) -> list[str]:
    return [f"{policy.ref}: {_closed(policy)}" for policy in policies]


def _closed(policy: Policy) -> str:
    if policy.tier is Tier.ADMIN:
        return f"decides before other policies, with priority {policy.priority}"
    if policy.tier is Tier.BASELINE:
        return "decides where no other policy denies by default or has a rule"
    directions = sorted(direction.name.lower() for direction in policy.default_deny)
    return f"denies {' and '.join(directions)} by default" if directions else "denies nothing by default"


def _rest(document: Document) -> Iterator[str]:
    """Whatever else the object has, as it is."""
    import yaml

    for key, value in document.items():
        if key in {"apiVersion", "kind", "metadata"} or value in ({}, [], None):
            continue
        title = key[:1].upper() + key[1:]
        if isinstance(value, dict | list):
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
            yield from section(title, text.splitlines())
        else:
            yield field(title, str(value))


def _pairs(labels: Mapping[str, str] | None) -> list[str]:
    return [f"{key}={value}" for key, value in (labels or {}).items()]
