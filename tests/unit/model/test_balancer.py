"""The standalone load balancer's format: what is read, and how mistakes are told."""

from __future__ import annotations

import pytest

from axoneme.model.balancer import Desired, check, version
from axoneme.model.paths import ManifestError
from axoneme.model.shapes import convert, decode
from axoneme.model.yamltext import single

GOOD = """
pools:
- {name: public, ranges: [192.0.2.0/29, "2001:db8::/125"]}
services:
- name: web
  frontends:
  - {address: 203.0.113.10, ports: [80, 443]}
  - {pool: public, family: ipv6, port: 80}
  backends:
  - {address: 10.0.0.1, port: 8080, weight: 3, name: a}
  - {address: 10.0.0.2, drain: true}
  health: {kind: http, path: /healthz, expect: [200, 300-399]}
  source_ranges: [198.51.100.0/24, 2001:db8:1::7]
- name: dns
  frontends: [{address: 203.0.113.10, port: 53, protocol: UDP}]
  backends: [{address: 10.0.0.1, port: 53}]
  health: {port: 53}
"""


def read(text: str) -> Desired:
    desired = convert(single(text.encode(), "lb.yaml"), Desired)
    check(desired)
    return desired


def test_a_file_is_read() -> None:
    desired = read(GOOD)
    web = desired.service("web")
    assert web is not None
    assert [frontend.all_ports() for frontend in web.frontends] == [(80, 443), (80,)]
    assert [backend.called for backend in web.backends] == ["a", "10.0.0.2"]
    assert web.health is not None
    assert web.health.expect == (200, "300-399")


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ("port: 8080", "prot: 8080", "services[0].backends[0].prot: found 8080; there is no such field"),
        ("port: 8080", "port: http", 'services[0].backends[0].port: found "http"; Expected int'),
        ("weight: 3", "weight: 300", "services[0].backends[0].weight: found 300; Expected int <= 256"),
        ("- name: web", "- name: Web", 'services[0].name: found "Web"'),
        ("- name: web\n ", "-", "services[0].name: found nothing; this field is required"),
        ("address: 10.0.0.2,", "address: 10.0.0.1, port: 8080,", "has this backend already"),
        ("name: a", "name: 10.0.0.2", "another backend of this service is called so"),
        ("pool: public", "pool: privat", "there is no such pool; there are: public"),
        ('"2001:db8::/125"', "192.0.2.8/29", "this pool has no addresses of ipv6"),
        ('"2001:db8::/125"', "192.0.2.1", "pools[0].ranges[1]: found"),
        ("port: 53, protocol: UDP", "port: 443", "service web has 443/TCP of this address"),
        ("{port: 53}", "{}", "services[1].health.port: found nothing; checks are made over TCP"),
        ("300-399", "399-300", "services[0].health.expect[1]"),
        ("[80, 443]", "[80, 80]", "each port may stand once"),
        ("address: 10.0.0.2, drain: true", "address: 203.0.113.10", "that is a loop"),
        ("address: 203.0.113.10, ports: [80, 443]", "ports: [80]", "either an address or a pool"),
        ("kind: http, ", "", "only a check of kind http"),
        ("198.51.100.0/24", "198.51.100.0/33", "services[0].source_ranges[0]"),
        ("10.0.0.2", "127.0.0.1", "an address of one machine that others can reach"),
        ("- name: dns", "- name: web", "services[1].name"),
        (
            "- name: web\n",
            "- name: web\n  mode: dsr\n",
            "services[0].backends[0].port: found 8080; with mode dsr",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(good: str, bad: str, told: str) -> None:
    assert good in GOOD
    with pytest.raises(ManifestError) as refused:
        read(GOOD.replace(good, bad))
    assert told in str(refused.value)


def test_a_misspelt_field_is_told_the_right_one() -> None:
    with pytest.raises(ManifestError, match=r"is it port\?"):
        read(GOOD.replace("port: 8080", "prot: 8080"))


def test_json_that_is_none_is_refused() -> None:
    with pytest.raises(ManifestError, match="JSON belongs here"):
        decode(b"{", Desired)


def test_the_version_says_what_is_meant_not_how_it_is_written() -> None:
    other = GOOD.replace("port: 80}", "port: 80, protocol: TCP}").replace(
        "ports: [80, 443]", "ports: [80,443]"
    )
    assert version(read(GOOD)) == version(read(other))
    assert version(read(GOOD)) != version(read(GOOD.replace("weight: 3", "weight: 4")))
