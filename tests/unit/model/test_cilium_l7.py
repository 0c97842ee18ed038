"""What hangs on ports in Cilium's policies: HTTP, Kafka, DNS, TLS."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model import regexes
from axoneme.model.ciliumpolicy import parse_cilium_policy
from axoneme.model.kafkaapis import ROLES
from axoneme.model.l7 import (
    L7,
    HeaderMatch,
    HTTPRule,
    KafkaRule,
    L7Kind,
    ListenerRef,
    Mismatch,
    NameMatch,
    SecretRef,
    TLSContext,
)
from axoneme.model.paths import ManifestError
from axoneme.model.policy import AnyPeer, NamedPort, Policy, PortRange, Protocol, Rule

from .given import Object, cilium, clusterwide

TCP_80 = {"port": "80", "protocol": "TCP"}
TCP_443 = {"port": "443", "protocol": "TCP"}
DNS_53 = {"port": "53", "protocol": "ANY"}
TLS = {"secret": {"name": "pair"}}


def parsed(object: Object) -> Policy:
    (policy,) = parse_cilium_policy(object, cluster_name=None)
    return policy


def entry(port: dict[str, str] = TCP_80, **above: object) -> dict[str, object]:
    return {"ports": [port], **above}


def only(direction: str, *entries: object) -> Rule:
    (rule,) = parsed(cilium(**{direction: [{"toPorts": list(entries)}]})).rules
    return rule


def http(*rules: object) -> tuple[HTTPRule, ...]:
    rule = only("ingress", entry(rules={"http": list(rules)}))
    assert rule.l7 and rule.l7.kind is L7Kind.HTTP
    return rule.l7.http


def test_entries_are_rules_of_their_own_where_something_stands_above_them() -> None:
    entries = [entry({"port": "22"}), entry(rules={"http": [{}]}), entry({"port": "25"}), entry(TCP_443)]
    policy = parsed(cilium(ingress=[{"toPorts": entries}, {"toPorts": entries[1:2]}]))
    plain, web, again = policy.rules
    assert plain.path == "spec.ingress[0]" and plain.l7 is None
    assert [(p.protocol.name, p.first) for p in plain.ports if isinstance(p, PortRange)] == [
        *(("TCP", 22), ("UDP", 22), ("SCTP", 22), ("TCP", 25), ("UDP", 25), ("SCTP", 25)),
        ("TCP", 443),
    ]
    assert web.path == "spec.ingress[0].toPorts[1]" and again.path == "spec.ingress[1].toPorts[0]"
    assert web.ports == (PortRange(Protocol.TCP, 80, 80),) and web.peers == (AnyPeer(),)
    assert web.l7 == L7(L7Kind.HTTP, http=(HTTPRule(),))


@pytest.mark.parametrize("rules", [{}, {"http": []}, {"kafka": []}, {"dns": []}, {"l7proto": ""}])
def test_an_empty_list_asks_for_nothing(rules: object) -> None:
    assert only("egress", entry(rules=rules)).l7 is None


def test_rules_for_http() -> None:
    assert http({"method": "GET", "path": "/public/.*", "host": "a[.]b"}, {}) == (
        HTTPRule("GET", "/public/.*", "a[.]b"),
        HTTPRule(),
    )
    assert http({"headers": ["X-Token: [0-9]+ a", "x-there", "X-Also:  b"]})[0].headers == (
        HeaderMatch("x-also", " b"),
        HeaderMatch("x-there"),
        HeaderMatch("x-token", "[0-9]+ a"),
    )
    matches = [
        {"name": "X-Token", "valuePattern": "[0-9]+"},
        {"name": "A", "secret": {"name": "s"}, "value": "fallback", "mismatch": "REPLACE"},
        {"name": "B", "secret": {"name": "s", "namespace": "other"}, "mismatch": "LOG"},
        {"name": "C", "value": "x", "mismatch": ""},
    ]
    assert http({"headerMatches": matches})[0].headers == (
        HeaderMatch("a", "fallback", secret=SecretRef("shop", "s"), mismatch=Mismatch.REPLACE),
        HeaderMatch("b", secret=SecretRef("other", "s"), mismatch=Mismatch.LOG),
        HeaderMatch("c", "x"),
        HeaderMatch("x-token", pattern="[0-9]+"),
    )


def test_rules_for_kafka() -> None:
    rules = [
        {"role": "Produce", "topic": "a.b-c_1"},
        {"role": "consume"},
        {"apiKey": "ApiVersions", "apiVersion": "3", "clientID": "me"},
        {},
    ]
    rule = only("ingress", entry({"port": "9092", "protocol": "TCP"}, rules={"kafka": rules}))
    assert rule.l7 == L7(
        L7Kind.KAFKA,
        kafka=(
            KafkaRule(ROLES["produce"], topic="a.b-c_1"),
            KafkaRule(ROLES["consume"]),
            KafkaRule((18,), 3, "me"),
            KafkaRule(),
        ),
    )


def test_rules_for_dns() -> None:
    rules = [{"matchName": "WWW.Example.org."}, {"matchPattern": "*.Example.org"}, {"matchPattern": "*"}]
    rule = only("egress", entry(DNS_53, rules={"dns": rules}))
    names = (NameMatch("www.example.org"), NameMatch("*.example.org", True), NameMatch("*", True))
    assert rule.l7 == L7(L7Kind.DNS, dns=names)
    assert rule.ports == (PortRange(Protocol.TCP, 53, 53), PortRange(Protocol.UDP, 53, 53))
    assert only("egress", entry({"port": "dns"}, rules={"dns": rules})).ports == (
        NamedPort(Protocol.TCP, "dns"),
        NamedPort(Protocol.UDP, "dns"),
    )


def test_tls() -> None:
    names = ["B.example.", "*.a.example", "**.c"]
    rule = only("egress", entry({"port": "443"}, serverNames=names))
    assert rule.l7 == L7(L7Kind.TLS, server_names=("**.c", "*.a.example", "b.example"))
    assert rule.ports == (PortRange(Protocol.TCP, 443, 443),)
    inside = entry(
        TCP_443,
        serverNames=["a"],
        terminatingTLS={"secret": {"name": "pair", "namespace": "kube-system"}, "certificate": "c"},
        originatingTLS=TLS,
        rules={"http": [{}]},
    )
    assert only("egress", inside).l7 == L7(
        L7Kind.HTTP,
        http=(HTTPRule(),),
        server_names=("a",),
        terminating=TLSContext(SecretRef("kube-system", "pair"), certificate="c"),
        originating=TLSContext(SecretRef("shop", "pair")),
    )


WEB = {"http": [{}]}
HANDED = {"envoyConfig": {"name": "c"}, "name": "l"}

IN_ENTRY: list[tuple[str, dict[str, Any], str, str]] = [
    ("ingress", entry({"port": "80"}, rules=WEB), ".ports[0].protocol", "with HTTP it must be TCP"),
    ("ingress", entry({"port": "80", "protocol": "UDP"}, rules=WEB), ".ports[0].protocol", "must be TCP"),
    ("ingress", entry({"port": "0", "protocol": "TCP"}, rules=WEB), ".ports[0].port", "numbers or names"),
    ("ingress", entry({"protocol": "TCP"}, rules=WEB), ".ports[0].port", "numbers or names"),
    ("ingress", {"rules": WEB}, ".ports", "needs some"),
    ("ingress", entry(rules={"http": [None]}), ".rules.http[0]", "cannot be empty"),
    ("ingress", entry(rules={"http": [{}], "kafka": []}), ".rules.kafka", "one kind of L7 rules"),
    ("ingress", entry(DNS_53, rules={"dns": [{"matchName": "a"}]}), ".rules.dns", "for egress"),
    ("egress", {"rules": {"dns": [{"matchName": "a"}]}}, ".ports", "needs some"),
    (
        "egress",
        entry({"port": "53", "endPort": 54}, rules={"dns": [{"matchName": "a"}]}),  # type: ignore[dict-item]
        ".ports[0].endPort",
        "single ports",
    ),
    (
        "egress",
        entry({"port": "53", "protocol": "SCTP"}, rules={"dns": [{"matchName": "a"}]}),
        ".ports[0].protocol",
        "with DNS it must be TCP or UDP",
    ),
    ("egress", entry(serverNames=[]), ".serverNames", "at least one name"),
    ("egress", entry(serverNames=["a.*"]), ".serverNames[0]", "nowhere else does * stand"),
    ("egress", entry(serverNames=["a"], rules=WEB), ".serverNames", "need terminatingTLS"),
    ("egress", entry(terminatingTLS=TLS), ".terminatingTLS", "opened for rules.http"),
    ("egress", entry(originatingTLS=TLS, serverNames=["a"]), ".originatingTLS", "opened for rules.http"),
    ("egress", entry(terminatingTLS={}, rules=WEB), ".terminatingTLS.secret", "Secret with the certificates"),
    ("egress", entry(listener={"name": "a"}), ".listener.envoyConfig", "required"),
    ("egress", entry(listener=HANDED, rules=WEB), ".rules", "nothing else belongs beside"),
    ("egress", entry(listener={**HANDED, "priority": 101}), ".listener.priority", "from 1 to 100"),
    ("ingress", entry(listener={"name": "a"}), ".listener", "is for egress"),
    ("egress", entry(rules={"l7": []}), ".rules.l7", "not supported yet"),
    ("egress", entry(rules={"l7proto": "r2d2"}), ".rules.l7proto", "not supported yet"),
    ("egress", entry(rules={"htp": []}), ".rules.htp", "is it http?"),
]


@pytest.mark.parametrize(("direction", "given", "path", "remedy"), IN_ENTRY)
def test_entries_that_are_refused(direction: str, given: dict[str, Any], path: str, remedy: str) -> None:
    error = refusal(cilium(**{direction: [{"toPorts": [given]}]}))
    assert error.path == f"spec.{direction}[0].toPorts[0]{path}" and remedy in error.right


RULES: list[tuple[str, object, str, str]] = [
    ("http", {"path": "("}, ".path", "(RE2) belongs here: missing ): ("),
    ("http", {"method": "(?=a)"}, ".method", "(RE2) belongs here: invalid perl operator: (?="),
    ("http", {"host": r"(a)\1"}, ".host", "invalid escape sequence"),
    ("http", {"path": "\ud800"}, ".path", "it is no text"),
    ("http", {"path": "a" * 4097}, ".path", "at most 4096"),
    ("http", {"path": "((a{100}){100}){100}"}, ".path", "RE2"),
    ("http", {"path": None}, ".path", "not clear whether"),
    ("http", {"url": "/"}, ".url", "no such field"),
    ("http", {"headers": ["X-Token:[0-9]+"]}, ".headers[0]", '"Name: value"'),
    ("http", {"headers": ["X-Token: "]}, ".headers[0]", '"Name: value"'),
    ("http", {"headers": [":path: /"]}, ".headers[0]", '"Name: value"'),
    ("http", {"headerMatches": [{"value": "a"}]}, ".headerMatches[0].name", "required"),
    ("http", {"headerMatches": [{"name": "a b"}]}, ".headerMatches[0].name", "name of a header"),
    (
        "http",
        {"headerMatches": [{"name": "a", "mismatch": "ADD"}]},
        ".headerMatches[0].mismatch",
        "ADD needs",
    ),
    ("http", {"headerMatches": [{"name": "a", "mismatch": "x"}]}, ".headerMatches[0].mismatch", "one of LOG"),
    (
        "http",
        {"headerMatches": [{"name": "a", "value": "1", "valuePattern": "2"}]},
        ".headerMatches[0].valuePattern",
        "either",
    ),
    (
        "http",
        {"headerMatches": [{"name": "a", "valuePattern": "["}]},
        ".headerMatches[0].valuePattern",
        "missing ]",
    ),
    ("kafka", {"role": "produce", "apiKey": "fetch"}, ".apiKey", "either role or apiKey"),
    ("kafka", {"role": "prodce"}, ".role", "is it produce?"),
    ("kafka", {"apiKey": "0"}, ".apiKey", "must be one of produce"),
    ("kafka", {"apiVersion": "-1"}, ".apiVersion", '"0" to "32767"'),
    ("kafka", {"apiVersion": "32768"}, ".apiVersion", '"0" to "32767"'),
    ("kafka", {"apiVersion": 1}, ".apiVersion", 'in quotes, "1"'),
    ("kafka", {"topic": "a*"}, ".topic", "letters, digits"),
    ("kafka", {"topic": "a" * 256}, ".topic", "at most 255"),
    ("dns", {}, "", "either matchName"),
    ("dns", {"matchName": "a", "matchPattern": "a"}, "", "either matchName"),
    ("dns", {"matchName": "*.a"}, ".matchName", "a DNS name"),
    ("dns", {"matchPattern": "a?"}, ".matchPattern", "a DNS name"),
    ("dns", {"matchName": "a" * 256}, ".matchName", "255"),
]


@pytest.mark.parametrize(("kind", "rule", "path", "remedy"), RULES)
def test_rules_that_are_refused(kind: str, rule: object, path: str, remedy: str) -> None:
    error = refusal(
        cilium(egress=[{"toPorts": [entry(rules={kind: [{}, rule] if kind != "dns" else [rule]})]}])
    )
    index = 0 if kind == "dns" else 1
    assert error.path == f"spec.egress[0].toPorts[0].rules.{kind}[{index}]{path}" and remedy in error.right


@pytest.mark.parametrize("name", ["rules", "serverNames", "terminatingTLS", "originatingTLS", "listener"])
def test_a_deny_rule_has_nothing_above_its_ports(name: str) -> None:
    error = refusal(cilium(egressDeny=[{"toPorts": [entry(**{name: {"name": "x"}})]}]))
    assert error.path == f"spec.egressDeny[0].toPorts[0].{name}" and "peers and ports only" in error.right


def test_a_cluster_wide_policy_says_where_its_secrets_are() -> None:
    web = entry(TCP_443, terminatingTLS=TLS, rules=WEB)
    error = refusal(clusterwide(egress=[{"toPorts": [web]}]))
    assert error.path.endswith("terminatingTLS.secret.namespace") and "cluster-wide" in error.right


def refusal(object: Object) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parsed(object)
    return caught.value


@given(st.text())
def test_any_text_is_an_expression_or_is_refused_with_words(text: str) -> None:
    if why := regexes.wrong(text):
        assert why.isprintable()
    else:
        regexes.matches(text, "some value")


# ---- listeners that people write ---------------------------------------------------------------


def handed_to(policy: Policy) -> ListenerRef | None:
    (rule,) = policy.rules
    assert rule.l7 is not None
    return rule.l7.listener


def test_a_listener_is_of_the_policys_namespace_or_of_the_cluster() -> None:
    clusters = {**HANDED, "envoyConfig": {"kind": "CiliumClusterwideEnvoyConfig", "name": "c"}, "priority": 7}
    own, shared = (
        parsed(cilium(egress=[{"toPorts": [entry(listener=each)]}])) for each in (HANDED, clusters)
    )
    assert handed_to(own) == ListenerRef("shop", "c", "l", 101)
    assert handed_to(shared) == ListenerRef("", "c", "l", 7)
    wide = parsed(clusterwide(egress=[{"toPorts": [entry(listener=HANDED)]}]))
    assert handed_to(wide) == ListenerRef("", "c", "l", 101)
    foreign = {**HANDED, "envoyConfig": {"kind": "CiliumEnvoyConfig", "name": "c"}}
    assert (
        "names a CiliumClusterwideEnvoyConfig"
        in refusal(clusterwide(egress=[{"toPorts": [entry(listener=foreign)]}])).right
    )
