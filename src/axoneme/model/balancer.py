"""What a standalone load balancer shall do: services with frontends and backends, and pools of addresses.

The structs are the format of the file, of the shared state and of the API at once. `check` finds what their
types cannot say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from axoneme.model import checks
from axoneme.model.paths import ManifestError, Place

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        max_length=63,
        description="At most 63 lower-case letters, digits and '-'.",
        examples=["web"],
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(max_length=255)]
ProtocolName = Literal["TCP", "UDP", "SCTP"]
Family = Literal["ipv4", "ipv6"]
Weight = Annotated[
    int, Meta(ge=0, le=256, description="Share of the new connections, in proportion; 0: none, as `drain`.")
]
#: A status code, or a range of them such as ``200-399``.
Status = (
    Annotated[int, Meta(ge=100, le=599)] | Annotated[str, Meta(pattern=r"^[1-5][0-9][0-9]-[1-5][0-9][0-9]$")]
)
Path = Annotated[str, Meta(pattern=r"^/[!-~]*$", max_length=2048)]
Host = Annotated[str, Meta(pattern=r"^[!-~]*$", max_length=255)]

_PORTS: Final = 64
_SMALLEST_POOL_BITS: Final = 16  # at most 65,536 addresses of a range are used


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Unknown fields are refused; what is as by default is not written."""


class Frontend(_Struct, frozen=True):
    """What clients call: an address, or one that a pool gives (``pool``, ``family``), and ports."""

    address: Text = ""
    pool: Text = ""
    family: Family = "ipv4"
    port: Port | None = None
    ports: Annotated[tuple[Port, ...], Meta(max_length=_PORTS)] = ()
    protocol: ProtocolName = "TCP"

    def all_ports(self) -> tuple[int, ...]:
        return self.ports if self.port is None else (self.port,)


class Backend(_Struct, frozen=True):
    """Where connections go. Without ``port``: to the port that was called. ``drain``: no new ones."""

    address: Text
    port: Port | None = None
    name: Annotated[str, Meta(max_length=63, pattern=r"^[-A-Za-z0-9_.:\[\]]*$")] = ""
    weight: Weight = 1
    drain: bool = False

    @property
    def called(self) -> str:
        """Its name, or where it is: ``10.0.0.1:80``."""
        if self.name or self.port is None:
            return self.name or self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class HealthCheck(_Struct, frozen=True):
    """How a backend is tried. ``interval`` and ``timeout`` in seconds; ``rise``, ``fall``: so many results
    in a row turn it up or down."""

    kind: Literal["tcp", "http"] = "tcp"
    port: Port | None = None
    path: Path = "/"
    host: Host = ""
    expect: tuple[Status, ...] = ("200-399",)
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    timeout: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    rise: Annotated[int, Meta(ge=1, le=100)] = 2
    fall: Annotated[int, Meta(ge=1, le=100)] = 3


class Service(_Struct, frozen=True):
    """What clients call, and who answers.

    ``mode``: backends see the balancer's address (``snat``), or get the client's own packets, in others (IP
    in IP), and answer it by themselves (``dsr``).
    ``affinity``: for so many seconds a client keeps its backend; 0 for none.
    ``source_ranges``: only these are served.
    ``when_down``: what becomes of the connections to a backend that fails its checks.
    ``when_all_down``: refuse clients, or serve them from all backends as if they were up.
    """

    name: Name
    frontends: Annotated[tuple[Frontend, ...], Meta(min_length=1)]
    backends: tuple[Backend, ...] = ()
    health: HealthCheck | None = None
    algorithm: Literal["maglev", "random"] = "maglev"
    mode: Literal["snat", "dsr"] = "snat"
    affinity: Annotated[int, Meta(ge=0, le=86400)] = 0
    source_ranges: tuple[Text, ...] | None = None
    when_down: Literal["move", "keep"] = "move"
    when_all_down: Literal["refuse", "all"] = "refuse"


class Pool(_Struct, frozen=True):
    """Addresses for frontends that name none."""

    name: Name
    ranges: Annotated[tuple[Text, ...], Meta(min_length=1)]


class Desired(_Struct, frozen=True):
    """All of it."""

    pools: tuple[Pool, ...] = ()
    services: tuple[Service, ...] = ()

    def service(self, name: str) -> Service | None:
        return next((each for each in self.services if each.name == name), None)


def version(of: Desired | Service | Pool | Backend) -> str:
    """A short digest of what is meant: equal on machines that mean the same."""
    from hashlib import sha256

    return sha256(msgspec.json.encode(of, order="sorted")).hexdigest()[:16]


def pool_ranges(pool: Pool) -> list[Network]:
    """Of a pool that has passed `check`."""
    return [ipaddress.ip_network(text, strict=False) for text in pool.ranges]


