"""Views of namespaces, and of the workloads that make pods: typed, checked, for reading.

An object is never written back from its view: it may hold much that is not named here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from axoneme.model import checks, selectors
from axoneme.model.labels import K8S, Label, Labels, Selector
from axoneme.model.metadata import Metadata, naming, parse_metadata
from axoneme.model.paths import Fields, Place
from axoneme.model.pods import Pod, PodSpec, parse_pod, parse_pod_spec
from axoneme.model.services import Service, parse_service

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Namespace:
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class PodTemplate:
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: PodSpec


@dataclass(frozen=True, slots=True)
class Deployment:
    metadata: Metadata
    replicas: int
    selector: Selector
    template: PodTemplate
    recreate: bool = False  # old pods go before new ones come, instead of one by one


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    metadata: Metadata
    replicas: int
    selector: Selector
    template: PodTemplate


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """Its pods are numbered from ``first_ordinal`` on; ``service_name`` gives them their DNS names."""

    metadata: Metadata
    replicas: int
    selector: Selector
    template: PodTemplate
    service_name: str = ""
    first_ordinal: int = 0
    parallel: bool = False

    def pod_names(self) -> tuple[str, ...]:
        first = self.first_ordinal
        return tuple(f"{self.metadata.name}-{ordinal}" for ordinal in range(first, first + self.replicas))


@dataclass(frozen=True, slots=True)
class DaemonSet:
    metadata: Metadata
    selector: Selector
    template: PodTemplate


@dataclass(frozen=True, slots=True)
class Job:
    """``completions`` None: done as soon as one pod succeeded."""

    metadata: Metadata
    template: PodTemplate
    parallelism: int = 1
    completions: int | None = None
    backoff_limit: int = 6
    suspend: bool = False


def parse_namespace(object: Mapping[str, object]) -> Namespace:
    with naming(object) as fields:
        return Namespace(parse_metadata(fields, namespaced=False, name=checks.dns_label))


def parse_deployment(object: Mapping[str, object]) -> Deployment:
    with naming(object) as fields:
        metadata, spec = parse_metadata(fields), fields.need("spec").fields()
        strategy = spec.get("strategy")
        types = ("RollingUpdate", "Recreate")
        type_ = strategy.fields().one_of("type", types, types[0]) if strategy else types[0]
        return Deployment(metadata, _replicas(spec), *_pods(spec), recreate=type_ == "Recreate")


def parse_replica_set(object: Mapping[str, object]) -> ReplicaSet:
    with naming(object) as fields:
        metadata, spec = parse_metadata(fields), fields.need("spec").fields()
        return ReplicaSet(metadata, _replicas(spec), *_pods(spec))


def parse_stateful_set(object: Mapping[str, object]) -> StatefulSet:
    with naming(object) as fields:
        metadata = parse_metadata(fields, name=checks.dns_label)
        spec = fields.need("spec").fields()
        ordinals = spec.get("ordinals")
        policies = ("OrderedReady", "Parallel")
        return StatefulSet(
            metadata,
            _replicas(spec),
            *_pods(spec),
            spec.text("serviceName"),
            ordinals.fields().number("start", 0, 0, _MOST) if ordinals else 0,
            spec.one_of("podManagementPolicy", policies, policies[0]) == "Parallel",
        )


def parse_daemon_set(object: Mapping[str, object]) -> DaemonSet:
    with naming(object) as fields:
        metadata, spec = parse_metadata(fields), fields.need("spec").fields()
        return DaemonSet(metadata, *_pods(spec))


def parse_job(object: Mapping[str, object]) -> Job:
    with naming(object) as fields:
        metadata, spec = parse_metadata(fields), fields.need("spec").fields()
        completions = spec.get("completions")
        return Job(
            metadata,
            _template(spec, ("OnFailure", "Never")),
            spec.number("parallelism", 1, 0, _MOST),
            None if completions is None else completions.number(0, _MOST),
            spec.number("backoffLimit", 6, 0, _MOST),
            spec.flag("suspend"),
        )


#: The parser of each kind that has a view.
PARSERS: Mapping[
    str,
    Callable[
        [Mapping[str, object]],
        Namespace | Pod | Service | Deployment | ReplicaSet | StatefulSet | DaemonSet | Job,
    ],
] = {
    "Namespace": parse_namespace,
    "Pod": parse_pod,
    "Service": parse_service,
    "Deployment": parse_deployment,
    "ReplicaSet": parse_replica_set,
    "StatefulSet": parse_stateful_set,
    "DaemonSet": parse_daemon_set,
    "Job": parse_job,
}


# ---- what they share ----------------------------------------------------------------------------


def _replicas(spec: Fields) -> int:
    return spec.number("replicas", 1, 0, _MOST)


def _pods(spec: Fields) -> tuple[Selector, PodTemplate]:
    """Selector and template; a workload that did not know its own pods would make them for ever."""
    place = spec.need("selector")
    selector = Selector().and_(*selectors.kubernetes(place))
    if not selector.requirements:
        place.refuse("a workload's selector cannot be empty")
    template = _template(spec, ("Always",))
    labels = Labels(Label(K8S, key, value) for key, value in template.labels.items())
    for requirement in selector.requirements:
        if not requirement.holds(labels):
            Place(template.labels, f"{spec.path}.template.metadata.labels").refuse(
                f"the labels of the template must fulfil the selector's {requirement.key}",
                ", ".join(f"{key}={value}" for key, value in template.labels.items()) or "no labels",
            )
    return selector, template


def _template(spec: Fields, restart_policies: Collection[str]) -> PodTemplate:
    template = spec.need("template").fields()
    metadata = template.get("metadata")
    own = metadata.fields() if metadata else Fields({}, spec.path)
    place = template.need("spec")
    pods = parse_pod_spec(place)
    if pods.restart_policy not in restart_policies:
        place.fields().place("restartPolicy").refuse(
            f"pods of this kind restart {' or '.join(restart_policies)}", pods.restart_policy
        )
    return PodTemplate(checks.labels(own.get("labels")), checks.texts(own.get("annotations")), pods)
