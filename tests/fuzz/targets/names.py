"""Name servers: any pod may send them anything, and any file may be given as a zone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import dns.message
import msgspec

from axoneme.sandbox.dns.answering import respond
from axoneme.sandbox.dns.cluster import ClusterNames
from axoneme.sandbox.dns.zonefile import BadZone, ZoneNames, world
from axoneme.sandbox.objects import Service, read
from axoneme.sandbox.plan import IPV4_WORLD, IPV6_WORLD
from fuzz.target import Target, says_why

_WORLD = ZoneNames(world((*IPV4_WORLD, *IPV6_WORLD)))


def _cluster() -> ClusterNames:
    names = ClusterNames(["10.96.0.10"])
    names.set_namespace("n", True)
    spec = {"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ports": [{"name": "http", "port": 80}]}
    names.set_service("n", "a", read(msgspec.json.encode({"metadata": {}, "spec": spec}), Service))
    far = {"type": "ExternalName", "externalName": "example.com"}
    names.set_service("n", "far", read(msgspec.json.encode({"metadata": {}, "spec": far}), Service))
    return names


_CLUSTER = _cluster()


async def _outside(wire: bytes, tcp: bool) -> bytes | None:
    return await respond(wire, tcp, _WORLD, _nobody)


async def _nobody(_: bytes, __: bool) -> bytes | None:
    return None


def check_query(data: bytes) -> None:
    """It is answered under its number, in no larger a datagram than was asked for, or not at all."""
    tcp, wire = bool(data) and bool(data[0] & 1), data[1:]
    said = asyncio.run(respond(wire, tcp, _CLUSTER, _outside))
    if said is not None:
        assert said[:2] == wire[:2]
        assert said[2] & 0x80
        assert tcp or len(said) <= 1232
        dns.message.from_wire(said)


def _queries() -> Iterable[bytes]:
    for name in (
        "a.n.svc.cluster.local",
        "far.n.svc.cluster.local",
        "1-2-3-4.n.pod.cluster.local",
        "example.com",
    ):
        yield b"\0" + dns.message.make_query(name, "A", use_edns=0).to_wire()
    yield b"\1" + dns.message.make_query("_http._tcp.a.n.svc.cluster.local", "SRV").to_wire()
    yield b"\0" + dns.message.make_query("1.1.96.10.in-addr.arpa", "PTR").to_wire()
    yield b"\0" + dns.message.make_query("cluster.local", "AXFR").to_wire()


def check_zone(data: bytes) -> None:
    try:
        names = ZoneNames(data.decode("utf-8", "replace"))
    except BadZone as failure:
        says_why(failure)
        return
    name = dns.name.from_text("www.example.com")
    names.records(name)
    names.authority(name)


def _zones() -> Iterable[bytes]:
    yield world((*IPV4_WORLD, *IPV6_WORLD)).encode()
    yield b"$ORIGIN a.test.\n@ 60 IN SOA ns h 7 1 2 3 4\n*.b A 192.0.2.1\nc CNAME *.b\n$GENERATE 1-9 d$ A 192.0.2.$\n"


TARGETS = [Target("names-query", check_query, _queries), Target("names-zone", check_zone, _zones)]
