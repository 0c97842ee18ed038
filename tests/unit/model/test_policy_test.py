"""PolicyTest files: sentences and fields say the same; what is wrong is named with its place."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import Any

import pytest

from axoneme.model.paths import ManifestError
from axoneme.model.policy import Protocol
from axoneme.model.policytest import Expectation, Node, Outside, Pods, PolicyTest, parse_policy_test


def parsed(*expect: object, **more: object) -> PolicyTest:
    document: dict[str, Any] = {
        "apiVersion": "axoneme.io/v1alpha1",
        "kind": "PolicyTest",
        "expect": list(expect),
        **more,
    }
    return parse_policy_test(document, 8)


def one(expect: object) -> Expectation:
    return parsed(expect).expect[0]


WING, STATION = Pods("default", "xwing"), Pods("default", "deathstar")


@pytest.mark.parametrize(
    "sentence",
    [
        "from default/xwing to default/deathstar port 80 -> denied by rule1, other/rule2",
        "from default/xwing to default/deathstar port 80 → denied by rule1 and other/rule2",
        "from default/xwing to default/deathstar on port 80/tcp: denied by rule1, and other/rule2",
        "from default/xwing to default/deathstar port 80→denied by rule1 other/rule2",
        {
            "from": "default/xwing",
            "to": "default/deathstar",
            "port": 80,
            "verdict": "denied",
            "by": ["rule1", "other/rule2"],
        },
        {
            "from": "default/xwing",
            "to": "default/deathstar",
            "port": "80/TCP",
            "protocol": "TCP",
            "verdict": "denied",
            "by": ["rule1", "other/rule2"],
        },
    ],
)
def test_all_ways_to_say_one_thing(sentence: object) -> None:
    found = one(sentence)
    assert found == Expectation(
        WING, STATION, Protocol.TCP, 80, False, (), ("rule1", "other/rule2"), "expect[0]"
    )
    assert str(found) == "default/xwing -> default/deathstar 80/TCP: denied by rule1, other/rule2"


@pytest.mark.parametrize(
    ("sentence", "source", "target", "protocol", "port", "families"),
    [
        ("from world to a/b port dns/UDP allowed", Outside(), Pods("a", "b"), Protocol.UDP, "dns", ()),
        ("from a/b to 2001:DB8::7 port 53/udp -> allowed", Pods("a", "b"), Outside(ip_address("2001:db8::7")),
         Protocol.UDP, 53, ()),
        ("from a/b to 2001:db8:: port 1 -> allowed", Pods("a", "b"), Outside(ip_address("2001:db8::")),
         Protocol.TCP, 1, ()),
        ("from host to a/b icmp -> allowed", Node(), Pods("a", "b"), Protocol.ICMP, 0, ()),
        ("from a/b to node2 port 22 over ipv6 -> allowed", Pods("a", "b"), Node("node2"), Protocol.TCP, 22,
         (6,)),
        ({"from": "a/b", "to": "host", "protocol": "icmp", "family": "dual", "verdict": "allowed"},
         Pods("a", "b"), Node(), Protocol.ICMP, 0, (4, 6)),
        ({"from": "a/b", "to": "c/d", "port": "http", "verdict": "allowed"}, Pods("a", "b"), Pods("c", "d"),
         Protocol.TCP, "http", ()),
    ],
)  # fmt: skip
def test_ends_ports_and_families(
    sentence: object, source: object, target: object, protocol: Protocol, port: object, families: object
) -> None:
    found = one(sentence)
    assert (found.source, found.target, found.protocol, found.port, found.families) == (
        source,
        target,
        protocol,
        port,
        families,
    )
    assert found.allowed and not found.by


def test_what_a_test_says_of_its_sandbox() -> None:
    allowed = "from a/b to c/d port 80 -> allowed"
    plain = parsed(allowed)
    assert (plain.name, plain.manifests, plain.nodes, plain.routing, plain.families) == (
        "",
        (),
        2,
        "overlay",
        (4, 6),
    )
    full = parsed(
        allowed, metadata={"name": "x"}, manifests=["app/"], nodes=3, routing="native", family="ipv6"
    )
    assert (full.name, full.manifests, full.nodes, full.routing, full.families) == (
        "x",
        ("app/",),
        3,
        "native",
        (6,),
    )


@pytest.mark.parametrize(
    ("expect", "more", "path", "said"),
    [
        ("from a/b to c/d port 80", {}, "expect[0]", "allowed or denied"),
        ("from a/b to c/d port 80 -> permitted", {}, "expect[0]", "allowed, denied"),
        ("from a/b to c/d -> allowed", {}, "expect[0]", "port or icmp belongs there"),
        ("to c/d from a/b port 80 -> allowed", {}, "expect[0]", "from belongs there"),
        ("from a/b to c/d port 80 -> denied by", {}, "expect[0]", "the name of a policy"),
        ("from a/b to c/d port 80 -> denied or so", {}, "expect[0]", "found 'or'"),
        ("from shop to c/d port 80 -> denied", {}, "expect[0]", "is it default/shop?"),
        ("from world to host port 80 -> denied", {}, "expect[0]", "one end at least"),
        ("from a/b to c/d port 70000 -> denied", {}, "expect[0]", "1 to 65535"),
        ("from a/b to c/d port 80/ICMP -> denied", {}, "expect[0]", "write icmp"),
        ("from a/b to c/d port 80/FTP -> denied", {}, "expect[0]", "TCP, UDP, SCTP, ICMP"),
        ("from a/b to world port http -> denied", {}, "expect[0]", "give a number"),
        ("from a/b to 2001:db8::1 port 80 -> denied", {"family": "ipv4"}, "expect[0]", "IPv6"),
        ("from a/b to c/d port 80 over ipv6 -> denied", {"family": "ipv4"}, "expect[0]", "see its family"),
        ({"from": "a/b", "to": "c/d", "verdict": "allowed"}, {}, "expect[0].port", "protocol: ICMP"),
        ({"from": "a/b", "to": "c/d", "port": 80}, {}, "expect[0].verdict", "required"),
        ({"from": "a/b", "to": "c/d", "prot": 80}, {}, "expect[0].prot", "no such field"),
        ({"from": "a/b", "to": "c/d", "port": "1/UDP", "protocol": "TCP", "verdict": "allowed"}, {},
         "expect[0].port", "said twice"),
        ({"from": "a/b", "to": "c/d", "port": 1, "protocol": "ICMP", "verdict": "allowed"}, {},
         "expect[0].port", "no ports"),
        ("from a/b to c/d port 80 -> denied", {"nodes": 9}, "nodes", "1 to 8"),
        ("from a/b to c/d port 80 -> denied", {"manifest": []}, "manifest", "is it manifests?"),
        ("from a/b to c/d port 80 -> denied", {"expect": []}, "expect", "expects something"),
        ("from a/b to c/d port 80 -> denied", {"apiVersion": "axoneme.io/v1"}, "apiVersion", "v1alpha1"),
    ],
)  # fmt: skip
def test_what_is_refused(expect: object, more: dict[str, object], path: str, said: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        parsed(expect, **more)
    assert refusal.value.path == path
    assert said in str(refusal.value)


FULL: dict[str, Any] = {
    "apiVersion": "axoneme.io/v1alpha1",
    "kind": "PolicyTest",
    "metadata": {"name": "x"},
    "manifests": ["app.yaml"],
    "nodes": 2,
    "routing": "native",
    "family": "dual",
    "expect": [
        {
            "from": "a/b",
            "to": "c/d",
            "port": 80,
            "protocol": "TCP",
            "family": "ipv4",
            "verdict": "denied",
            "by": ["x"],
        },
        "from a/b to world port 53/UDP over ipv6 -> denied by x and y",
    ],
}
GARBAGE = (None, {}, [], [None], [[]], "", "a", "a/b", "::", "from", "from to", 7, -1, 2.5, True, {"a": None})


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_garbage_is_refused_in_so_many_words(garbage: object) -> None:
    def tried(document: dict[str, Any]) -> None:
        with contextlib.suppress(ManifestError):
            parse_policy_test(document, 8)

    for field in FULL:
        tried({**FULL, field: garbage})
    for index, expectation in enumerate(FULL["expect"]):
        others = [each for number, each in enumerate(FULL["expect"]) if number != index]
        tried({**FULL, "expect": [garbage, *others]})
        for field in expectation if isinstance(expectation, dict) else ():
            tried({**FULL, "expect": [{**expectation, field: garbage}]})


def test_a_sentence_with_a_word_missing_or_too_many_is_refused_or_means_the_same() -> None:
    sentence = "from a/b to c/d port 53/UDP over ipv6 -> denied by x"
    whole, words = one(sentence), sentence.split()
    for index in range(len(words)):
        with contextlib.suppress(ManifestError):
            found = one(" ".join(words[:index] + words[index + 1 :]))
            assert words[index] == "->" and found == whole, words[index]
        with contextlib.suppress(ManifestError):
            found = one(" ".join([*words[: index + 1], "surplus", *words[index + 1 :]]))
            assert set(found.by) == {"x", "surplus"}
