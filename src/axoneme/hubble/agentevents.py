"""What the agent did, as Hubble's messages have it."""

from __future__ import annotations

from typing import Any

from axoneme.flows.agentevents import AnyEvent, EndpointChange, PolicyChange
from axoneme.hubble.parts import policy_labels
from axoneme.hubble.schema import enum, message


def response_of(event: AnyEvent, node: str) -> Any:
    """An ``observer.GetAgentEventsResponse``; ``node`` as Hubble writes it."""
    made = message("observer.GetAgentEventsResponse")(node_name=node)
    made.time.FromNanoseconds(event.time)
    told = made.agent_event
    if isinstance(event, PolicyChange):
        told.type = _type("POLICY_DELETED" if event.deleted else "POLICY_UPDATED")
        told.policy_update.labels.extend(policy_labels(event.kind, event.namespace, event.name))
        told.policy_update.revision = event.revision
        told.policy_update.rule_count = event.rules
    elif isinstance(event, EndpointChange):
        told.type = _type("ENDPOINT_DELETED" if event.deleted else "ENDPOINT_CREATED")
        told.endpoint_update.id = event.id
        told.endpoint_update.labels.extend(event.labels)
        told.endpoint_update.pod_name = event.pod
        told.endpoint_update.namespace = event.namespace
    else:
        told.type = _type("AGENT_STARTED")
        told.agent_start.time.FromNanoseconds(event.time)
    return made


def _type(name: str) -> int:
    return enum("flow.AgentEventType")[name]
