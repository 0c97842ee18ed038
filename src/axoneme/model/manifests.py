"""Manifests: what people and tools write down for the API of Kubernetes.

`read` turns a text into objects that can be taken as they are, and counts those of kinds that play no part
here. It is `load`, which takes the text apart, and `validate` for each object: whoever wants to go on
behind a wrong object calls the two. What is in an object of a kind is for that kind's own parser
(`policies.parse_policy`, `cidrgroup`, `services`, `endpointslices`, `pods`, `workloads`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from axoneme.model.adminpolicy import ADMIN, API_VERSION, BASELINE
from axoneme.model.announcementpolicy import KIND as ANNOUNCEMENT_POLICY
from axoneme.model.ciliumpolicy import CLUSTERWIDE, NAMESPACED
from axoneme.model.endpointslices import KIND as ENDPOINT_SLICE
from axoneme.model.envoyconfig import CLUSTERWIDE as CLUSTERWIDE_ENVOY_CONFIG
from axoneme.model.envoyconfig import NAMESPACED as ENVOY_CONFIG
from axoneme.model.loadbalancerpool import KIND as ADDRESS_POOL
from axoneme.model.localredirect import KIND as LOCAL_REDIRECT
from axoneme.model.metadata import DEFAULT_NAMESPACE, title
from axoneme.model.networkpolicy import KIND as NETWORK_POLICY
from axoneme.model.paths import ManifestError, Place, show
from axoneme.model.policies import POLICY_KINDS, parse_policy
from axoneme.model.secrets import KIND as SECRET
from axoneme.model.secrets import parse_secret
from axoneme.model.services import refuse_unknown

CIDR_GROUP = "CiliumCIDRGroup"

#: The kinds that something is done with, and the API versions in which they can be read.
SUPPORTED_KINDS: Mapping[str, tuple[str, ...]] = {
    "Namespace": ("v1",),
    "Pod": ("v1",),
    "Service": ("v1",),
    ENDPOINT_SLICE: ("discovery.k8s.io/v1",),
    "Deployment": ("apps/v1",),
    "ReplicaSet": ("apps/v1",),
    "StatefulSet": ("apps/v1",),
    "DaemonSet": ("apps/v1",),
    "Job": ("batch/v1",),
    SECRET: ("v1",),
    NETWORK_POLICY: ("networking.k8s.io/v1",),
    NAMESPACED: ("cilium.io/v2",),
    CLUSTERWIDE: ("cilium.io/v2",),
    ADMIN: (API_VERSION,),
    BASELINE: (API_VERSION,),
    CIDR_GROUP: ("cilium.io/v2", "cilium.io/v2alpha1"),
    ENVOY_CONFIG: ("cilium.io/v2",),
    CLUSTERWIDE_ENVOY_CONFIG: ("cilium.io/v2",),
    LOCAL_REDIRECT: ("cilium.io/v2",),
    ADDRESS_POOL: ("cilium.io/v2", "cilium.io/v2alpha1"),
    ANNOUNCEMENT_POLICY: ("cilium.io/v2alpha1", "cilium.io/v2"),
}
#: Kinds that are in no namespace.
CLUSTER_KINDS = frozenset(
    {
        "Namespace",
        CLUSTERWIDE,
        CLUSTERWIDE_ENVOY_CONFIG,
        ADMIN,
        BASELINE,
        CIDR_GROUP,
        ADDRESS_POOL,
        ANNOUNCEMENT_POLICY,
    }
)

#: The group from which workloads and policies moved to their own; its objects are meant as the new ones.
_FORMER_GROUP = "extensions"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as it was written, with its namespace filled in; ``object`` must not be changed.

    ``namespace`` is empty for cluster-wide kinds, ``origin`` says where the object was read.
    """

    kind: str
    api_version: str
    namespace: str
    name: str
    object: Mapping[str, object]
    origin: str = ""

    @property
    def supported(self) -> bool:
        """Whether something is done with it; objects that are not supported are ignored."""
        versions = SUPPORTED_KINDS.get(self.kind, ())
        groups = {_group(version) for version in versions}
        return bool(versions) and _group(self.api_version) in groups | {_FORMER_GROUP}

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Reading:
    """The ``objects`` of a text that can be taken, and how many of which other kinds are ``ignored``."""

    objects: tuple[Manifest, ...]
    ignored: Mapping[str, int]


def read(text: str, origin: str, *, namespace: str = DEFAULT_NAMESPACE) -> Reading:
    """The objects in a text of YAML or JSON, in order, all of them sound; lists are taken apart.

    Objects that name no namespace are put into ``namespace``. ``origin`` is what messages call the text.
    Raises `ManifestError` for the first thing that is wrong.
    """
    found = load(text, origin, namespace=namespace)
    for manifest in found:
        validate(manifest)
    ignored = Counter(manifest.kind for manifest in found if not manifest.supported)
    return Reading(tuple(manifest for manifest in found if manifest.supported), ignored)


