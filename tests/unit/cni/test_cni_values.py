"""Requests of runtimes and answers to them, as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.cni.request import VERSIONS, CniError, Code, parse
from axoneme.cni.result import Interface, failure, success

CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "axo-cni"}
ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/c1"}
INTERFACE = Interface(
    "axo1",
    "02:00:00:00:00:01",
    "eth0",
    "0a:00:00:00:00:01",
    "/run/netns/c1",
    1500,
    [("10.244.1.2", 32, "169.254.1.1"), ("fd00::2", 128, "fe80::1")],
)


def config(**more: object) -> bytes:
    return json.dumps(CONFIG | more).encode()


def test_who_a_container_is() -> None:
    plain = parse(ADD, config(labels={"app": "web"}, namespace="shop"))
    assert plain.pod == ("shop", "c1")
    assert plain.labels == {"app": "web"}
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u"
    pod = parse({**ADD, "CNI_ARGS": arguments}, config())
    assert pod.pod == ("shop", "web-0")
    assert pod.labels is None, "its object has them"
    container = parse({**ADD, "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web"}, config())
    assert (container.pod, container.labels) == (("default", "web"), {}), "podman tells a name only"
    given = config(
        labels={"a": "1", "b": "1", "c": "1"}, args={"cni": {"labels": [{"key": "b", "value": "2"}]}}
    )
    assert parse({**ADD, "CNI_ARGS": "AXO_LABELS=c=3,d=4"}, given).labels == {
        "a": "1",
        "b": "2",
        "c": "3",
        "d": "4",
    }
    by_runtime = config(
        capabilities={"labels": True, "io.kubernetes.cri.pod-annotations": True},
        runtimeConfig={
            "labels": {"a": "1", "b": "1"},
            "io.kubernetes.cri.pod-annotations": {"axoneme.io/labels": "b=2, c=3", "other": "x"},
        },
    )
    assert parse({**ADD, "CNI_ARGS": arguments}, by_runtime).labels == {"a": "1", "b": "2", "c": "3"}


def test_a_long_container_id_gives_a_short_name() -> None:
    assert parse({**ADD, "CNI_CONTAINERID": "0123456789abcdef" * 4}, config()).pod[1] == "0123456789ab"


@pytest.mark.parametrize(
    ("environment", "text", "code", "message"),
    [
        ({}, config(), Code.INVALID_ENVIRONMENT, "CNI_COMMAND is ''"),
        ({**ADD, "CNI_NETNS": ""}, config(), Code.INVALID_ENVIRONMENT, "CNI_NETNS is missing"),
        ({**ADD, "CNI_IFNAME": "x" * 16}, config(), Code.INVALID_ENVIRONMENT, "CNI_IFNAME"),
        (ADD, b"", Code.UNDECODABLE, "no JSON"),
        (ADD, b"{", Code.UNDECODABLE, "no JSON"),
        (ADD, b'{"\xff":1}', Code.UNDECODABLE, "no JSON"),
        (ADD, b"[]", Code.INVALID_CONFIG, "network configuration"),
        (ADD, config(cniVersion="0.1.0"), Code.INCOMPATIBLE_VERSION, "cniVersion is '0.1.0'"),
        (ADD, config(name=1), Code.INVALID_CONFIG, "$.name"),
        (ADD, config(name="a/b"), Code.INVALID_CONFIG, "name is 'a/b'"),
        (ADD, config(labels={"a": 1}), Code.INVALID_CONFIG, "$.labels"),
        (ADD, config(labels={"a b": "1"}), Code.INVALID_CONFIG, "'a b' is no key"),
        (ADD, config(labels={"a": "x y"}), Code.INVALID_CONFIG, "labels: a is 'x y'"),
        (ADD, config(timeout=-1), Code.INVALID_CONFIG, "$.timeout"),
        (ADD, config(lables={"app": "web"}), Code.UNSUPPORTED_FIELD, 'lables is {"app":"web"}'),
        (ADD, config(ipam={"type": "host-local"}), Code.UNSUPPORTED_FIELD, "ipam is"),
        (ADD, b'{"dns":{"a":' + b"[" * 100_000, Code.UNDECODABLE, "no JSON"),
        ({**ADD, "CNI_IFNAME": "eth0\nlink"}, config(), Code.INVALID_ENVIRONMENT, "CNI_IFNAME"),
        ({**ADD, "CNI_ARGS": "FOO=bar"}, config(), Code.INVALID_ENVIRONMENT, "'FOO' is not known"),
        (
            {**ADD, "CNI_ARGS": "K8S_POD_NAME=a/b"},
            config(),
            Code.INVALID_ENVIRONMENT,
            "K8S_POD_NAME is 'a/b'",
        ),
        ({**ADD, "CNI_ARGS": "AXO_LABELS==1"}, config(), Code.INVALID_CONFIG, "'' is no key"),
        ({"CNI_COMMAND": "GC"}, config(cniVersion="1.0.0"), Code.INCOMPATIBLE_VERSION, "has no GC"),
        ({"CNI_COMMAND": "STATUS"}, config(cniVersion="0.4.0"), Code.INCOMPATIBLE_VERSION, "has no STATUS"),
        (
            {**ADD, "CNI_COMMAND": "CHECK"},
            config(cniVersion="0.3.1"),
            Code.INCOMPATIBLE_VERSION,
            "has no CHECK",
        ),
    ],
)
def test_what_is_wrong_has_the_specifications_code(
    environment: dict[str, str], text: bytes, code: Code, message: str
) -> None:
    with pytest.raises(CniError) as caught:
        parse(environment, text)
    assert caught.value.code is code
    assert message in caught.value.message


def test_a_deletion_needs_no_namespace() -> None:
    request = parse({**ADD, "CNI_COMMAND": "DEL", "CNI_NETNS": ""}, config())
    assert (request.command, request.netns) == ("DEL", "")


def test_a_deletion_is_not_held_up_by_what_kept_the_container_out() -> None:
    environment = {**ADD, "CNI_COMMAND": "DEL", "CNI_ARGS": "FOO=bar"}
    assert parse(environment, config(lables={}, labels={"a b": "1"})).container_id == "c1"


def test_null_is_nothing() -> None:
    annotations = {"io.kubernetes.cri.pod-annotations": None}
    given = config(labels=None, args={"cni": {"labels": None}}, dns=None, runtimeConfig=annotations)
    assert parse(ADD, given).labels == {}


def test_attachments_to_keep_have_two_names() -> None:
    given = config(
        **{
            "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
            "cni.dev/attachments": [{"containerID": "b", "ifname": "eth1"}],
        }
    )
    valid = parse({"CNI_COMMAND": "GC"}, given).config.valid_attachments
    assert valid == {("a", "eth0"), ("b", "eth1")}
    none = parse({"CNI_COMMAND": "GC"}, config(**{"cni.dev/valid-attachments": None})).config
    assert none.valid_attachments == set(), "so a runtime in Go writes an empty list"
    assert parse({"CNI_COMMAND": "GC"}, config()).config.valid_attachments is None


@settings(max_examples=500)
@given(
    st.dictionaries(st.sampled_from([*ADD, "CNI_ARGS"]), st.text(max_size=20)),
    st.one_of(
        st.binary(max_size=60), st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)
    ),
)
def test_nonsense_is_refused_or_understood(environment: dict[str, str], text: bytes) -> None:
    try:
        parse(environment, text)
    except CniError as error:
        assert error.message


@pytest.mark.parametrize("version", VERSIONS)
def test_results_have_the_form_of_their_version(version: str) -> None:
    found = success(version, INTERFACE)
    assert found["cniVersion"] == version
    assert [each["address"] for each in found["ips"]] == ["10.244.1.2/32", "fd00::2/128"]
    assert [each.get("version") for each in found["ips"]] == (
        ["4", "6"] if version.startswith("0.") else [None, None]
    )
    assert [each["dst"] for each in found["routes"]] == ["0.0.0.0/0", "::/0"]
    assert found["interfaces"][1]["sandbox"] == "/run/netns/c1"
    assert ("mtu" in found["interfaces"][0]) == (version == "1.1.0")


def test_failures_speak_a_version_that_exists() -> None:
    error = CniError(Code.TRY_AGAIN_LATER, "later", "because")
    assert failure("0.4.0", error) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "later",
        "details": "because",
    }
    assert failure("9.9", error)["cniVersion"] == "1.1.0"
