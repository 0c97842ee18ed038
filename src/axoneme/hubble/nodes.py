"""The nodes of the shared state, for those who tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from axoneme.model.state import NODES, NodeState, decode


class Nodes:
    """Those of the shared state."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeState] = {}
        self._event = asyncio.Event()
        #: Rises with every change.
        self.version = 0

    def __getitem__(self, name: str) -> NodeState:
        """What is known of it: nothing but its name, where it has not told of itself."""
        return self._nodes.get(name) or NodeState(name)

    def apply(self, key: str, value: bytes | None) -> None:
        """Takes in what the shared state says. ValueError for what is no node."""
        if not key.startswith(NODES):
            return
        if value is None:
            self._nodes.pop(key.removeprefix(NODES), None)
        else:
            self._nodes[key.removeprefix(NODES)] = decode(value, NodeState, key)
        self.version += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    def all(self) -> Mapping[str, NodeState]:
        return dict(self._nodes)

    async def after(self, version: int) -> None:
        """Waits until something has changed since."""
        while self.version == version:
            await self._event.wait()