def load(text: str, origin: str, *, namespace: str = DEFAULT_NAMESPACE) -> list[Manifest]:
    """As `read`, but without a look into the objects, and with the ignored ones among them."""
    from axoneme.model.yamltext import documents

    return [
        manifest
        for document in documents(text, origin)
        for manifest in _objects(document.value, f"{origin}:{document.line}", namespace)
    ]


def validate(manifest: Manifest) -> None:
    """Raises `ManifestError` if the object could not be taken whole; ignored kinds always can."""
    from axoneme.model import (
        announcementpolicy,
        cidrgroup,
        endpointslices,
        envoyconfig,
        loadbalancerpool,
        localredirect,
        wishes,
        workloads,
    )

    if not manifest.supported:
        return
    try:
        versions = SUPPORTED_KINDS[manifest.kind]
        if manifest.api_version not in versions:
            Place(manifest.api_version, "apiVersion").refuse(f"{manifest.kind} is read as {versions[0]}")
        if manifest.kind in POLICY_KINDS:
            parse_policy(manifest.object)
        else:
            parsers: dict[str, Callable[[Mapping[str, object]], object]] = {
                **workloads.PARSERS,
                CIDR_GROUP: cidrgroup.parse_cidr_group,
                ENVOY_CONFIG: envoyconfig.parse_envoy_config,
                CLUSTERWIDE_ENVOY_CONFIG: envoyconfig.parse_envoy_config,
                ENDPOINT_SLICE: endpointslices.parse_endpoint_slice,
                LOCAL_REDIRECT: localredirect.parse_local_redirect,
                SECRET: parse_secret,
                ADDRESS_POOL: loadbalancerpool.parse_pool,
                ANNOUNCEMENT_POLICY: announcementpolicy.parse_announcement_policy,
            }
            parsers[manifest.kind](manifest.object)
            wishes.check(manifest.object)
        if manifest.kind == "Service":
            refuse_unknown(manifest.object)
    except ManifestError as error:
        raise error.of(str(manifest), manifest.origin) from None


# ---- taking documents apart ---------------------------------------------------------------------


def _objects(value: object, origin: str, namespace: str) -> Iterator[Manifest]:
    """The objects in a document: itself, or the items of a list (a kind that ends so and has items)."""
    if not isinstance(value, Mapping):
        raise ManifestError("", show(value), "an object with kind and apiVersion belongs here").of(
            origin=origin
        )
    kind, items = value.get("kind"), value.get("items")
    if kind == "List" and items is None:
        return
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            yield from _objects(_of_list(item, value), f"{origin} items[{index}]", namespace)
        return
    yield _manifest(value, origin, namespace)


def _of_list(item: object, around: Mapping[str, object]) -> object:
    """An item of a list of one kind may leave out its own kind: the list says it."""
    kind = str(around["kind"]).removesuffix("List")
    if not isinstance(item, Mapping) or not kind:
        return item
    return {"kind": kind, "apiVersion": around.get("apiVersion"), **item}


def _manifest(object: Mapping[str, object], origin: str, namespace: str) -> Manifest:
    fields = Place(object, "").fields()
    try:
        kind = fields.need("kind", "an object names its kind").name()
        api_version = fields.need("apiVersion", "an object names the version of its API").name()
        found = Manifest(kind, api_version, "", "", object, origin)
        if not found.supported:
            _refuse_misspelt(found)
            return Manifest(kind, api_version, *_name_if_any(object), object, origin)
        metadata = fields.need("metadata").fields()
        name = metadata.need("name").name()
        own = metadata.text("namespace")
    except ManifestError as error:
        raise error.of(title(object), origin) from None
    own = "" if kind in CLUSTER_KINDS else own or namespace
    rest = {key: value for key, value in _mapping(object.get("metadata")).items() if key != "namespace"}
    placed = {**object, "metadata": {**rest, "namespace": own} if own else rest}
    return Manifest(kind, api_version, own, name, placed, origin)


def _refuse_misspelt(manifest: Manifest) -> None:
    """A kind that is not known is ignored; a policy whose kind only has a slip in it must not be."""
    from difflib import get_close_matches

    known = {
        kind.lower(): kind
        for kind, versions in SUPPORTED_KINDS.items()
        if _group(manifest.api_version) in map(_group, versions)
    }
    for kind in get_close_matches(manifest.kind.lower(), known, 1, cutoff=0.85):
        Place(manifest.kind, "kind").refuse(
            f"{manifest.api_version} has no such kind that is known here: is it {known[kind]}?"
        )


def _name_if_any(object: Mapping[str, object]) -> tuple[str, str]:
    metadata = _mapping(object.get("metadata"))
    namespace, name = metadata.get("namespace"), metadata.get("name")
    return namespace if isinstance(namespace, str) else "", name if isinstance(name, str) else ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]
