"""CiliumLoadBalancerIPPool (cilium.io/v2): addresses for services of type LoadBalancer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from axoneme.model import checks, selectors
from axoneme.model.addresses import Address, unicast
from axoneme.model.conditions import Condition
from axoneme.model.exposure import parse_conditions
from axoneme.model.labels import EVERYTHING, Selector
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place

KIND = "CiliumLoadBalancerIPPool"


@dataclass(frozen=True, slots=True)
class Block:
    """The addresses from ``first`` to ``last``, both of one family. ``of_cidr``: written as a prefix, whose
    ends some networks cannot use."""

    first: Address
    last: Address
    of_cidr: bool = False

    def __contains__(self, address: Address) -> bool:
        return self.first.version == address.version and int(self.first) <= int(address) <= int(self.last)

    @property
    def size(self) -> int:
        """How many addresses: more than ``len`` may say."""
        return int(self.last) - int(self.first) + 1

    def overlaps(self, other: Block) -> bool:
        return self.first in other or other.first in self

    def __str__(self) -> str:
        return f"{self.first} - {self.last}" if self.first != self.last else str(self.first)


@dataclass(frozen=True, slots=True)
class LoadBalancerPool:
    """``created`` orders pools by age. Without ``ends`` the first and last address of a prefix are not given
    out, unless it has no others."""

    metadata: Metadata
    blocks: tuple[Block, ...]
    selector: Selector = EVERYTHING
    disabled: bool = False
    ends: bool = True
    created: str = ""
    generation: int = 0
    conditions: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        return self.metadata.name

    def reserves(self, address: Address) -> bool:
        """Whether it is the end of a prefix that is not given out."""
        return not self.ends and any(
            block.of_cidr and block.size > 2 and address in (block.first, block.last) for block in self.blocks
        )


def parse_pool(object: Mapping[str, object]) -> LoadBalancerPool:
    """Raises `ManifestError`."""
    with naming(object) as fields:
        fields.only(("apiVersion", "kind", "metadata", "spec", "status"))
        metadata = parse_metadata(fields, namespaced=False, strict=True)
        spec = fields.need("spec").fields(
            ("blocks", "cidrs", "serviceSelector", "disabled", "allowFirstLastIPs")
        )
        selector = spec.get("serviceSelector")
        extra = fields.need("metadata").fields()
        return LoadBalancerPool(
            metadata,
            tuple(_block(item.fields(("cidr", "start", "stop"))) for item in _blocks(spec)),
            Selector(selectors.kubernetes(selector)) if selector else EVERYTHING,
            spec.flag("disabled"),
            spec.one_of("allowFirstLastIPs", ("Yes", "No"), "Yes") == "Yes",
            extra.text("creationTimestamp"),
            extra.number("generation", 0, 0, 1 << 62),
            parse_conditions(fields.get("status")),
        )


def _blocks(spec: Fields) -> list[Place]:
    """``cidrs`` is what they were called once."""
    return [*spec.items("blocks"), *spec.items("cidrs")]


def _block(fields: Fields) -> Block:
    cidr, start, stop = fields.get("cidr"), fields.get("start"), fields.get("stop")
    if cidr is not None:
        if start or stop:
            fields.place("start").refuse("a block is either a cidr or a range from start to stop")
        network = checks.network(cidr)
        return Block(network[0], network[-1], of_cidr=True)
    if start is None:
        fields.place("cidr").refuse("a block has a cidr, or start and stop", "nothing")
    first = unicast(start)
    if stop is None:
        return Block(first, first)
    last = unicast(stop)
    if first.version != last.version or int(last) < int(first):
        stop.refuse(f"an address of the same family belongs here, not before {first}")
    return Block(first, last)
