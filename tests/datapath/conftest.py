"""A node with two pods, a remote one, and a way to the outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench_node import Node, node
from places import CLIENT, OUR, SERVER, WORLD, furnish

from axoneme.datapath.plane import Constants


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """To load the programs takes as long as many tests do."""
    with node(tmp_path_factory.mktemp("node") / "bpf", Constants(world_ipv4=9, world_ipv6=10)) as made:
        made.uplink_to_everywhere(OUR[4], OUR[6])
        yield made


@pytest.fixture
def kernel(loaded: Node) -> Iterator[Node]:
    furnish(loaded)
    loaded.open(CLIENT, SERVER)
    yield loaded
    loaded.forget_routes(WORLD[4], WORLD[6])
