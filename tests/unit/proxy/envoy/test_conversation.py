"""The discovery protocol, with an Envoy that is played."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from google.rpc import status_pb2

from axoneme.proxy.envoy.ads import Conversation
from axoneme.proxy.envoy.resources import CLUSTER, LISTENER, ROUTES, SECRET, Key, Resource, Resources

C, L, R = Key(CLUSTER, "onwards"), Key(LISTENER, "10000"), Key(ROUTES, "10000")


def resources(**versions: str) -> Resources:
    """By one letter each."""
    keys = {"c": C, "l": L, "r": R}
    return Resources({keys[name]: Resource(version, any_pb2.Any()) for name, version in versions.items()})


class Played:
    """An Envoy that asks for all there is of what it is told of, and takes it or not."""

    def __init__(self) -> None:
        self.it = Conversation()
        for kind in (CLUSTER, LISTENER):
            self.it.hear(discovery_pb2.DeltaDiscoveryRequest(type_url=kind))

    def subscribe(self, key: Key) -> None:
        self.it.hear(
            discovery_pb2.DeltaDiscoveryRequest(type_url=key.type_url, resource_names_subscribe=[key.name])
        )

    def told(self, content: Resources, refuses: Iterable[Key] = ()) -> list[tuple[Key, str]]:
        """What it is told, a removal by an empty version; it answers all of it."""
        said = []
        for response in list(self.it.say(content)):
            (name,) = [*(each.name for each in response.resources), *response.removed_resources]
            key = Key(response.type_url, name)
            said.append((key, response.resources[0].version if response.resources else ""))
            answer = discovery_pb2.DeltaDiscoveryRequest(
                type_url=response.type_url, response_nonce=response.nonce
            )
            if key in refuses:
                answer.error_detail.CopyFrom(status_pb2.Status(message="no"))
            self.it.hear(answer)
        return said


def test_what_is_referred_to_comes_first_and_goes_last() -> None:
    envoy = Played()
    envoy.subscribe(R)
    assert envoy.told(resources(l="1", r="1", c="1")) == [(C, "1"), (R, "1"), (L, "1")]
    assert envoy.told(resources(l="1", r="1", c="1")) == []
    assert envoy.told(resources(l="1", r="2", c="1")) == [(R, "2")]
    assert envoy.it.taken == {C: "1", L: "1", R: "2"}
    assert envoy.told(resources()) == [(L, ""), (R, ""), (C, "")]
    assert envoy.it.taken == {}


def test_nothing_is_said_that_was_not_asked_for() -> None:
    envoy = Played()
    assert envoy.told(resources(l="1", r="1")) == [(L, "1")]
    envoy.subscribe(R)
    assert envoy.told(resources(l="1", r="1")) == [(R, "1")]


def test_what_is_refused_stays_refused_until_it_is_another() -> None:
    envoy = Played()
    assert envoy.told(resources(l="1"), refuses=[L]) == [(L, "1")]
    assert envoy.it.refused == {L: ("1", "no")}
    assert envoy.told(resources(l="1")) == []
    assert envoy.told(resources(l="2")) == [(L, "2")]
    assert (envoy.it.taken, envoy.it.refused) == ({L: "2"}, {})
    # Of a later one that is refused, the one before it is still in force.
    envoy.told(resources(l="3"), refuses=[L])
    assert (envoy.it.taken[L], envoy.it.refused[L]) == ("2", ("3", "no"))


def test_who_subscribes_again_has_forgotten() -> None:
    envoy = Played()
    envoy.subscribe(R)
    envoy.told(resources(r="1"))
    envoy.subscribe(R)
    assert envoy.told(resources(r="1")) == [(R, "1")]


def test_what_is_not_there_is_said_not_to_be_once() -> None:
    envoy = Played()
    secret = Key(SECRET, "lost")
    envoy.subscribe(secret)
    assert envoy.told(resources()) == [(secret, "")]
    assert envoy.told(resources()) == []


@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_comes_late_is_for_what_was_sent(times: int) -> None:
    envoy = Played()
    first = list(envoy.it.say(resources(l="1")))
    second = list(envoy.it.say(resources(l="2")))
    for response in (first + second)[:times]:
        envoy.it.hear(discovery_pb2.DeltaDiscoveryRequest(type_url=LISTENER, response_nonce=response.nonce))
    assert envoy.it.taken == {L: str(times)}
