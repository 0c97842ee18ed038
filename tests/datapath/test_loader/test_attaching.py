"""Programs on interfaces, in a network namespace of the test's own."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from axoneme.datapath import attach, bpf, clsact, features, links, tcx
from axoneme.datapath.attach import EGRESS, INGRESS
from axoneme.datapath.features import Feature
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import Table
from axoneme.datapath.uapi import Command, LinkType

from .conftest import Load, new_interface, unshare_network

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); }
seen SEC(".maps");
static __always_inline int count(__u32 at)
{
	__u64 *n = bpf_map_lookup_elem(&seen, &at);
	if (n) __sync_fetch_and_add(n, 1);
	return -1; /* TCX_NEXT, TC_ACT_UNSPEC */
}
SEC("tc") int first(struct __sk_buff *skb) { return count(0); }
SEC("tc") int second(struct __sk_buff *skb) { return count(1); }
"""


@pytest.fixture
def source(load: Load) -> Object:
    return load(SOURCE)


@pytest.fixture(params=["tcx", "clsact"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of attaching; the second as on a kernel without tcx."""
    if request.param == "clsact":
        monkeypatch.setattr(attach, "has", lambda feature: feature is not Feature.TCX)
    elif not features.has(Feature.TCX):
        pytest.skip("this kernel has no tcx")
    return str(request.param)


def identity(source: Object, name: str) -> int:
    return bpf.program_info(source.program_fd(name)).id


def counts(source: Object) -> list[int]:
    with Table.of(source, "seen") as table:
        return [int(value) for value in table.read_all()[1]]


def send() -> None:
    """One packet out of interface `one`."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("one", 0))
        raw.send(bytes(12) + b"\x88\xb5" + bytes(50))


def up() -> None:
    for name in ("one", "two"):
        # Without this the kernel's own router solicitations would be counted too.
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "link", "set", name, "up"], check=True)


def test_a_program_sees_the_packets_of_its_direction(
    source: Object, interface: int, pins: Path, way: str
) -> None:
    up()
    attach.attach(source.program_fd("first"), interface, EGRESS, pins / "egress")
    attach.attach(source.program_fd("second"), interface, INGRESS, pins / "ingress")
    send()
    assert counts(source) == [1, 0]


def test_attaching_again_replaces_in_place(source: Object, interface: int, pins: Path, way: str) -> None:
    up()
    for name in ("first", "first", "second"):
        attach.attach(source.program_fd(name), interface, EGRESS, pins / "egress")
        assert attach.attached(interface, EGRESS) == [identity(source, name)]
    send()
    assert counts(source) == [0, 1]


def test_detaching_is_complete_and_may_be_repeated(
    source: Object, interface: int, pins: Path, way: str
) -> None:
    up()
    assert attach.detach(interface, EGRESS, pins / "egress") is False
    attach.attach(source.program_fd("first"), interface, EGRESS, pins / "egress")
    assert attach.detach(interface, EGRESS, pins / "egress") is True
    assert attach.detach(interface, EGRESS, pins / "egress") is False
    assert attach.attached(interface, EGRESS) == []
    assert not (pins / "egress").exists()
    send()
    assert counts(source) == [0, 0]


def test_a_program_stays_when_its_object_is_closed(
    source: Object, interface: int, pins: Path, way: str
) -> None:
    program = identity(source, "first")
    attach.attach(source.program_fd("first"), interface, INGRESS, pins / "ingress")
    source.close()
    assert attach.attached(interface, INGRESS) == [program]


def test_an_interface_that_went_and_came_again_is_attached_anew(
    source: Object, interface: int, pins: Path, way: str
) -> None:
    attach.attach(source.program_fd("first"), interface, INGRESS, pins / "ingress")
    subprocess.run(["ip", "link", "delete", "one"], check=True)
    index = new_interface("one", "two")
    attach.attach(source.program_fd("second"), index, INGRESS, pins / "ingress")
    assert attach.attached(index, INGRESS) == [identity(source, "second")]


