"""The discovery service that Envoy asks (ADS, incremental), for the one Envoy that is our child.

`Conversation` is the protocol as values, without I/O: what Envoy has subscribed to, what it was sent, what it
has acknowledged. One response carries one resource, so that what Envoy refuses is refused by name. What a
resource refers to is sent before it, and taken away after it.

xDS protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol (incremental, aggregated).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from axoneme.proxy.envoy.protos import Message
from axoneme.proxy.envoy.resources import CLUSTER, LISTENER, ORDER, Key, Resource, Resources

#: Of these kinds Envoy takes all that there are.
_ALL: Final = frozenset({CLUSTER, LISTENER})


@dataclass
class Conversation:
    """With one Envoy, from its first word to its last."""

    #: What it has in force: the version of each.
    taken: dict[Key, str] = field(default_factory=dict)
    #: What it does not take: the version of each, and why.
    refused: dict[Key, tuple[str, str]] = field(default_factory=dict)
    #: The versions; empty for what it was told is not there.
    _sent: dict[Key, str] = field(default_factory=dict)
    _subscribed: dict[str, set[str]] = field(default_factory=dict)
    _open: dict[str, tuple[Key, str]] = field(default_factory=dict)
    _nonces: Iterator[int] = field(default_factory=count)

    def hear(self, request: Message) -> None:
        """A DeltaDiscoveryRequest: a subscription, or the answer to something sent, or both."""
        kind = request.type_url
        names = self._subscribed.setdefault(kind, set())
        names.update(request.resource_names_subscribe)
        for name in request.resource_names_subscribe:
            # It has forgotten what it had, if anything.
            self._sent.pop(Key(kind, name), None)
        for name in request.resource_names_unsubscribe:
            names.discard(name)
            self._sent.pop(Key(kind, name), None)
            self._forget(Key(kind, name))
        answered = self._open.pop(request.response_nonce, None)
        if answered is None:
            return
        key, version = answered
        if request.HasField("error_detail"):
            self.refused[key] = version, request.error_detail.message
        elif version:
            self.taken[key] = version
            self.refused.pop(key, None)
        else:
            self._forget(key)

    def say(self, resources: Resources) -> Iterator[Message]:
        """The responses that are due."""
        content = resources.content
        for kind in ORDER:
            for key, resource in content.items():
                if key.type_url == kind and self._wants(key) and self._sent.get(key) != resource.version:
                    yield self._response(key, resource)
        for kind in reversed(ORDER):
            subscribed = self._subscribed.get(kind, set()) - {"*"}
            for key in [
                *(key for key in self._sent if key.type_url == kind and key not in content),
                *(Key(kind, name) for name in sorted(subscribed) if Key(kind, name) not in content),
            ]:
                if self._sent.get(key) != "":
                    yield self._response(key, None)

    def _wants(self, key: Key) -> bool:
        names = self._subscribed.get(key.type_url)
        return names is not None and (key.type_url in _ALL or key.name in names)

    def _response(self, key: Key, resource: Resource | None) -> Message:
        nonce = str(next(self._nonces))
        version = resource.version if resource else ""
        self._sent[key] = version
        self._open[nonce] = key, version
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=key.type_url, nonce=nonce)
        if resource is None:
            response.removed_resources.append(key.name)
        else:
            response.resources.append(
                discovery_pb2.Resource(name=key.name, version=version, resource=resource.content)
            )
        return response

    def _forget(self, key: Key) -> None:
        self.taken.pop(key, None)
        self.refused.pop(key, None)


class Discovery:
    """The service. ``changed`` is called when Envoy has said something, or has come or gone."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.resources = Resources()
        #: None while there is no Envoy.
        self.conversation: Conversation | None = None
        self._due = asyncio.Event()

    def set(self, resources: Resources) -> None:
        self.resources = resources
        self._due.set()

    async def serve(self, _: object, context: Any) -> None:
        """One stream of ``DeltaAggregatedResources``."""
        conversation = self.conversation = Conversation()
        self._changed()
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen(conversation, context))
                speaking = tasks.create_task(self._speak(conversation, context))
                await listening
                speaking.cancel()
        finally:
            if self.conversation is conversation:
                self.conversation = None
                self._changed()

    async def _listen(self, conversation: Conversation, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            conversation.hear(request)
            self._due.set()
            self._changed()

    async def _speak(self, conversation: Conversation, context: Any) -> None:
        while True:
            self._due.clear()
            for response in list(conversation.say(self.resources)):
                await context.write(response)
            await self._due.wait()
