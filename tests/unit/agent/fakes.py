"""The kernel as the agent sees it, in memory: tables with the real types, links as names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from axoneme.datapath.bpf import MapFull
from axoneme.datapath.plane import packed
from axoneme.datapath.schema import Schema
from axoneme.model.policy import Direction, PolicyRef
from axoneme.net import pods
from axoneme.services.balanced import Address, Balanced
from axoneme.services.tables import Name, ServiceTables


class FakeTable:
    """``room`` is how many entries fit in."""

    def __init__(self, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        self.key, self.value = key, value
        self.entries: dict[bytes, bytes] = {}
        self.room = 1 << 20

    def write(self, keys: Any, values: Any) -> None:
        for key, value in zip(keys, values, strict=True):
            if key.tobytes() not in self.entries and len(self.entries) >= self.room:
                raise MapFull(7, "the table is full")
            self.entries[key.tobytes()] = value.tobytes()

    def delete(self, keys: Any) -> int:
        return sum(self.entries.pop(key.tobytes(), None) is not None for key in keys)

    def __len__(self) -> int:
        return len(self.entries)

    def absent(self, keys: Any) -> int:
        return sum(key.tobytes() not in self.entries for key in keys)

    def adopt(self) -> tuple[Any, Any]:
        return self.read_all()

    def read_all(self) -> tuple[Any, Any]:
        keys = np.frombuffer(b"".join(self.entries), self.key)
        return keys, np.frombuffer(b"".join(self.entries.values()), self.value)


class FakePlane:
    """As much of `Datapath` as the agent writes to."""

    def __init__(self) -> None:
        schema = Schema.load()
        self.endpoints = FakeTable(schema.struct("address_key"), schema.struct("endpoint"))
        self.addresses = FakeTable(schema.struct("prefix_key"), schema.struct("address"))
        self.policies = FakeTable(schema.struct("policy_key"), schema.struct("policy_value"))
        self.attached: list[int] = []
        self.raised: list[str] = []
        self.grown: list[str] = []

    def attach_endpoint(self, ifindex: int) -> None:
        self.attached.append(ifindex)

    def grow(self, entries: Mapping[str, int]) -> None:
        for name, room in entries.items():
            getattr(self, name).room = room
            self.grown.append(name)

    def release_endpoint(self, ifindex: int) -> None:
        pass

    def raise_subjects(self, identities: Iterable[int]) -> None:
        self.raised.append("subjects")

    def raise_addresses(self, addresses: Iterable[bytes]) -> None:
        self.raised.append("addresses")

    def raise_all(self) -> None:
        self.raised.append("all")

    def identity_of(self, address: str) -> int | None:
        """Of a local pod."""
        raw = self.endpoints.entries.get(packed(ip_address(address)))
        return int(np.frombuffer(raw, self.endpoints.value)[0]["identity"]) if raw else None


class FakeJournal:
    def __init__(self) -> None:
        self.meaning: dict[int, Sequence[PolicyRef]] = {}
        self.defaults: dict[tuple[int, Direction], int] = {}
        self.known: dict[int, tuple[str, ...]] = {}

    def rules(self, rules: Mapping[int, Sequence[PolicyRef]]) -> None:
        self.meaning.update(rules)

    def default(self, subject: int, direction: Direction, rule: int) -> None:
        self.defaults[subject, direction] = rule

    def identities(self, identities: Mapping[int, Iterable[str]]) -> None:
        self.known.update({number: tuple(texts) for number, texts in identities.items()})

    def known_identities(self) -> Mapping[int, Sequence[str]]:
        return self.known


class FakeLinks:
    """In place of the functions of `axoneme.net.pods` that make links; ``fails`` names one that refuses."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.there: dict[str, int] = {}
        self.connected: set[str] = set()
        self.fails = ""
        patch.setattr(pods, "create", self._create)
        patch.setattr(pods, "connect", self._connect)
        patch.setattr(pods, "remove", self._remove)
        patch.setattr(pods, "existing", self._existing)
        patch.setattr(pods, "host_interfaces", lambda: list(self.there))

    def _create(self, link: pods.PodLink) -> int:
        self._may("create")
        assert link.host_interface not in self.there
        self.there[link.host_interface] = 100 + len(self.there)
        return self.there[link.host_interface]

    def _connect(self, link: pods.PodLink) -> None:
        self._may("connect")
        self.connected.add(link.host_interface)

    def _remove(self, name: str) -> bool:
        self.connected.discard(name)
        return self.there.pop(name, None) is not None

    def _existing(self, names: Sequence[str]) -> dict[str, int]:
        return {name: self.there[name] for name in names if name in self.there}

    def _may(self, step: str) -> None:
        if self.fails == step:
            raise OSError(f"{step} refused")


class FakeBalancer:
    """Compiles as the real one does, and writes nothing."""

    def __init__(self) -> None:
        self.tables = ServiceTables()
        self.broken = False
        self.problems: dict[Name, str] = {}
        #: By name and port, what it has been told.
        self.told: dict[Name, Balanced] = {}

    def machines(self, addresses: Iterable[Address]) -> None:
        self.tables.machines(addresses)

    def apply(self, upserts: Iterable[Balanced], removals: Iterable[Name]) -> None:
        for name in removals:
            self.tables.remove(*name)
            del self.told[name]
        for balanced in upserts:
            self.tables.upsert(balanced)
            self.told[balanced.name, balanced.port] = balanced

    def settle(self) -> int:
        return len(self.tables.changes())
