"""Names of the cluster and of the world, as an independent library reads the answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import dnslib
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.sandbox.dns.answering import Zone, respond
from axoneme.sandbox.dns.cluster import ClusterNames
from axoneme.sandbox.dns.zonefile import BadZone, ZoneNames, world
from axoneme.sandbox.objects import Service, read
from axoneme.sandbox.plan import IPV4_WORLD, IPV6_WORLD
from axoneme.sandbox.services.slices import EndpointSlice

NXDOMAIN, FORMERR, SERVFAIL, NOTIMP, REFUSED = 3, 1, 2, 4, 5


def service(**spec: Any) -> Service:
    return read(msgspec.json.encode({"metadata": {}, "spec": spec}), Service)


def piece(name: str, kind: str, *endpoints: dict[str, Any], port: int = 8080) -> EndpointSlice:
    document = {
        "metadata": {"labels": {"kubernetes.io/service-name": name}},
        "addressType": kind,
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
    }
    return read(msgspec.json.encode(document), EndpointSlice)


def endpoint(address: str, hostname: str = "", ready: bool | None = True) -> dict[str, Any]:
    return {"addresses": [address], "hostname": hostname, "conditions": {"ready": ready}}


@pytest.fixture
def names() -> ClusterNames:
    made = ClusterNames(["10.96.0.10", "fd00:10:96::a"])
    for each in ("default", "shop"):
        made.set_namespace(each, True)
    ports = [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    web = service(clusterIP="10.96.1.1", clusterIPs=["10.96.1.1", "fd00:10:96::1:1"], ports=ports)
    made.set_service("shop", "web", web)
    made.set_service("shop", "db", service(clusterIP="None", ports=[{"name": "http", "port": 80}]))
    made.set_slice(
        "shop",
        "db-1",
        piece(
            "db", "IPv4", endpoint("10.0.0.1", "db-0"), endpoint("10.0.0.2"), endpoint("10.0.0.3", "x", False)
        ),
    )
    made.set_slice("shop", "db-2", piece("db", "IPv6", endpoint("fd00::1", "db-0")))
    made.set_service("shop", "empty", service(clusterIP="None"))
    made.set_service("shop", "far", service(type="ExternalName", externalName="example.com"))
    made.set_service("shop", "near", service(type="ExternalName", externalName="web.shop.svc.cluster.local."))
    made.set_service("shop", "new", service())
    return made


WORLD = ZoneNames(world((*IPV4_WORLD, *IPV6_WORLD)))


async def outside(wire: bytes, tcp: bool) -> bytes | None:
    return await respond(wire, tcp, WORLD, nobody)


async def nobody(_: bytes, __: bool) -> bytes | None:
    return None


async def ask(
    zone: Zone, name: str, kind: str = "A", tcp: bool = False, asking: Any = outside, **flags: Any
) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)
    if flags:
        query.add_ar(dnslib.EDNS0(**flags))
    wire = await respond(bytes(query.pack()), tcp, zone, asking)
    assert wire is not None
    answer = dnslib.DNSRecord.parse(wire)
    assert (answer.header.id, answer.header.qr) == (query.header.id, 1)
    assert str(answer.q.qname).lower() == f"{name}.".lower()
    return answer


def told(records: Iterable[dnslib.RR]) -> list[str]:
    """The records as text, each ``TYPE data``, and the name before it where the name is not the asked one."""
    return [f"{dnslib.QTYPE[each.rtype]} {each.rdata}" for each in records]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc.cluster.local", "A", ["A 10.96.1.1"]),
        ("WEB.Shop.SVC.cluster.LOCAL", "A", ["A 10.96.1.1"]),
        ("web.shop.svc.cluster.local", "AAAA", ["AAAA fd00:10:96::1:1"]),
        ("_http._tcp.web.shop.svc.cluster.local", "SRV", ["SRV 0 100 80 web.shop.svc.cluster.local."]),
        ("_dns._udp.web.shop.svc.cluster.local", "SRV", ["SRV 0 100 53 web.shop.svc.cluster.local."]),
        ("db.shop.svc.cluster.local", "A", ["A 10.0.0.1", "A 10.0.0.2"]),
        ("db.shop.svc.cluster.local", "AAAA", ["AAAA fd00::1"]),
        ("db-0.db.shop.svc.cluster.local", "A", ["A 10.0.0.1"]),
        ("db-0.db.shop.svc.cluster.local", "AAAA", ["AAAA fd00::1"]),
        ("10-0-0-2.db.shop.svc.cluster.local", "A", ["A 10.0.0.2"]),
        (
            "_http._tcp.db.shop.svc.cluster.local",
            "SRV",
            [
                "SRV 0 50 8080 db-0.db.shop.svc.cluster.local.",
                "SRV 0 50 8080 10-0-0-2.db.shop.svc.cluster.local.",
            ],
        ),
        ("1-2-3-4.shop.pod.cluster.local", "A", ["A 1.2.3.4"]),
        ("fd00--7.shop.pod.cluster.local", "AAAA", ["AAAA fd00::7"]),
        ("1.1.96.10.in-addr.arpa", "PTR", ["PTR web.shop.svc.cluster.local."]),
        ("1.0.0.10.in-addr.arpa", "PTR", ["PTR db-0.db.shop.svc.cluster.local."]),
        ("dns-version.cluster.local", "TXT", ['TXT "1.1.0"']),
        ("ns.dns.cluster.local", "A", ["A 10.96.0.10"]),
        ("cluster.local", "NS", ["NS ns.dns.cluster.local."]),
        ("far.shop.svc.cluster.local", "CNAME", ["CNAME example.com."]),
        ("far.shop.svc.cluster.local", "A", ["CNAME example.com.", "A 203.0.113.10"]),
        ("near.shop.svc.cluster.local", "A", ["CNAME web.shop.svc.cluster.local.", "A 10.96.1.1"]),
        ("www.example.org", "AAAA", ["CNAME example.org.", "AAAA 2001:db8:b::10"]),
        ("10.113.0.203.in-addr.arpa", "PTR", ["PTR example.com."]),
    ],
)
async def test_what_names_have(names: ClusterNames, name: str, kind: str, expected: list[str]) -> None:
    answer = await ask(names, name, kind)
    assert answer.header.get_rcode() == 0
    found = told(answer.rr)
    assert sorted(found) == sorted(expected)  # records of one name come in any order, so that load is spread
    aliases = [each for each in found if each.startswith("CNAME")]
    assert found[: len(aliases)] == aliases, "an alias comes before what it leads to"
    assert all(str(each.rname).lower() == f"{name}.".lower() for each in answer.rr[:1])
    assert answer.header.ra == 1


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nobody.shop.svc.cluster.local", "A", NXDOMAIN),
        ("web.nowhere.svc.cluster.local", "A", NXDOMAIN),
        ("nowhere.svc.cluster.local", "A", NXDOMAIN),
        ("shop.cluster.local", "A", NXDOMAIN),
        ("empty.shop.svc.cluster.local", "A", NXDOMAIN),
        ("new.shop.svc.cluster.local", "A", NXDOMAIN),
        ("x.db.shop.svc.cluster.local", "A", NXDOMAIN),
        ("db-0.web.shop.svc.cluster.local", "A", NXDOMAIN),
        ("_nope._tcp.web.shop.svc.cluster.local", "SRV", NXDOMAIN),
        ("1-2-3-4.nowhere.pod.cluster.local", "A", NXDOMAIN),
        ("one.shop.pod.cluster.local", "A", NXDOMAIN),
        ("a.b.shop.pod.cluster.local", "A", NXDOMAIN),
        ("web.shop.svc.cluster.local", "TXT", 0),
        ("db-0.db.shop.svc.cluster.local", "SRV", 0),
        ("10-0-0-2.db.shop.svc.cluster.local", "AAAA", 0),
        ("_tcp.web.shop.svc.cluster.local", "SRV", 0),
        ("shop.svc.cluster.local", "A", 0),
        ("svc.cluster.local", "A", 0),
        ("shop.pod.cluster.local", "A", 0),
        ("1-2-3-4.shop.pod.cluster.local", "AAAA", 0),
    ],
)
async def test_what_names_have_not(names: ClusterNames, name: str, kind: str, rcode: int) -> None:
    answer = await ask(names, name, kind)
    assert answer.header.get_rcode() == rcode
    assert answer.header.aa == 1
    assert not answer.rr
    (soa,) = answer.auth
    assert (str(soa.rname), dnslib.QTYPE[soa.rtype], soa.ttl) == ("cluster.local.", "SOA", 5)


async def test_targets_of_srv_records_come_with_their_addresses(names: ClusterNames) -> None:
    answer = await ask(names, "_http._tcp.db.shop.svc.cluster.local", "SRV")
    assert {(str(each.rname).split(".")[0], str(each.rdata)) for each in answer.ar} == {
        ("db-0", "10.0.0.1"),
        ("db-0", "fd00::1"),
        ("10-0-0-2", "10.0.0.2"),
    }


async def test_names_follow_the_objects(names: ClusterNames) -> None:
    names.set_slice("shop", "db-1", piece("db", "IPv4", endpoint("10.0.0.9", "db-0")))
    assert told((await ask(names, "db.shop.svc.cluster.local")).rr) == ["A 10.0.0.9"]
    assert (await ask(names, "1.0.0.10.in-addr.arpa", "PTR")).header.get_rcode() == NXDOMAIN
    assert told((await ask(names, "9.0.0.10.in-addr.arpa", "PTR")).rr) == [
        "PTR db-0.db.shop.svc.cluster.local."
    ]
    names.set_service("shop", "db", service(clusterIP="10.96.2.2", clusterIPs=["10.96.2.2"]))
    assert told((await ask(names, "db.shop.svc.cluster.local")).rr) == ["A 10.96.2.2"]
    assert (await ask(names, "db-0.db.shop.svc.cluster.local")).header.get_rcode() == NXDOMAIN
    names.set_service("shop", "db", service(clusterIP="None"))  # its slices have not been forgotten
    assert told((await ask(names, "db-0.db.shop.svc.cluster.local")).rr) == ["A 10.0.0.9"]
    names.set_service("shop", "db", None)
    names.set_slice("shop", "db-1", None)
    assert (await ask(names, "db.shop.svc.cluster.local")).header.get_rcode() == NXDOMAIN
    names.set_namespace("shop", False)
    assert (await ask(names, "shop.svc.cluster.local")).header.get_rcode() == NXDOMAIN


async def test_nobody_outside_answers(names: ClusterNames) -> None:
    for name in ("example.com", "far.shop.svc.cluster.local"):
        assert (await ask(names, name, asking=nobody)).header.get_rcode() == SERVFAIL


async def test_aliases_that_lead_nowhere_or_round_in_circles(names: ClusterNames) -> None:
    names.set_service("shop", "gone", service(type="ExternalName", externalName="gone.example.com"))
    gone = await ask(names, "gone.shop.svc.cluster.local")
    assert (gone.header.get_rcode(), told(gone.rr)) == (NXDOMAIN, ["CNAME gone.example.com."])
    names.set_service(
        "shop", "loop", service(type="ExternalName", externalName="loop.shop.svc.cluster.local")
    )
    assert len((await ask(names, "loop.shop.svc.cluster.local")).rr) == 8


async def test_what_does_not_fit_a_datagram_is_cut_and_comes_whole_over_tcp(names: ClusterNames) -> None:
    many = [endpoint(f"10.1.{number // 250}.{number % 250}") for number in range(90)]
    names.set_slice("shop", "db-1", piece("db", "IPv4", *many))

    async def size(tcp: bool = False, **flags: Any) -> tuple[int, int, int]:
        answer = await ask(names, "db.shop.svc.cluster.local", tcp=tcp, **flags)
        return answer.header.tc, len(answer.rr), len(answer.pack())

    cut, _, length = await size()
    assert cut and length <= 512
    cut, _, length = await size(udp_len=4096)
    assert cut and length <= 1232
    assert (await size(tcp=True))[:2] == (0, 90)


async def test_edns(names: ClusterNames) -> None:
    answer = await ask(names, "web.shop.svc.cluster.local", udp_len=4096)
    (option,) = answer.ar
    assert (dnslib.QTYPE[option.rtype], option.rclass) == ("OPT", 1232)
    bad = await ask(names, "web.shop.svc.cluster.local", version=1)
    assert bad.header.get_rcode() | bad.ar[0].ttl >> 24 << 4 == 16  # BADVERS
    assert not (await ask(names, "web.shop.svc.cluster.local")).ar


async def test_what_is_not_done(names: ClusterNames) -> None:
    assert (await ask(names, "cluster.local", "AXFR")).header.get_rcode() == REFUSED
    query = bytes(dnslib.DNSRecord.question("web.shop.svc.cluster.local").pack())
    for changed, rcode in (
        (query[:2] + struct.pack("!H", 5 << 11) + query[4:], NOTIMP),  # an update
        (query[:4] + b"\0\0" + query[6:], FORMERR),  # no question
        (query[:-3], FORMERR),
    ):
        wire = await respond(changed, False, names, nobody)
        assert wire is not None
        assert struct.unpack_from("!H", wire, 2)[0] & 15 == rcode
    assert await respond(query[:2] + b"\x80" + query[3:], False, names, nobody) is None
    assert await respond(query[:11], False, names, nobody) is None


@given(st.binary(max_size=80), st.booleans())
async def test_any_bytes_are_answered_or_not(wire: bytes, tcp: bool) -> None:
    answer = await respond(wire, tcp, ClusterNames(), nobody)
    assert answer is None or answer[:2] == wire[:2]


ZONE = """
$ORIGIN example.net.
@ 60 IN SOA ns hostmaster 7 1 2 3 4
www     A 192.0.2.1
*.apps  A 192.0.2.2
deep.down.apps A 192.0.2.3
alias   CNAME www
"""


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "expected"),
    [
        ("www.example.net", "A", 0, ["A 192.0.2.1"]),
        ("alias.example.net", "A", 0, ["CNAME www.example.net.", "A 192.0.2.1"]),
        ("any.apps.example.net", "A", 0, ["A 192.0.2.2"]),
        ("any.thing.apps.example.net", "A", 0, ["A 192.0.2.2"]),
        ("any.apps.example.net", "AAAA", 0, []),
        ("down.apps.example.net", "A", 0, []),
        ("other.down.apps.example.net", "A", NXDOMAIN, []),
        ("apps.example.net", "A", 0, []),
        ("nope.example.net", "A", NXDOMAIN, []),
        ("com", "A", NXDOMAIN, []),
    ],
)
async def test_a_zone_file(name: str, kind: str, rcode: int, expected: list[str]) -> None:
    answer = await ask(ZoneNames(ZONE), name, kind)
    assert (answer.header.get_rcode(), told(answer.rr)) == (rcode, expected)
    assert bool(answer.auth) == (not expected)


def test_a_file_that_is_no_zone_says_where() -> None:
    with pytest.raises(BadZone, match=r"my\.zone:\d"):
        ZoneNames("www.example.com. A 192.0.2.1\nwww.example.com. A somewhere\n", "my.zone")
