"""What Envoy is given for a plan: what changes with what, and what cannot be served."""

from __future__ import annotations

from axoneme.model.l7 import L7, HeaderMatch, HTTPRule, L7Kind, ListenerRef, SecretRef, TLSContext
from axoneme.proxy.envoy.protos import Kernel
from axoneme.proxy.envoy.resources import LISTENER, ROUTES, SECRET, Key, Resources, resources
from axoneme.proxy.plan import Listener, Plan, SecretData

PUBLIC = HTTPRule(method="GET", path="/public/.*")
OURS = TLSContext(SecretRef("default", "ours"))


def made(
    *listeners: Listener, secrets: tuple[SecretData, ...] = (), families: tuple[int, ...] = (4, 6)
) -> Resources:
    plan = Plan("node1", 1, families, "/events", listeners, secrets)
    return resources(plan, Kernel(own_ports=True, many_sockets=True))


def http(port: int, *rules: HTTPRule, direction: str = "egress") -> Listener:
    return Listener(port, direction, L7(L7Kind.HTTP, http=rules))


def changed(one: Resources, other: Resources) -> set[Key]:
    return {key for key in {*one.content, *other.content} if one.content.get(key) != other.content.get(key)}


def test_a_plan_is_always_the_same() -> None:
    assert not changed(made(http(10000, PUBLIC)), made(http(10000, PUBLIC)))


def test_other_rules_leave_the_listener_alone() -> None:
    before, after = made(http(10000, PUBLIC)), made(http(10000, PUBLIC, HTTPRule(path="/more")))
    assert changed(before, after) == {Key(ROUTES, "10000")}


def test_another_value_of_a_secret_leaves_the_listener_alone() -> None:
    rule = HTTPRule(headers=(HeaderMatch("x-token", secret=SecretRef("default", "key")),))
    one, other = (
        made(http(10000, rule), secrets=(SecretData("default", "key", {"v": value}),))
        for value in (b"1", b"2")
    )
    assert changed(one, other) == {Key(ROUTES, "10000")}
    inside = Listener(10000, "egress", L7(L7Kind.HTTP, http=(PUBLIC,), terminating=OURS))
    one, other = (
        made(inside, secrets=(SecretData("default", "ours", {"tls.crt": value, "tls.key": b"k"}),))
        for value in (b"1", b"2")
    )
    assert {key.type_url for key in changed(one, other)} == {SECRET}


def test_a_direction_makes_another_listener_of_the_same_rules() -> None:
    one, other = made(http(10000, PUBLIC)), made(http(10000, PUBLIC, direction="ingress"))
    assert changed(one, other) == {Key(LISTENER, "10000")}


def test_a_port_that_cannot_be_served_is_alone_in_that() -> None:
    inside = Listener(10001, "egress", L7(L7Kind.HTTP, http=(PUBLIC,), terminating=OURS))
    foreign = Listener(10002, "egress", L7(L7Kind.KAFKA))
    named = Listener(10003, "egress", L7(L7Kind.HTTP, http=(PUBLIC,), server_names=("a.test",)))
    handed = Listener(10004, "egress", L7(L7Kind.LISTENER, listener=ListenerRef("default", "c", "l")))
    found = made(http(10000, PUBLIC), inside, foreign, named, handed)
    assert found.needs.keys() == {10000}
    assert found.errors == {
        10001: "Secret default/ours is not there",
        10002: "rules for kafka are none of this proxy's",
        10003: "requests inside TLS cannot be seen without terminatingTLS",
        10004: "there is no CiliumEnvoyConfig default/c",
    }


def test_families_are_those_of_the_node() -> None:
    def listening(families: tuple[int, ...]) -> bytes:
        content = made(http(10000, PUBLIC), families=families).content[Key(LISTENER, "10000")].content
        return bytes(content.value)

    assert b"::1" not in listening((4,)).partition(b"itself")[0]
    assert b"127.0.0.1" not in listening((6,))
