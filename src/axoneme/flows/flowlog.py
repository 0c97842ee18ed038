"""All that a flow server knows, as readers need it: records, and what stands behind their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from axoneme.flows.encode import Encoder, Rules
from axoneme.flows.events import Vocabulary
from axoneme.flows.filters import Matcher
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.names import Names
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames
from axoneme.flows.store import FlowStore


@dataclass(frozen=True, slots=True)
class FlowLog:
    """Of the node ``node``. All parts change while it is in use."""

    node: str
    store: FlowStore
    names: Names
    rules: Rules
    services: ServiceNames
    requests: Requests
    vocabulary: Vocabulary

    def matcher(self, filters: Sequence[FlowFilter] = (), not_filters: Sequence[FlowFilter] = ()) -> Matcher:
        """Raises `axoneme.flows.flowfilter.FilterError`."""
        return Matcher(
            filters,
            not_filters,
            names=self.names,
            services=self.services,
            requests=self.requests,
            node=self.node,
            vocabulary=self.vocabulary,
        )

    def encoder(self) -> Encoder:
        return Encoder(self.names, self.rules, self.services, self.requests, self.node, self.vocabulary)
