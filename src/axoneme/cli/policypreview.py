"""`axo policy preview`: what a change of policies would do to the traffic that there is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from axoneme.cli import flowoptions, kinds, manifests, recordings
from axoneme.cli.failures import Failure
from axoneme.cli.objects import get, missing, work
from axoneme.cli.place import Place, in_namespace, in_sandbox
from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.manifests import CIDR_GROUP
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.sources.store import Store

if TYPE_CHECKING:
    from axoneme.edges.edge import Edge, Party
    from axoneme.edges.judge import Half, Judgement
    from axoneme.edges.preview import Changed, Preview
    from axoneme.model.policy import CIDRGroup, Policy
    from axoneme.policy.engine import PolicyKey

#: The exit code where live edges would break.
BREAKS = 3


@click.command()
@manifests.with_files(required=False)
@click.option(
    "--delete",
    "deleted",
    multiple=True,
    metavar="KIND/NAME",
    help="Also without this policy: cnp/rule1, netpol/web.",
)
@click.option("--since", default="1h", show_default=True, metavar="TIME", help="Of what was recorded since.")
@click.option("--strict", is_flag=True, help="End with 3 also for edges that open, or that depend.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
@in_namespace
@in_sandbox
@click.pass_obj
def preview(
    place: Place,
    files: Sequence[str],
    recursive: bool,
    deleted: Sequence[str],
    since: str,
    strict: bool,
    output: str | None,
) -> int:
    """Say what policies that are not applied yet would break and open.

    The change (new, changed, deleted policies) is held against the flows that all nodes have recorded, by the
    policy engine itself: egress at the source and ingress at the destination, beside the policies that are in
    force today. Nothing is applied.

    Ends with 0 when nothing that passes today would be refused, with 3 when something would.
    """
    from axoneme.edges.preview import preview as compare

    if not files and not deleted:
        raise click.UsageError("give -f FILE with policies, or --delete KIND/NAME, or both")
    began = flowoptions.moment(since, "--since", time.time_ns())
    proposed, groups = _proposed(place, files, recursive)
    for word in deleted:
        proposed[work(place, partial(_existing, place=place, word=word))] = ()
    world = work(place, recordings.world)
    world.enforcement = recordings.enforcement(place)
    try:
        found = compare(recordings.recorded(place, began), world, proposed, groups)
    except ValueError as error:
        raise Failure(str(error)) from error
    if output:
        click.echo(json.dumps(_json(found), indent=4))
    else:
        click.echo("\n".join(_lines(found, since)))
    return BREAKS if _bad(found, strict) else 0


def _bad(found: Preview, strict: bool) -> bool:
    from axoneme.edges.preview import Effect

    return bool(found.changed if strict else found.of(Effect.BREAKS))


# ---- what is proposed ----------------------------------------------------------------------------------


def _proposed(
    place: Place, files: Sequence[str], recursive: bool
) -> tuple[dict[PolicyKey, tuple[Policy, ...]], list[CIDRGroup]]:
    from axoneme.policy.engine import PolicyKey

    found: dict[PolicyKey, tuple[Policy, ...]] = {}
    groups: list[CIDRGroup] = []
    for manifest in manifests.read(place, files, recursive).objects if files else ():
        if manifest.kind in POLICY_KINDS:
            key = PolicyKey(manifest.kind, manifest.namespace, manifest.name)
            found[key] = parse_policy(manifest.object)
        elif manifest.kind == CIDR_GROUP:
            groups.append(parse_cidr_group(manifest.object))
    if files and not found and not groups:
        raise Failure("there is no policy in these files")
    return found, groups


async def _existing(store: Store, place: Place, word: str) -> PolicyKey:
    from axoneme.policy.engine import PolicyKey

    name = word.partition("/")[2]
    if not name:
        raise click.UsageError(f"--delete {word}: give KIND/NAME, as cnp/rule1")
    meant = [each for each in kinds.targets([word]) if each.kind in kinds.POLICIES]
    if not meant:
        raise click.UsageError(f"--delete {word}: that is no kind of policy")
    for target in meant:
        namespace = place.in_namespace if target.kind.namespaced else ""
        if await get(store, target.kind, namespace, name):
            return PolicyKey(target.kind.name, namespace, name)
    raise missing(meant[0].kind, place.in_namespace, name)


# ---- what is said --------------------------------------------------------------------------------------


def _lines(found: Preview, since: str) -> Iterator[str]:
    from axoneme.edges.preview import Effect

    total = found.unchanged + len(found.changed)
    if not total:
        yield f"nothing was recorded since {since} that policies decide about"
        return
    titles = {
        Effect.BREAKS: ("would break", "red"),
        Effect.OPENS: ("would open", "yellow"),
        Effect.DEPENDS: ("would depend on what is asked, which was not recorded:", "cyan"),
    }
    for effect, (title, colour) in titles.items():
        changed = found.of(effect)
        if not changed:
            continue
        yield f"{click.style(title, fg=colour)} {len(changed)} of {total} edges"
        for each in changed:
            yield from _edge_lines(each)
        yield ""
    yield f"{found.unchanged} of {total} edges stay as they are"
    if found.stale:
        yield (
            f"{len(found.stale)} of them were decided otherwise when they were recorded: "
            "policies have changed since"
        )


def _edge_lines(changed: Changed) -> Iterator[str]:
    from axoneme.edges.preview import Effect

    seen = changed.seen
    count = seen.refused if changed.effect is Effect.OPENS else seen.passed
    times = "once" if count == 1 else f"{count} times"
    yield f"  {changed.edge}  ({times}, last at {seen.last[:19]}Z)"
    about = changed.before if changed.effect is Effect.OPENS else changed.after
    for half in about.halves:
        if half.verdict.value != "passes":
            yield f"    {half.direction.name.lower()} {_decision(half)}"


def _decision(half: Half) -> str:
    names = ", ".join(dict.fromkeys(f"{ref}" for ref in half.refs))
    if half.verdict.value == "depends":
        return f"goes through a proxy by {names}"
    if half.by_default:
        return f"is allowed by no rule{f'; it is closed by {names}' if names else ''}"
    return f"is denied by {names}"


def _json(found: Preview) -> dict[str, object]:
    return {
        "changed": [
            {
                "effect": each.effect.value,
                **_edge(each.edge),
                "passed": each.seen.passed,
                "refused": each.seen.refused,
                "last": each.seen.last,
                "before": _judgement(each.before),
                "after": _judgement(each.after),
            }
            for each in found.changed
        ],
        "unchanged": found.unchanged,
        "stale": [_edge(edge) for edge in found.stale],
    }


def _edge(edge: Edge) -> dict[str, object]:
    return {
        "source": _party(edge.source),
        "destination": _party(edge.destination),
        "service": edge.service,
        "request": str(edge.request) if edge.request else None,
    }


def _party(party: Party) -> dict[str, object]:
    return {
        "name": str(party),
        "namespace": party.namespace,
        "workload": party.workload,
        "address": party.address,
        "labels": list(party.labels),
    }


def _judgement(judgement: Judgement) -> dict[str, object]:
    return {
        "verdict": judgement.verdict.value,
        **{half.direction.name.lower(): _half(half) for half in judgement.halves},
    }


def _half(half: Half) -> dict[str, object]:
    return {
        "verdict": half.verdict.value,
        "by_default": half.by_default,
        "rules": _refs(half),
    }


def _refs(half: Half) -> Iterable[dict[str, str]]:
    return [
        {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "rule": ref.rule}
        for ref in half.refs
    ]
