"""As much of a Pod, Namespace or Node as a pod's network needs, read straight from the stored object.

Field names are those of the Kubernetes API. What is not named here is passed over; what is there but of
the wrong type is refused, since a pod would get an identity that nobody meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

import msgspec

from axoneme.model.state import NamedPortState
from axoneme.model.trial import AUDIT
from axoneme.model.wishes import CILIUM_VISIBILITY, VISIBILITY
from axoneme.services.facts import LocalPod, PodPort


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Owner(_Part, frozen=True):
    kind: str = ""
    name: str = ""
    controller: bool = False


class _Metadata(_Part, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] = []
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class _Port(_Part, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")

    def made(self) -> PodPort:
        """A host address that is none counts as a port that is not wanted at the host."""
        port = PodPort(self.container_port, self.protocol, self.name)
        if not self.host_port:
            return port
        with suppress(ValueError):
            address = ip_address(self.host_ip) if self.host_ip else None
            return PodPort(port.port, port.protocol, port.name, self.host_port, address)
        return port


class _Container(_Part, frozen=True):
    ports: list[_Port] | None = None


class _Spec(_Part, frozen=True):
    service_account_name: str = ""
    containers: list[_Container] = []
    init_containers: list[_Container] | None = None


class _Condition(_Part, frozen=True):
    type: str = ""
    status: str = ""


class _Status(_Part, frozen=True):
    conditions: list[_Condition] | None = None


class PodView(_Part, frozen=True):
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()
    status: _Status | None = None

    @classmethod
    def of_container(cls, namespace: str, name: str, labels: dict[str, str]) -> PodView:
        """A container that no object stands for."""
        return cls(_Metadata(name=name, namespace=namespace, labels=labels))

    @property
    def workload(self) -> tuple[str, str]:
        """Kind and name of what made the pod; a Deployment stands behind a ReplicaSet that bears its hash."""
        owner = next((each for each in self.metadata.owner_references if each.controller), None)
        if owner is None:
            return "Pod", self.metadata.name
        suffix = "-" + self.metadata.labels.get("pod-template-hash", "")
        if owner.kind == "ReplicaSet" and len(suffix) > 1 and owner.name.endswith(suffix):
            return "Deployment", owner.name.removesuffix(suffix)
        return owner.kind, owner.name

    @property
    def named_ports(self) -> list[NamedPortState]:
        containers = (*self.spec.containers, *(self.spec.init_containers or ()))
        return [
            NamedPortState(port.name, port.protocol, port.container_port)
            for container in containers
            for port in container.ports or ()
            if port.name
        ]

    def local(self, namespace: str, name: str, addresses: Iterable[str]) -> LocalPod:
        """As a pod of this node to which services can lead."""
        containers = (*(self.spec.init_containers or ()), *self.spec.containers)
        ready = _Condition("Ready", "True")
        return LocalPod(
            namespace,
            name,
            tuple(ip_address(text) for text in addresses),
            self.metadata.labels,
            tuple(port.made() for container in containers for port in container.ports or ()),
            self.status is not None and ready in (self.status.conditions or ()),
            self.metadata.creation_timestamp or "",
        )


class NamespaceView(_Part, frozen=True):
    """A Namespace: its labels are part of its pods' identities, its annotations hold for them too."""

    metadata: _Metadata = _Metadata()

    @property
    def telling(self) -> tuple[object, ...]:
        """As much of it as matters to pods."""
        annotations = self.metadata.annotations or {}
        return self.metadata.labels, *(
            annotations.get(name) for name in (AUDIT, VISIBILITY, CILIUM_VISIBILITY)
        )


class _Taint(_Part, frozen=True):
    key: str = ""


class _NodeSpec(_Part, frozen=True):
    taints: list[_Taint] | None = None


class NodeView(_Part, frozen=True):
    """A Node: its labels say in which zone it is."""

    metadata: _Metadata = _Metadata()
    spec: _NodeSpec | None = None

    @property
    def eligible(self) -> bool:
        """Whether nobody is about to take the node away (KEP-3836)."""
        taints = (self.spec.taints or ()) if self.spec else ()
        leaving = any(taint.key == "ToBeDeletedByClusterAutoscaler" for taint in taints)
        return self.metadata.deletion_timestamp is None and not leaving
