"""The policies that there are, and whom they select."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from axoneme.model.labels import Labels
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.policy import Direction, Policy
from axoneme.model.state import EndpointState
from axoneme.ui import api
from axoneme.ui.problems import Refusal
from axoneme.ui.servicemap import card_id
from axoneme.ui.shared import Shared, Stored

_MOST_SELECTED: Final = 200
#: What the store and clients add to what somebody has written.
_ADDED: Final = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class PolicyList:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def lines(
        self, namespaces: Collection[str], card: str, problems: Mapping[str, str]
    ) -> list[api.PolicyLine]:
        """``card``: only those that select this workload; ``problems``: what agents say, by objects' keys."""
        cards = _by_card(await self._shared.endpoints())
        found = []
        for stored in await self._shared.objects(*POLICY_KINDS):
            if namespaces and stored.namespace and stored.namespace not in namespaces:
                continue
            policies, problem = _parsed(stored)
            selects = _selected(policies, cards)
            if not card or card in selects:
                found.append(_line(stored, policies, selects, problem or problems.get(stored.key, "")))
        return found

    async def workloads(self, namespaces: Collection[str]) -> list[api.Workload]:
        endpoints = await self._shared.endpoints()
        cards = _by_card(endpoints)
        closed: dict[str, set[str]] = defaultdict(set)
        for stored in await self._shared.objects(*POLICY_KINDS):
            policies, _ = _parsed(stored)
            for policy in policies:
                for card in _selected([policy], cards):
                    closed[card] |= {each.name.lower() for each in policy.default_deny}
        first = {card_of(each): each for each in reversed(endpoints)}
        pods = defaultdict(set)
        for each in endpoints:
            pods[card_of(each)].add(each.pod)
        return [
            api.Workload(
                id=card,
                namespace=each.namespace,
                kind=each.workload_kind or "Pod",
                name=each.workload or each.pod,
                pods=len(pods[card]),
                labels=each.labels,
                closed=sorted(closed[card]),
            )
            for card, each in sorted(first.items())
            if not namespaces or each.namespace in namespaces
        ]

    async def text(self, kind: str, namespace: str, name: str) -> api.PolicyText:
        stored = await self._shared.object(kind, namespace, name) if kind in POLICY_KINDS else None
        if stored is None:
            where = f" in namespace {namespace}" if namespace else ""
            raise Refusal(HTTPStatus.NOT_FOUND, f'there is no {kind} "{name}"{where}', field="name")
        return api.PolicyText(
            kind=kind,
            namespace=namespace,
            name=name,
            yaml=as_yaml([_written(json.loads(stored.value))]),
            revision=str(stored.revision),
        )


def card_of(endpoint: EndpointState) -> str:
    """The id of its workload's card."""
    return card_id(endpoint.namespace, endpoint.workload_kind or "Pod", endpoint.workload or endpoint.pod)


def as_yaml(documents: Iterable[object]) -> str:
    import yaml

    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def _by_card(endpoints: Iterable[EndpointState]) -> dict[str, list[Labels]]:
    """The labels of each workload's pods, each once."""
    found: dict[str, dict[tuple[str, ...], Labels]] = defaultdict(dict)
    for each in endpoints:
        if each.namespace:
            found[card_of(each)].setdefault(tuple(each.labels), Labels.parse(each.labels))
    return {card: list(labels.values()) for card, labels in found.items()}


def _parsed(stored: Stored) -> tuple[tuple[Policy, ...], str]:
    """The policies in an object, and why there are none."""
    try:
        return parse_policy(msgspec.json.decode(stored.value)), ""
    except (ValueError, msgspec.MsgspecError) as error:
        return (), str(error)


def _selected(policies: Iterable[Policy], cards: Mapping[str, list[Labels]]) -> list[str]:
    subjects = [policy.subject for policy in policies if not policy.hosts]
    return [
        card
        for card, every in sorted(cards.items())
        if any(subject.matches(labels) for subject in subjects for labels in every)
    ]


def _line(stored: Stored, policies: Collection[Policy], selects: list[str], problem: str) -> api.PolicyLine:
    closes = {direction for policy in policies for direction in policy.default_deny}
    rules = {rule.direction for policy in policies for rule in policy.rules}
    return api.PolicyLine(
        kind=stored.kind,
        namespace=stored.namespace,
        name=stored.name,
        directions=_names(closes | rules),
        closes=_names(closes),
        audit=any(policy.audit or any(rule.audit for rule in policy.rules) for policy in policies),
        selects=selects[:_MOST_SELECTED],
        problem=problem,
    )


def _names(directions: Iterable[Direction]) -> list[str]:
    return sorted(each.name.lower() for each in directions)


def _written(document: dict[str, Any]) -> dict[str, Any]:
    """As somebody has written it."""
    metadata = {key: value for key, value in document.get("metadata", {}).items() if key not in _ADDED}
    annotations = {
        key: value for key, value in metadata.pop("annotations", {}).items() if key != _LAST_APPLIED
    }
    if annotations:
        metadata["annotations"] = annotations
    first: dict[str, Any] = {key: document[key] for key in ("apiVersion", "kind") if key in document}
    rest = {key: value for key, value in document.items() if key not in (*first, "metadata", "status")}
    return {**first, "metadata": metadata, **rest}
