"""The kinds of objects, and all the names by which people call them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from axoneme.cli.failures import Failure


class Kind(NamedTuple):
    """``group`` is the API group, empty for the core one."""

    name: str
    plural: str
    group: str = ""
    short: tuple[str, ...] = ()
    namespaced: bool = True

    @property
    def resource(self) -> str:
        """As kubectl names it in messages: ``deployment.apps``."""
        return f"{self.name.lower()}.{self.group}" if self.group else self.name.lower()

    @property
    def resources(self) -> str:
        """``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def names(self) -> Iterator[str]:
        """All that it may be called, in lower case."""
        yield from (self.name.lower(), self.plural, *self.short)
        if self.group:
            yield from (self.resource, self.resources)


POD = Kind("Pod", "pods", "", ("po",))
SERVICE = Kind("Service", "services", "", ("svc",))
ENDPOINT_SLICE = Kind("EndpointSlice", "endpointslices", "discovery.k8s.io")
NAMESPACE = Kind("Namespace", "namespaces", "", ("ns",), namespaced=False)
NODE = Kind("Node", "nodes", "", ("no",), namespaced=False)
DEPLOYMENT = Kind("Deployment", "deployments", "apps", ("deploy",))
REPLICA_SET = Kind("ReplicaSet", "replicasets", "apps", ("rs",))
STATEFUL_SET = Kind("StatefulSet", "statefulsets", "apps", ("sts",))
DAEMON_SET = Kind("DaemonSet", "daemonsets", "apps", ("ds",))
JOB = Kind("Job", "jobs", "batch")
SECRET = Kind("Secret", "secrets", "")
NETWORK_POLICY = Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io", ("netpol",))
CILIUM_POLICY = Kind("CiliumNetworkPolicy", "ciliumnetworkpolicies", "cilium.io", ("cnp", "ciliumnp"))
CLUSTERWIDE_POLICY = Kind(
    "CiliumClusterwideNetworkPolicy",
    "ciliumclusterwidenetworkpolicies",
    "cilium.io",
    ("ccnp",),
    namespaced=False,
)
ADMIN_POLICY = Kind(
    "AdminNetworkPolicy", "adminnetworkpolicies", "policy.networking.k8s.io", ("anp",), namespaced=False
)
BASELINE_POLICY = Kind(
    "BaselineAdminNetworkPolicy",
    "baselineadminnetworkpolicies",
    "policy.networking.k8s.io",
    ("banp",),
    namespaced=False,
)
CIDR_GROUP = Kind("CiliumCIDRGroup", "ciliumcidrgroups", "cilium.io", ("ccg",), namespaced=False)
ENVOY_CONFIG = Kind("CiliumEnvoyConfig", "ciliumenvoyconfigs", "cilium.io", ("cec",))
CLUSTERWIDE_ENVOY_CONFIG = Kind(
    "CiliumClusterwideEnvoyConfig", "ciliumclusterwideenvoyconfigs", "cilium.io", ("ccec",), namespaced=False
)
LOCAL_REDIRECT = Kind("CiliumLocalRedirectPolicy", "ciliumlocalredirectpolicies", "cilium.io", ("clrp",))

ADDRESS_POOL = Kind(
    "CiliumLoadBalancerIPPool",
    "ciliumloadbalancerippools",
    "cilium.io",
    ("ippools", "ippool", "lbippool", "lbippools"),
    namespaced=False,
)
ANNOUNCEMENT = Kind(
    "CiliumL2AnnouncementPolicy",
    "ciliuml2announcementpolicies",
    "cilium.io",
    ("l2announcement",),
    namespaced=False,
)
LEASE = Kind("Lease", "leases", "coordination.k8s.io")

#: Not objects of the store under ``objects/``, but listed as if they were.
ENDPOINT = Kind("Endpoint", "endpoints", "", ("ep", "cep"))
IDENTITY = Kind("Identity", "identities", "", ("id",), namespaced=False)

KINDS: tuple[Kind, ...] = (
    POD,
    SERVICE,
    ENDPOINT_SLICE,
    NAMESPACE,
    NODE,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    DAEMON_SET,
    JOB,
    SECRET,
    NETWORK_POLICY,
    CILIUM_POLICY,
    CLUSTERWIDE_POLICY,
    ADMIN_POLICY,
    BASELINE_POLICY,
    CIDR_GROUP,
    ENVOY_CONFIG,
    CLUSTERWIDE_ENVOY_CONFIG,
    LOCAL_REDIRECT,
    ADDRESS_POOL,
    ANNOUNCEMENT,
    LEASE,
    ENDPOINT,
    IDENTITY,
)

POLICIES = (NETWORK_POLICY, CILIUM_POLICY, CLUSTERWIDE_POLICY, ADMIN_POLICY, BASELINE_POLICY)

#: Names that mean several kinds at once.
CATEGORIES: dict[str, tuple[Kind, ...]] = {
    "policies": POLICIES,
    "policy": POLICIES,
    "all": (POD, SERVICE, DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET, JOB),
}

_BY_NAME = {name: kind for kind in KINDS for name in kind.names()}
_BY_KIND = {kind.name: kind for kind in KINDS}


class Target(NamedTuple):
    """What a command is asked for: one object, or all of a kind when ``name`` is empty."""

    kind: Kind
    name: str = ""


def of_object(kind: str) -> Kind:
    """The kind of a stored object; one that this program does not know is taken at its word."""
    return _BY_KIND.get(kind) or Kind(kind, f"{kind.lower()}s")


def find(name: str) -> tuple[Kind, ...]:
    """The kinds that somebody calls so."""
    lower = name.lower()
    if lower in CATEGORIES:
        return CATEGORIES[lower]
    if lower in _BY_NAME:
        return (_BY_NAME[lower],)
    from difflib import get_close_matches

    near = get_close_matches(lower, [*_BY_NAME, *CATEGORIES], 1)
    hint = f"; is it {near[0]}?" if near else f"; there are {', '.join(kind.plural for kind in KINDS)}"
    raise Failure(f"there is no kind of object called {name!r}{hint}")


def targets(words: Sequence[str]) -> list[Target]:
    """From ``pods``, ``pods,svc``, ``pod web-1 web-2``, ``deploy/web svc/web``."""
    if any("/" in word for word in words):
        found = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name or not kind:
                raise Failure(f"{word!r}: give KIND/NAME, for all of the objects or for none")
            found += [Target(each, name) for each in find(kind)]
        return found
    first, *names = words
    kinds = [kind for part in first.split(",") for kind in find(part)]
    return [Target(kind, name) for name in names or [""] for kind in kinds]
