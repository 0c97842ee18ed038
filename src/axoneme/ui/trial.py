"""What policies would do that are not applied: held against what was recorded, and written from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Final

import msgspec

from axoneme.edges import stored as edges_stored
from axoneme.edges.edge import Party
from axoneme.edges.judge import Half, Judgement, World
from axoneme.edges.preview import Changed, Effect, Preview, preview
from axoneme.edges.recorded import Recorded, Recorder
from axoneme.edges.suggest import suggest
from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowfilter import FlowFilter
from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.labels import Labels
from axoneme.model.manifests import CIDR_GROUP
from axoneme.model.paths import ManifestError
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.policy import CIDRGroup, Direction, Enforcement, Policy
from axoneme.model.state import EndpointState
from axoneme.policy.engine import PolicyKey
from axoneme.ui import api, validation
from axoneme.ui.feed import Feed, Gaps
from axoneme.ui.policylist import as_yaml, card_of
from axoneme.ui.problems import Refusal
from axoneme.ui.shared import Shared

#: Seconds.
_LONGEST: Final = 7 * 86400
#: Flows of each node that are looked at.
_MOST: Final = 200_000

Proposed = dict[PolicyKey, tuple[Policy, ...]]


class Trial:
    """One question at a time: each may take seconds of a processor, and looking goes on beside it."""

    def __init__(self, feed: Feed, shared: Shared, enforcement: Enforcement) -> None:
        self._feed = feed
        self._shared = shared
        self._enforcement = enforcement
        self._turn = asyncio.Lock()

    async def validate(self, wish: api.ToValidate) -> api.Validation:
        around = await self._shared.objects(*validation.AROUND)
        endpoints, nodes = await self._shared.endpoints(), await self._shared.nodes()
        async with self._turn:
            return await asyncio.to_thread(
                validation.validation, wish.yaml, around, endpoints, list(nodes.values())
            )

    async def preview(self, wish: api.ToPreview) -> api.Preview:
        proposed, groups = _proposed(wish)
        if not proposed and not groups:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "there is no policy in this", field="yaml")
        async with self._turn:
            world, endpoints = await self._world()
            recorded, gaps = await self._recorded(wish.since, ())
            try:
                found = await asyncio.to_thread(preview, recorded, world, proposed, groups)
            except ValueError as error:
                raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field="yaml") from None
        return _told(found, _cards(endpoints), gaps)

    async def suggest(self, wish: api.ToSuggest) -> api.Suggestion:
        async with self._turn:
            endpoints = await self._shared.endpoints()
            recorded, gaps = await self._recorded(wish.since, (wish.namespace,))
            found = await asyncio.to_thread(
                suggest,
                recorded,
                wish.namespace,
                [Labels.parse(each.labels) for each in endpoints],
                cilium_only=wish.kind == "cilium",
            )
        cards = _cards(endpoints)
        chosen = [
            policy
            for policy, subject in zip(found.policies, found.subjects, strict=True)
            if not wish.card or _card(subject, cards) == wish.card
        ]
        seen = {_card(subject, cards) for subject in found.subjects}
        there = {card_of(each): each for each in endpoints if each.namespace == wish.namespace}
        return api.Suggestion(
            yaml=as_yaml(chosen),
            policies=[_ref(policy) for policy in chosen],
            idle=sorted(each.workload or each.pod for card, each in there.items() if card not in seen),
            unsaid=[str(edge) for edge in found.unsaid],
            lost=gaps.lost,
            absent=gaps.absent(),
        )

    async def _world(self) -> tuple[World, list[EndpointState]]:
        """`Refusal` where a policy that is in force cannot be read."""
        endpoints = await self._shared.endpoints()
        objects = [
            edges_stored.Object(each.kind, each.namespace, each.name, each.value)
            for each in await self._shared.objects(*edges_stored.KINDS)
        ]
        try:
            world = edges_stored.world(objects, endpoints)
        except ValueError as error:
            raise Refusal(HTTPStatus.CONFLICT, f"a policy in force cannot be read: {error}") from None
        world.enforcement = self._enforcement
        return world, endpoints

    async def _recorded(self, since: float, namespaces: tuple[str, ...]) -> tuple[Recorded, Gaps]:
        if not 0 < since <= _LONGEST:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"since: 1 to {_LONGEST} seconds", field="since")
        recorder, gaps = Recorder(), Gaps()
        request = ObserveRequest(
            filters=[FlowFilter(namespace=namespaces)] if namespaces else [],
            since=time.time_ns() - int(since * 1e9),
            last=_MOST,
        )
        async with aclosing(self._feed.past(request, gaps, {})) as flows:
            async for flow in flows:
                recorder.take(flow)
        return recorder.recorded(), gaps


def _proposed(wish: api.ToPreview) -> tuple[Proposed, list[CIDRGroup]]:
    found: Proposed = {}
    groups: list[CIDRGroup] = []
    try:
        for manifest in validation.read(wish.yaml):
            if manifest.kind == CIDR_GROUP:
                groups.append(parse_cidr_group(manifest.object))
            else:
                key = PolicyKey(manifest.kind, manifest.namespace, manifest.name)
                found[key] = parse_policy(manifest.object)
    except ManifestError as error:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field="yaml", found=error.found, remedy=error.right
        ) from None
    for ref in wish.delete:
        if ref.kind not in POLICY_KINDS:
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{ref.kind} is no kind of policy", field="delete")
        found[PolicyKey(ref.kind, ref.namespace, ref.name)] = ()
    return found, groups


# ---- what is said --------------------------------------------------------------------------------------


def _told(found: Preview, cards: Mapping[tuple[str, str], str], gaps: Gaps) -> api.Preview:
    def of(effect: Effect) -> list[api.Change]:
        return [_change(each, cards) for each in found.of(effect)]

    return api.Preview(
        breaks=of(Effect.BREAKS),
        opens=of(Effect.OPENS),
        depends=of(Effect.DEPENDS),
        unchanged=found.unchanged,
        stale=len(found.stale),
        lost=gaps.lost,
        absent=gaps.absent(),
    )


def _change(changed: Changed, cards: Mapping[tuple[str, str], str]) -> api.Change:
    edge, seen = changed.edge, changed.seen
    return api.Change(
        source=_party(edge.source, cards),
        destination=_party(edge.destination, cards),
        service=edge.service,
        request=str(edge.request) if edge.request else "",
        passed=seen.passed,
        refused=seen.refused,
        last=seen.last,
        before=_judgement(changed.before),
        after=_judgement(changed.after),
    )


def _judgement(judgement: Judgement) -> api.Judgement:
    halves = {half.direction: _half(half) for half in judgement.halves}
    return api.Judgement(
        verdict=judgement.verdict.value,
        egress=halves.get(Direction.EGRESS, msgspec.UNSET),
        ingress=halves.get(Direction.INGRESS, msgspec.UNSET),
    )


def _half(half: Half) -> api.Half:
    return api.Half(
        verdict=half.verdict.value,
        by_default=half.by_default,
        policies=[
            api.PolicyName(kind=ref.kind, namespace=ref.namespace, name=ref.name, rule=ref.rule)
            for ref in half.refs
        ],
    )


def _party(party: Party, cards: Mapping[tuple[str, str], str]) -> api.Party:
    return api.Party(
        text=str(party),
        namespace=party.namespace,
        workload=party.workload,
        address=party.address,
        labels=list(party.labels),
        card=_card(party, cards),
    )


def _cards(endpoints: Iterable[EndpointState]) -> dict[tuple[str, str], str]:
    """By namespace and what parties are called by."""
    return {
        (
            each.namespace,
            f"{each.workload_kind.lower()}/{each.workload}" if each.workload else each.pod,
        ): card_of(each)
        for each in endpoints
    }


def _card(party: Party, cards: Mapping[tuple[str, str], str]) -> str:
    """Empty for a workload that is gone."""
    if party.address:
        return "reserved:world"
    if party.namespace:
        return cards.get((party.namespace, party.workload), "")
    return f"reserved:{party.reserved[0]}" if party.reserved else ""


def _ref(policy: Mapping[str, object]) -> api.Ref:
    metadata = policy["metadata"]
    assert isinstance(metadata, dict)
    return api.Ref(kind=str(policy["kind"]), namespace=metadata.get("namespace", ""), name=metadata["name"])