def check(desired: Desired) -> None:
    """Raises `ManifestError` for the first thing that cannot be."""
    pools = _checked_pools(desired)
    names: set[str] = set()
    taken: dict[tuple[Address, int, str], str] = {}
    for index, service in enumerate(desired.services):
        path = f"services[{index}]"
        _unique(service.name, names, f"{path}.name", "another service has this name")
        fronts = list(_frontends(service, path, pools))
        for place, address, port, protocol in fronts:
            if address is None:
                continue
            if other := taken.get((address, port, protocol)):
                place.refuse(
                    f"service {other} has {port}/{protocol} of this address; give one of the two another "
                    "address or port"
                )
            taken[address, port, protocol] = service.name
        _check_backends(service, path, {(address, port) for _, address, port, _ in fronts})
        _check_mode(service, path, {port for _, _, port, _ in fronts})
        _check_health(service, path)
        for number, text in enumerate(service.source_ranges or ()):
            checks.network(Place(text, f"{path}.source_ranges[{number}]"), bare=True)


def _checked_pools(desired: Desired) -> dict[str, set[str]]:
    """By name: the families of which a pool has addresses."""
    pools: dict[str, set[str]] = {}
    ranges: list[tuple[Network, str]] = []
    for index, pool in enumerate(desired.pools):
        if pool.name in pools:
            Place(pool.name, f"pools[{index}].name").refuse("another pool has this name")
        pools[pool.name] = set()
        for number, text in enumerate(pool.ranges):
            place = Place(text, f"pools[{index}].ranges[{number}]")
            network = checks.network(place, bare=True)
            for other, name in ranges:
                if network.overlaps(other):
                    place.refuse(f"it overlaps {other} of pool {name}; an address has one pool")
            ranges.append((network, pool.name))
            pools[pool.name].add(f"ipv{network.version}")
    return pools


def _frontends(
    service: Service, path: str, pools: dict[str, set[str]]
) -> Iterator[tuple[Place, Address | None, int, str]]:
    """Every port of every frontend, with its address where the file says it."""
    for index, frontend in enumerate(service.frontends):
        here = f"{path}.frontends[{index}]"
        address = None
        if bool(frontend.address) == bool(frontend.pool):
            Place(frontend.address, f"{here}.address").refuse("either an address or a pool belongs here")
        if frontend.address:
            address = _address(frontend.address, f"{here}.address")
        elif frontend.pool not in pools:
            known = ", ".join(pools) or "none"
            Place(frontend.pool, f"{here}.pool").refuse(f"there is no such pool; there are: {known}")
        elif frontend.family not in pools[frontend.pool]:
            Place(frontend.pool, f"{here}.pool").refuse(f"this pool has no addresses of {frontend.family}")
        if (frontend.port is None) == (not frontend.ports):
            Place(frontend.port, f"{here}.port").refuse("either port or ports belongs here")
        if len(set(frontend.all_ports())) < len(frontend.all_ports()):
            Place(list(frontend.ports), f"{here}.ports").refuse("each port may stand once")
        place = Place(frontend.address or frontend.pool, here)
        for port in frontend.all_ports():
            yield place, address, port, frontend.protocol


def _check_backends(service: Service, path: str, fronts: set[tuple[Address | None, int]]) -> None:
    names: set[str] = set()
    places: set[tuple[Address, int | None]] = set()
    ports = {port for _, port in fronts}
    for index, backend in enumerate(service.backends):
        here = f"{path}.backends[{index}]"
        address = _address(backend.address, f"{here}.address")
        _unique(backend.called, names, f"{here}.name", "another backend of this service is called so")
        if (address, backend.port) in places or ((address, None) in places and backend.port in ports):
            Place(backend.address, f"{here}.address").refuse("this service has this backend already")
        places.add((address, backend.port))
        for port in ports if backend.port is None else {backend.port}:
            if (address, port) in fronts:
                Place(backend.address, here).refuse("a frontend cannot be its own backend: that is a loop")


def _check_mode(service: Service, path: str, ports: set[int]) -> None:
    for index, backend in enumerate(service.backends if service.mode == "dsr" else ()):
        if backend.port is not None and {backend.port} != ports:
            Place(backend.port, f"{path}.backends[{index}].port").refuse(
                "with mode dsr a backend gets the client's own packets, which are for the port that was "
                "called: leave it out"
            )


def _check_health(service: Service, path: str) -> None:
    health = service.health
    if health is None:
        return
    if health.port is None and all(frontend.protocol != "TCP" for frontend in service.frontends):
        Place(None, f"{path}.health.port").refuse(
            "checks are made over TCP, and this service has none: say which port of the backends to try",
            "nothing",
        )
    if health.kind == "tcp" and (health.path, health.host) != ("/", ""):
        Place(health.path, f"{path}.health.kind").refuse("only a check of kind http has a path and a host")
    for index, status in enumerate(health.expect):
        first, last = status_range(status)
        if first > last:
            Place(status, f"{path}.health.expect[{index}]").refuse("the lower status belongs first")


def status_range(status: int | str) -> tuple[int, int]:
    """First and last."""
    if isinstance(status, int):
        return status, status
    first, _, last = status.partition("-")
    return int(first), int(last)


def _address(text: str, path: str) -> Address:
    place = Place(text, path)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        place.refuse("an IPv4 or IPv6 address belongs here")
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        place.refuse("an address without a zone belongs here, an IPv4 address written as one")
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        place.refuse("an address of one machine that others can reach belongs here")
    return address


U = TypeVar("U")


def _unique(value: U, known: set[U], path: str, problem: str) -> None:
    if value in known:
        raise ManifestError(path, f'"{value}"', problem)
    known.add(value)
