"""As much of a Pod as its network needs, read straight from the stored object.

Field names are those of the Kubernetes API. What is not named here is passed over; what is there but of
the wrong type is refused, since a pod would get an identity that nobody meant.
"""

from __future__ import annotations

import msgspec

from axoneme.model.state import NamedPortState


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
    owner_references: list[_Owner] = []


class _Port(_Part, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"


class _Container(_Part, frozen=True):
    ports: list[_Port] | None = None


class _Spec(_Part, frozen=True):
    service_account_name: str = ""
    containers: list[_Container] = []
    init_containers: list[_Container] | None = None


class PodView(_Part, frozen=True):
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()

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


class NamespaceView(_Part, frozen=True):
    """A Namespace: its labels are part of its pods' identities."""

    metadata: _Metadata = _Metadata()
