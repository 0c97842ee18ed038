"""The agent's configuration: one file, read once, handed out in parts."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from axoneme.agent.failsafe import failsafe
from axoneme.flows.capacity import HistoryConfig, RecordingConfig
from axoneme.health.answering import PORT
from axoneme.hubble.config import HubbleConfig
from axoneme.metrics.config import MetricsConfig
from axoneme.model.policy import Policy
from axoneme.model.redaction import Redaction
from axoneme.proxy.config import ProxiesConfig
from axoneme.rpc.listening import listening_at
from axoneme.sources.config import StoreConfig, read
from axoneme.sources.tenure import Timing


class PoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cluster's range for pods, and how long the prefix is that a node takes from it."""

    cidr: str
    node_prefix_length: int


#: Tables of the control plane whose size depends on the cluster's.
_GROWING = ("policies", "addresses", "frontends", "services", "slots", "backends", "source_ranges")


class TableConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many entries a table has room for at the start; those in `limits` may grow ``growth``-fold."""

    flows: int = 131072
    translations: int = 65536
    half_open: int = 32768
    half_open_translations: int = 32768
    policies: int = 262144
    addresses: int = 524288
    endpoints: int = 4096
    frontends: int = 131072
    services: int = 131072
    slots: int = 524288
    backends: int = 524288
    source_ranges: int = 65536
    maglev: int = 16384
    served: int = 524288
    affinities: int = 16384
    datagrams: int = 16384
    flow_events: int = 1 << 22  # bytes
    drop_events: int = 1 << 20  # bytes
    growth: int = 8

    def sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "growth"}

    def limits(self) -> dict[str, int]:
        return {name: self.growth * getattr(self, name) for name in _GROWING}


class HealthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``interval``: seconds between two measurements of a node, for a cluster of two; more take longer."""

    enabled: bool = True
    interval: float = 10.0


class LoadBalancingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the node balances where a Service does not say it itself. ``node_port_addresses``: ranges of the
    node's addresses at which node ports are served; empty: at all. ``forwarding``: how callers from outside
    get to backends of other nodes, alike on all nodes: ``snat``, ``dsr`` (these answer directly), ``hybrid``
    (directly over TCP). ``proxy_name``: only services that label
    ``service.kubernetes.io/service-proxy-name`` gives to the proxy of this name; empty: only those of nobody.
    ``healthz``: ``address:port`` (no address: all of them) at which load balancers are told whether
    the node takes traffic, as kube-proxy does at ``:10256``; empty: nowhere. ``acceleration``: where packets
    that only pass through are sent on (`axoneme.datapath.xdp`).
    """

    enabled: bool = True
    algorithm: Literal["random", "maglev"] = "random"
    node_port_addresses: list[str] = []
    forwarding: Literal["snat", "dsr", "hybrid"] = "snat"
    proxy_name: str = ""
    healthz: str = ""
    acceleration: Literal["disabled", "native", "generic", "best-effort"] = "disabled"


class HostPolicyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Policies for the node itself. ``timeout``: seconds for which one is in force that nobody has confirmed.
    ``failsafe_ingress``, ``failsafe_egress``: ports that none can close, like ``TCP:22``; those of etcd and
    of the agents' health belong to them in any case."""

    timeout: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 60.0
    failsafe_ingress: tuple[str, ...] = ("TCP:22", "UDP:68", "UDP:546")
    failsafe_egress: tuple[str, ...] = ("UDP:67", "UDP:547")


class AuthenticationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where nodes shake hands for identities that must prove who they are: alike on all nodes."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 4250


class NamesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of DNS names that policies select by. ``min_ttl``: seconds that an answer counts at least,
    whatever its TTL; ``addresses_per_name``: of one name, as told to one pod."""

    min_ttl: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 60
    addresses_per_name: Annotated[int, msgspec.Meta(ge=1)] = 1000


class AnnouncementConfig(Timing, frozen=True, forbid_unknown_fields=True):
    """Of leases by which one node at a time announces a service's addresses. ``release_on_stop``: an agent
    that is told to stop leaves them to others at once; else they wait for it as for one that crashed."""

    release_on_stop: bool = False


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node. Paths of sockets and pins follow from ``directory`` unless they are given."""

    node: str
    directory: str
    store: StoreConfig
    cluster_name: str = "default"
    routing: Literal["overlay", "native"] = "overlay"
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    uplinks: tuple[str, ...] = ("eth0",)
    underlay_addresses: list[str] = []
    cluster_pool: list[PoolConfig] = []
    enforcement: Literal["default", "always", "never"] = "default"
    masquerade: bool = True
    overlay_port: int = 8472
    mtu: int = 0  # 0: that of the first uplink
    labels: list[str] = []  # which pod labels make an identity; empty: the default choice
    bpffs: str = ""
    state: str = ""
    agent_socket: str = ""
    flows_socket: str = ""
    cni_socket: str = ""  # where container runtimes' requests come in; empty: nowhere
    cni_config: str = ""  # what to write for them, such as /etc/cni/net.d/05-axoneme.conflist
    flow_history: HistoryConfig = HistoryConfig()
    hubble: HubbleConfig = HubbleConfig()  # the API for Hubble's clients
    history: RecordingConfig | None = None  # of `axo history`: flows on disk
    flow_logs: str = ""  # the file that says which flows the flow server exports, where to; empty: none
    redaction: Redaction = Redaction()  # of what proxies tell of requests
    tables: TableConfig = TableConfig()
    health: HealthConfig = HealthConfig()
    load_balancing: LoadBalancingConfig = LoadBalancingConfig()
    names: NamesConfig = NamesConfig()
    authentication: AuthenticationConfig = AuthenticationConfig()
    proxies: ProxiesConfig = ProxiesConfig()
    host_policy: HostPolicyConfig = HostPolicyConfig()
    announcements: AnnouncementConfig = AnnouncementConfig()
    metrics: MetricsConfig = MetricsConfig()
    denied: Literal["drop", "answer"] = "drop"  # answer: by TCP reset or ICMP "administratively prohibited"
    cgroup: str = ""  # whose processes call services at their sockets; empty: of the whole machine
    tcp_health: bool = True  # how connections of the processes in `cgroup` fare is measured at their sockets
    close_tcp: bool = False  # also TCP connections of local programs to backends that are gone
    flow_quota: int = 32768  # entries of the flow table that one pod may have

    @property
    def bpffs_path(self) -> Path:
        return Path(self.bpffs or f"{self.directory}/bpf")

    @property
    def state_path(self) -> Path:
        return Path(self.state or f"{self.directory}/state")

    @property
    def health_namespace(self) -> Path:
        return Path(f"{self.directory}/health")

    @property
    def agent_socket_path(self) -> Path:
        return Path(self.agent_socket or f"{self.directory}/agent.sock")

    @property
    def flows_socket_path(self) -> Path:
        return Path(self.flows_socket or f"{self.directory}/flows.sock")

    def failsafe(self) -> Policy:
        """What no host policy can close. ValueError."""
        stores = {_port_of(each) for each in self.store.endpoints} if self.store.kind == "etcd" else set()
        health = [f"TCP:{PORT}", f"TCP:{self.authentication.port}"]
        return failsafe(
            [*self.host_policy.failsafe_ingress, *health],
            [*self.host_policy.failsafe_egress, *health, *(f"TCP:{port}" for port in sorted(stores))],
        )

    def pools(self) -> list[tuple[IPv4Network | IPv6Network, int]]:
        return [(ip_network(pool.cidr), pool.node_prefix_length) for pool in self.cluster_pool]


def _port_of(endpoint: str) -> int:
    """Of an address of etcd."""
    found = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
    return found.port or 2379


def load(path: Path) -> AgentConfig:
    """Raises `axoneme.sources.config.ConfigError`."""
    config = read(path, AgentConfig, _check, "docs/agent.md")
    config.store.need(path)
    return config


def _check(config: AgentConfig) -> None:
    config.hubble.check()
    config.pools()
    config.redaction.check()
    config.proxies.check()
    config.metrics.check()
    config.failsafe()
    for text in config.load_balancing.node_port_addresses:
        ip_network(text)
    if config.load_balancing.healthz:
        listening_at(config.load_balancing.healthz, "load_balancing.healthz")
