"""Selectors for workloads: those labels which last, and of others as much as it takes to mean nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from axoneme.model.labels import K8S, NAMESPACE, SERVICE_ACCOUNT, Labels

#: Of labels that the system adds to a pod's own, under ``k8s``.
_SYSTEM = ("io.kubernetes.", "io.cilium.")


@dataclass(frozen=True, slots=True)
class Chosen:
    """``labels`` has to have all of these, and none with the keys in ``absent``. ``account``: the service
    account, where nothing else tells two workloads apart; only Cilium's kinds can ask for it."""

    labels: tuple[tuple[str, str], ...]
    absent: tuple[str, ...] = ()
    account: str = ""

    def selector(self, prefix: Mapping[str, str] = {}) -> dict[str, object]:
        """As a label selector; ``prefix``: labels that it asks for besides."""
        labels = dict(prefix) | dict(self.labels)
        if self.account:
            labels[f"{K8S}:{SERVICE_ACCOUNT}"] = self.account
        made: dict[str, object] = {"matchLabels": labels} if labels else {}
        if self.absent:
            made["matchExpressions"] = [{"key": key, "operator": "DoesNotExist"} for key in self.absent]
        return made


def own(labels: Labels) -> dict[str, str]:
    """The labels that stand on the pod itself."""
    return {
        label.key: label.value
        for label in labels
        if label.source == K8S and not label.key.startswith(_SYSTEM)
    }


def choose(wanted: Labels, others: Iterable[Labels]) -> Chosen:
    """A selector, within the namespace of ``wanted``, that matches it and none of ``others`` that differs in
    its own labels or its service account."""
    labels = own(wanted)
    namespace = wanted.get(K8S, NAMESPACE)
    account = wanted.get(K8S, SERVICE_ACCOUNT) or ""
    absent: set[str] = set()
    needs_account = False
    wider = [
        (more, other)
        for other in others
        if other.get(K8S, NAMESPACE) == namespace and labels.items() <= (more := own(other)).items()
    ]
    for more, other in sorted(wider, key=lambda each: (len(each[0]), each[1].texts())):
        if more == labels:
            needs_account |= (other.get(K8S, SERVICE_ACCOUNT) or "") != account
        elif not absent & more.keys():
            absent.add(min(more.keys() - labels.keys()))
    return Chosen(tuple(sorted(labels.items())), tuple(sorted(absent)), account if needs_account else "")
