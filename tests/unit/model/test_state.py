from __future__ import annotations

import pytest

from axoneme.model.state import (
    EndpointState,
    IdentityState,
    NamedPortState,
    NodeState,
    decode,
    encode,
    endpoint_key,
    identity_key,
    node_key,
)

ENDPOINT = EndpointState(
    id=7,
    node="one",
    identity=300,
    addresses=["10.244.0.2", "fd00::2"],
    namespace="shop",
    pod="web-0",
    named_ports=[NamedPortState("http", "TCP", 8080)],
)


@pytest.mark.parametrize(
    "state", [NodeState("one", ["10.0.0.1"], public={"key": "x"}), ENDPOINT, IdentityState(["k8s:app=web"])]
)
def test_what_is_written_can_be_read(state: NodeState | EndpointState | IdentityState) -> None:
    assert decode(encode(state), type(state), "key") == state


def test_keys_are_where_everybody_looks_for_them() -> None:
    assert node_key("one") == "state/nodes/one"
    assert endpoint_key("one", 7) == "state/endpoints/one/7"
    assert identity_key(300) == "state/identities/by-number/300"


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert decode(b'{"name":"one","colour":"red"}', NodeState, "k") == NodeState("one")


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"name":1}', b"\xff"])
def test_what_is_no_state_is_refused_by_its_key(value: bytes) -> None:
    with pytest.raises(ValueError, match="state/nodes/one: not a NodeState"):
        decode(value, NodeState, "state/nodes/one")
