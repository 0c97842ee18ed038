"""Test runs, features, bpffs, a real ring, and the errors of bpf(2)."""

import os
from pathlib import Path

import numpy as np
import pytest

from axoneme.datapath import bpf, bpffs, features, testrun
from axoneme.datapath.features import Feature
from axoneme.datapath.ring import RingReader
from axoneme.datapath.uapi import Command, MapType, ProgramType

from .conftest import Load

PACKET = bytes(range(12)) + b"\x08\x00" + bytes(60)

RING = """
struct event { __u64 number; __u32 odd; __u8 pad[4]; __u8 name[4]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
const struct event *unused SEC(".rodata");
__u64 n;
SEC("tc") int emit(struct __sk_buff *skb)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) return 1;
	e->number = n++;
	e->odd = e->number & 1;
	if (skb->mark && e->number % 3 == 0)
		bpf_ringbuf_discard(e, 0);
	else
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}
SEC("tc") int other(struct __sk_buff *skb)
{
	__u64 x = 1;
	return bpf_ringbuf_output(&events, &x, sizeof(x), 0);
}
"""

CHANGE = """
#include <linux/pkt_cls.h>
SEC("tc") int change(struct __sk_buff *skb)
{
	__u8 byte = 0xee;
	if (skb->ifindex != 1 || skb->cb[2] != 7) return TC_ACT_SHOT;
	bpf_skb_store_bytes(skb, 0, &byte, 1, 0);
	if (bpf_skb_change_tail(skb, skb->len + 10, 0)) return TC_ACT_SHOT;
	skb->mark = skb->mark + 1;
	skb->cb[0] = skb->priority;
	return TC_ACT_OK;
}
"""


def test_a_test_run_gives_packet_and_buffer_back(load: Load) -> None:
    fd = load(CHANGE).program_fd("change")
    ran = testrun.run(fd, PACKET, testrun.skb(mark=41, cb=7, priority=5, ifindex=1))
    assert (ran.value, ran.context["mark"], ran.context["cb"][0]) == (0, 42, 5)
    assert ran.data == b"\xee" + PACKET[1:] + bytes(10)
    assert testrun.run(fd, PACKET).value == 2
    assert testrun.run(fd, PACKET).context is None
    assert testrun.run(fd, PACKET, repeat=1000).duration > 0


def test_test_runs_refuse_what_cannot_be_set(load: Load) -> None:
    fd = load(CHANGE).program_fd("change")
    with pytest.raises(KeyError, match=r"__sk_buff\.protocol cannot be set"):
        testrun.skb(protocol=8)
    with pytest.raises(bpf.BpfError, match=r"test run of program change .*shorter than its headers"):
        testrun.run(fd, b"short")
    with pytest.raises(bpf.BpfError, match="network namespace"):
        testrun.run(fd, PACKET, testrun.skb(ifindex=99999))


def test_the_layout_of_sk_buff_is_the_kernels(load: Load) -> None:
    ours, theirs = testrun.SK_BUFF.fields, load(CHANGE).btf.struct("__sk_buff").fields
    assert ours is not None
    assert theirs is not None
    names = [name for name in ours if name not in ("flow_keys", "sk", "unused")]
    assert [ours[name][:2] for name in names] == [theirs[name][:2] for name in names]


def test_a_ring_is_read_while_it_goes_round_many_times(load: Load) -> None:
    source = load(RING)
    with RingReader(source.map_fd("events"), source.btf.struct("event")) as ring:
        read = []
        for step in range(50):
            testrun.run(source.program_fd("emit"), PACKET, repeat=50 + step % 30)
            records = ring.read(100)
            assert (records["number"] % 2 == records["odd"]).all()
            read += records["number"].tolist()
        assert read == list(range(len(read)))
        assert len(read) > 3000
        assert ring.pending() == 0


def test_a_full_ring_refuses_and_a_read_makes_room(load: Load) -> None:
    source = load(RING)
    emit = source.program_fd("emit")
    with RingReader(source.map_fd("events"), source.btf.struct("event")) as ring:
        assert testrun.run(emit, PACKET, repeat=1000).value == 1
        assert ring.size - ring.pending() < 40
        assert len(ring.read(10)) == 10
        assert testrun.run(emit, PACKET).value == 0