def test_detaching_from_an_interface_that_is_gone(
    source: Object, interface: int, pins: Path, way: str
) -> None:
    attach.attach(source.program_fd("first"), interface, INGRESS, pins / "ingress")
    subprocess.run(["ip", "link", "delete", "one"], check=True)
    assert attach.detach(interface, INGRESS, pins / "ingress") is (way == "tcx")
    assert not (pins / "ingress").exists()


def test_a_missing_interface_is_named(source: Object, namespace: None, pins: Path, way: str) -> None:
    with pytest.raises(bpf.BpfError, match="999"):
        attach.attach(source.program_fd("first"), 999, INGRESS, pins / "ingress")
    assert not (pins / "ingress").exists()


def test_links_have_an_order(source: Object, interface: int, pins: Path) -> None:
    first, second = identity(source, "first"), identity(source, "second")
    tcx.attach(source.program_fd("first"), interface, INGRESS, pins / "a")
    tcx.attach(source.program_fd("second"), interface, INGRESS, pins / "b", before=first)
    assert attach.attached(interface, INGRESS) == [second, first]
    links.detach(pins / "a")
    tcx.attach(source.program_fd("first"), interface, INGRESS, pins / "c", after=second)
    assert attach.attached(interface, INGRESS) == [second, first]
    with pytest.raises(bpf.BpfError, match="the same program is there already"):
        tcx.attach(source.program_fd("first"), interface, INGRESS, pins / "d")


def test_a_pin_of_another_interface_gives_way(source: Object, interface: int, pins: Path) -> None:
    other = new_interface("three", "four")
    tcx.attach(source.program_fd("first"), interface, INGRESS, pins / "link")
    tcx.attach(source.program_fd("first"), other, INGRESS, pins / "link")
    assert attach.attached(interface, INGRESS) == []
    assert attach.attached(other, INGRESS) == [identity(source, "first")]


def test_an_interface_of_another_namespace_with_the_same_index_is_another(
    source: Object, interface: int, pins: Path
) -> None:
    tcx.attach(source.program_fd("first"), interface, INGRESS, pins / "link")
    old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        unshare_network()
        assert new_interface("one", "two") == interface
        tcx.attach(source.program_fd("second"), interface, INGRESS, pins / "link")
        assert attach.attached(interface, INGRESS) == [identity(source, "second")]
    finally:
        os.close(old)


def test_a_link_that_cannot_be_pinned_is_not_left_attached(
    source: Object, interface: int, pins: Path
) -> None:
    with pytest.raises(bpf.BpfError, match="its directory does not exist"):
        tcx.attach(source.program_fd("first"), interface, INGRESS, pins / "absent" / "link")
    assert attach.attached(interface, INGRESS) == []


def test_links_tell_about_themselves(source: Object, interface: int, pins: Path) -> None:
    tcx.attach(source.program_fd("first"), interface, EGRESS, pins / "link")
    fd = bpf.pinned(pins / "link")
    info = bpf.link_info(fd)
    os.close(fd)
    assert (info.kind, info.ifindex, info.attach_type) == (LinkType.TCX, interface, EGRESS)
    assert info.program_id == identity(source, "first")
    (entry,) = bpf.query(interface, EGRESS)
    assert (entry.program_id, entry.link_id) == (info.program_id, info.id)
    reopened = bpf.by_id(Command.LINK_GET_FD_BY_ID, info.id)
    assert bpf.link_info(reopened) == info
    os.close(reopened)


def test_filters_of_others_stay(source: Object, interface: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(clsact, "HANDLE", 1)
        clsact.attach(source.program_fd("second"), interface, INGRESS)
    assert clsact.attached(interface, INGRESS) == 0
    clsact.attach(source.program_fd("first"), interface, INGRESS)
    assert clsact.attached(interface, INGRESS) == identity(source, "first")
    assert clsact.detach(interface, INGRESS) is True
    assert clsact.detach(interface, INGRESS) is False
    with monkeypatch.context() as other:
        other.setattr(clsact, "HANDLE", 1)
        assert clsact.attached(interface, INGRESS) == identity(source, "second")
