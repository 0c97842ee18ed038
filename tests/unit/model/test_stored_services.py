"""What is read quickly is what the parsers read."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.model import storedservices
from axoneme.model.endpointslices import parse_endpoint_slice
from axoneme.model.paths import ManifestError
from axoneme.model.services import parse_service
from axoneme.model.storedservices import read_endpoint_slice, read_service
from fuzz.mutate import mutated

from .given import Object
from .test_services import endpoint_slice, service

SERVICE = service(
    type="NodePort",
    clusterIP="10.96.0.1",
    clusterIPs=["10.96.0.1", "fd00::1"],
    ipFamilies=["IPv4", "IPv6"],
    ipFamilyPolicy="PreferDualStack",
    selector={"app": "web"},
    sessionAffinity="None",
    internalTrafficPolicy="Cluster",
    externalTrafficPolicy="Local",
    ports=[
        {"port": 80, "name": "http", "targetPort": "web", "nodePort": 30080},
        {"port": 53, "name": "dns", "protocol": "UDP", "appProtocol": "dns"},
    ],
)
SERVICE["status"] = {"loadBalancer": {}}
SLICE = endpoint_slice(
    {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": "n",
        "zone": "z",
        "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]},
        "targetRef": {"kind": "Pod", "name": "web-0"},
        "hostname": "web-0",
    },
    {"addresses": ["10.0.0.2"], "conditions": {"ready": False}, "targetRef": {"kind": "Node", "name": "n"}},
)


@pytest.mark.parametrize(
    ("name", "read", "parse", "object"),
    [
        ("parse_service", read_service, parse_service, SERVICE),
        ("parse_endpoint_slice", read_endpoint_slice, parse_endpoint_slice, SLICE),
    ],
)
def test_what_is_usual_is_not_left_to_the_parser(
    name: str,
    read: Callable[[bytes], object],
    parse: Callable[[Object], object],
    object: Object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = parse(object)
    monkeypatch.delattr(storedservices, name)
    assert read(json.dumps(object).encode()) == expected


@given(st.sampled_from([SERVICE, SLICE]), st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=500, deadline=None)
def test_what_both_understand_they_understand_alike(object: Object, seed: int, times: int) -> None:
    read, parse = (
        (read_service, parse_service) if object is SERVICE else (read_endpoint_slice, parse_endpoint_slice)
    )
    value = json.dumps(object).encode()
    for each in range(times):
        value = mutated(value, 1 << 16, seed + each, lambda data, longest: data)
    try:
        changed = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):  # half a surrogate pair
        return
    try:
        expected = parse(changed)
    except ManifestError as error:
        # Of names and labels the quick reader only asks whether they are texts.
        if error.path.startswith(("metadata", "spec.selector")) or "name" in error.path.lower():
            return
        with pytest.raises((ManifestError, msgspec.DecodeError)):
            read(value)
    else:
        assert read(value) == expected


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_object_is_refused(value: bytes) -> None:
    for read in (read_service, read_endpoint_slice):
        with pytest.raises(msgspec.DecodeError):
            read(value)