def test_discarded_records_are_left_out(load: Load) -> None:
    source = load(RING)
    with RingReader(source.map_fd("events"), source.btf.struct("event")) as ring:
        testrun.run(source.program_fd("emit"), PACKET, testrun.skb(mark=1), repeat=30)
        assert ring.read()["number"].tolist() == [number for number in range(30) if number % 3]


def test_the_next_reader_goes_on_where_the_last_one_stood(load: Load, pins: Path) -> None:
    source = load(RING)
    bpf.pin(source.map_fd("events"), pins / "events")
    dtype = source.btf.struct("event")
    testrun.run(source.program_fd("emit"), PACKET, repeat=10)
    with RingReader.pinned(pins / "events", dtype) as ring:
        ring.read(4)
    with RingReader.pinned(pins / "events", dtype) as ring:
        assert ring.read()["number"].tolist() == [4, 5, 6, 7, 8, 9]
    assert len(ring.read()) == 0


def test_records_of_other_programs_are_refused(load: Load) -> None:
    source = load(RING)
    with RingReader(source.map_fd("events"), source.btf.struct("event")) as ring:
        testrun.run(source.program_fd("other"), PACKET)
        with pytest.raises(ValueError, match="ring events: a record has 8 bytes, not 24"):
            ring.read()


def test_only_rings_are_rings() -> None:
    fd = bpf.map_create(MapType.ARRAY, 4, 8, 1, name="list")
    with pytest.raises(ValueError, match=r"map list \(array\) is no ring buffer"):
        RingReader(fd, np.dtype([("a", "u8")]))
    os.close(fd)


def test_features_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    features.has.cache_clear()
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    for feature in Feature:
        since = tuple(int(part) for part in feature.since.split("."))
        if release >= since:
            assert features.has(feature), feature.sentence
    monkeypatch.setattr(bpf, "query", lambda *_: pytest.fail("probed a second time"))
    assert features.has(Feature.TCX) is (release >= (6, 6))


def test_a_helper_that_no_kernel_has_is_missing() -> None:
    assert features._helper(100000)() is False
    assert features._helper(1)() is True


def test_a_feature_says_what_goes_without_it() -> None:
    assert Feature.LPM_BATCH.sentence == (
        "this kernel has no batches on prefix tries (Linux 5.13 and later have): "
        "large policies are written entry by entry"
    )


def test_bpffs_is_mounted_once_and_unmounted(tmp_path: Path) -> None:
    path = tmp_path / "a" / "bpf"
    assert not bpffs.is_bpffs(path)
    assert bpffs.mount(path) is True
    try:
        assert bpffs.mount(path) is False
        (path / "inner").mkdir()
        assert bpffs.is_mount(path)
        assert bpffs.is_bpffs(path / "inner")
        assert not bpffs.is_mount(path / "inner")
        assert path.stat().st_mode & 0o777 == 0o700
    finally:
        assert bpffs.unmount(path) is True
    assert bpffs.unmount(path) is False
    assert not bpffs.is_bpffs(path)


def test_pins_outside_a_bpffs_are_refused(tmp_path: Path, pins: Path) -> None:
    fd = bpf.map_create(MapType.ARRAY, 4, 8, 1, name="list")
    with pytest.raises(
        bpf.Forbidden, match=r"pinning map list \(array, 1 entries\) at .* must be in a bpffs"
    ):
        bpf.pin(fd, tmp_path / "list")
    bpf.pin(fd, pins / "list")
    with pytest.raises(bpf.BpfError, match="the name is taken"):
        bpf.pin(fd, pins / "list")
    os.close(fd)


def test_bad_instructions_carry_the_verifiers_words() -> None:
    with pytest.raises(bpf.BpfError, match="loading program bad") as caught:
        bpf.program_load(ProgramType.SCHED_CLS, b"\x95" + bytes(7), "bad", log_size=4096)
    assert "R0 !read_ok" in "".join(caught.value.__notes__)


def test_unknown_ids_are_not_found() -> None:
    with pytest.raises(bpf.NotFound, match="map with id 999999999"):
        bpf.by_id(Command.MAP_GET_FD_BY_ID, 999999999)


def test_run_time_statistics_count_runs(load: Load) -> None:
    fd = load(CHANGE).program_fd("change")
    statistics = bpf.enable_run_time_stats()
    testrun.run(fd, PACKET, repeat=10)
    os.close(statistics)
    info = bpf.program_info(fd)
    assert info.run_count == 10
    assert info.run_time > 0
    assert info.verified_instructions > 0
