"""What is known besides the policies: pods, namespaces, services, address ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from axoneme.identity.labels import LabelFilter, pod_labels
from axoneme.model.cidrgroup import parse_cidr_group
from axoneme.model.labels import Labels
from axoneme.model.manifests import CIDR_GROUP, Manifest
from axoneme.model.metadata import Metadata
from axoneme.model.paths import ManifestError
from axoneme.model.pods import Pod, PodSpec
from axoneme.model.policy import Network, Protocol
from axoneme.model.services import Service, parse_service
from axoneme.model.state import EndpointState, NodeState
from axoneme.model.workloads import PARSERS, DaemonSet, Deployment, Job, ReplicaSet, StatefulSet

#: Where pods get their addresses, where nothing else is said: the sandbox's ranges.
POD_RANGES: tuple[Network, ...] = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))

CLUSTER_NAME = "default"

#: Which labels make identities, where nothing else is said.
DEFAULT_LABELS = LabelFilter()

_WORKLOADS = Deployment | ReplicaSet | StatefulSet | DaemonSet | Job


@dataclass(frozen=True, slots=True)
class KnownPod:
    """A pod, or what a workload's pods are like. ``labels`` are those of its identity."""

    namespace: str
    name: str
    labels: Labels
    ports: frozenset[tuple[str, Protocol]] = frozenset()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``whole``: there is nothing else, as in a live cluster; otherwise a namespace of which no pod is
    known may have any. ``ranges`` are those of the cluster's pods and nodes; ``services`` are namespaces
    and names."""

    pods: tuple[KnownPod, ...] = ()
    whole: bool = False
    services: frozenset[tuple[str, str]] = frozenset()
    groups: frozenset[str] = frozenset()
    ranges: tuple[Network, ...] = POD_RANGES
    labels: LabelFilter = DEFAULT_LABELS


def of_manifests(
    manifests: Iterable[Manifest],
    ranges: tuple[Network, ...] = POD_RANGES,
    labels: LabelFilter = DEFAULT_LABELS,
) -> Surroundings:
    """The workloads in manifests; an object that is wrong counts as absent."""
    namespaces: dict[str, Mapping[str, str]] = {}
    services: set[tuple[str, str]] = set()
    groups: set[str] = set()
    workloads: list[tuple[Metadata, Mapping[str, str], PodSpec]] = []
    for manifest in manifests:
        try:
            if manifest.kind == CIDR_GROUP:
                groups.add(parse_cidr_group(manifest.object).name)
                continue
            if manifest.kind not in PARSERS or not manifest.supported:
                continue
            view = PARSERS[manifest.kind](manifest.object)
        except ManifestError:
            continue
        if manifest.kind == "Namespace":
            namespaces[view.metadata.name] = view.metadata.labels
        elif isinstance(view, Service):
            services.add((view.metadata.namespace, view.metadata.name))
        elif isinstance(view, Pod):
            workloads.append((view.metadata, view.metadata.labels, view.spec))
        elif isinstance(view, _WORKLOADS):
            workloads.append((view.metadata, view.template.labels, view.template.spec))
    pods = tuple(
        _pod(metadata, own, spec, namespaces.get(metadata.namespace), labels)
        for metadata, own, spec in workloads
        if not spec.host_network  # policies see the node
    )
    return Surroundings(pods, False, frozenset(services), frozenset(groups), ranges, labels)


def of_cluster(
    manifests: Iterable[Manifest],
    endpoints: Iterable[EndpointState],
    nodes: Iterable[NodeState],
    ranges: tuple[Network, ...] = (),
) -> Surroundings:
    """What runs. ``manifests``: its services and groups of ranges, besides others; ``ranges``: in place of
    what the nodes say."""
    found = list(manifests)
    pods = tuple(
        KnownPod(
            each.namespace,
            each.workload or each.pod,
            Labels.parse(each.labels),
            frozenset((port.name, Protocol[port.protocol]) for port in each.named_ports),
        )
        for each in endpoints
    )
    services = [parse_service(each.object) for each in found if each.kind == "Service"]
    texts = [text for node in nodes for text in (*node.pod_cidrs, *node.addresses)]
    return Surroundings(
        pods,
        True,
        frozenset((each.metadata.namespace, each.metadata.name) for each in services),
        frozenset(each.name for each in found if each.kind == CIDR_GROUP),
        ranges or tuple(dict.fromkeys(ip_network(text) for text in texts)),
    )


def _pod(
    metadata: Metadata,
    own: Mapping[str, str],
    spec: PodSpec,
    namespace_labels: Mapping[str, str] | None,
    labels: LabelFilter,
) -> KnownPod:
    every = pod_labels(
        own,
        namespace=metadata.namespace,
        namespace_labels=namespace_labels,
        service_account=spec.service_account,
        cluster=CLUSTER_NAME,
    )
    ports = frozenset((port.name, Protocol[port.protocol]) for port in spec.named_ports())
    return KnownPod(metadata.namespace, metadata.name, labels.apply(every), ports)
