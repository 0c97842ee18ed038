"""All targets, by name."""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import (
    cni,
    configs,
    dnsproxy,
    echo,
    flows,
    kafka,
    manifests,
    names,
    objects,
    rpc,
    state,
    stores,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for family in (manifests, state, rpc, cni, stores, configs, flows, objects, echo, names, dnsproxy, kafka)
    for target in family.TARGETS
}
