"""Labels with a source, sets of them, and selectors over such sets.

A label is ``source:key=value``. The source says who vouches for it: ``k8s`` (an object in the
cluster), ``reserved`` (a role that the system itself gives), ``cidr``, ``fqdn``, ``node``.
A selector that names no source means ``any`` and matches a label of every source.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ANY = "any"
K8S = "k8s"
RESERVED = "reserved"
#: What is outside the cluster has one for each selector of DNS names, in a policy, that means it.
NAME = "fqdn"
#: The labels of other nodes' Node objects.
NODE = "node"

#: Where a pod's namespace stands among its labels.
NAMESPACE = "io.kubernetes.pod.namespace"
#: A namespace's own label KEY stands on its pods as this prefix and KEY.
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """One label; its text form is ``source:key=value``, or ``source:key`` when the value is empty."""

    source: str
    key: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.key}={self.value}" if self.value else f"{self.source}:{self.key}"

    @classmethod
    def parse(cls, text: str, default_source: str = "unspec") -> Label:
        name, _, value = text.partition("=")
        source, colon, key = name.partition(":")
        return cls(source, key, value) if colon else cls(default_source, name, value)


class Labels:
    """An immutable, hashable set of labels: at most one value for each (source, key)."""

    __slots__ = ("_by_key", "_hash", "_items")

    def __init__(self, labels: Iterable[Label] = ()) -> None:
        by_name = {(label.source, label.key): label for label in labels}
        self._items: tuple[Label, ...] = tuple(sorted(by_name.values()))
        self._by_key: dict[str, tuple[Label, ...]] = {}
        for label in self._items:
            self._by_key[label.key] = (*self._by_key.get(label.key, ()), label)
        self._hash = hash(self._items)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Labels:
        return cls(Label.parse(text) for text in texts)

    def values(self, source: str, key: str) -> tuple[str, ...]:
        """The values of ``key`` under ``source``; under every source when that is ``any``."""
        found = self._by_key.get(key, ())
        return tuple(label.value for label in found if source in (ANY, label.source))

    def get(self, source: str, key: str) -> str | None:
        found = self.values(source, key)
        return found[0] if found else None

    def texts(self) -> list[str]:
        """The canonical form: one text a label, sorted."""
        return [str(label) for label in self._items]

    def __iter__(self) -> Iterator[Label]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels) and self._items == other._items

    def __repr__(self) -> str:
        return f"Labels({', '.join(self.texts())})"


class Operator(enum.Enum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One condition on one key; ``NotIn`` and ``DoesNotExist`` hold where the key is absent."""

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Labels) -> bool:
        present = labels.values(self.source, self.key)
        match self.operator:
            case Operator.IN:
                return any(value in self.values for value in present)
            case Operator.NOT_IN:
                return not any(value in self.values for value in present)
            case Operator.EXISTS:
                return bool(present)
            case Operator.DOES_NOT_EXIST:
                return not present

    def __str__(self) -> str:
        name = self.key if self.source == ANY else f"{self.source}:{self.key}"
        match self.operator:
            case Operator.EXISTS:
                return name
            case Operator.DOES_NOT_EXIST:
                return f"!{name}"
            case Operator.IN if len(self.values) == 1:
                return f"{name}={self.values[0]}"
            case Operator.IN:
                return f"{name} in ({', '.join(self.values)})"
            case Operator.NOT_IN:
                return f"{name} notin ({', '.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all hold; with none it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)

    def names(self, key_prefix: str) -> bool:
        """Whether some requirement is about a key that starts with ``key_prefix``."""
        return any(requirement.key.startswith(key_prefix) for requirement in self.requirements)

    def and_(self, *requirements: Requirement) -> Selector:
        return Selector(tuple(sorted({*self.requirements, *requirements}, key=_order)))

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements)) or "*"


EVERYTHING = Selector()


def equals(source: str, key: str, value: str) -> Requirement:
    return Requirement(source, key, Operator.IN, (value,))


def exists(source: str, key: str) -> Requirement:
    return Requirement(source, key, Operator.EXISTS)


def _order(requirement: Requirement) -> tuple[str, str, str, tuple[str, ...]]:
    return (requirement.source, requirement.key, requirement.operator.value, requirement.values)
