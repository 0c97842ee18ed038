"""Maps as tables: every kind of map, whole arrays and single elements."""

from pathlib import Path

import numpy as np
import pytest

from axoneme.datapath import bpf, elements, testrun
from axoneme.datapath.elements import BatchError, BatchFull
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import MappedArray, Table, possible_cpus
from axoneme.datapath.uapi import MapType

from .conftest import Load

PACKET = bytes(12) + b"\x08\x00" + bytes(60)

SOURCE = """
struct key { __u32 number; __u8 address[16]; __be16 port; __u16 unused; };
struct value { __u32 a; __u16 b; __u8 c[5]; };
struct prefix { __u32 length; __u8 address[4]; };
struct holed { __u8 a; __u32 b; };
struct counter { __u64 packets; __u32 bytes; };
#define MAP(name, kind, size, flags, k, v) \\
	struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, size); __uint(map_flags, flags); \\
	__type(key, k); __type(value, v); } name SEC(".maps")
MAP(hash, HASH, 100000, 0, struct key, struct value);
MAP(lru, LRU_HASH, 4096, 0, struct key, struct value);
MAP(lpm, LPM_TRIE, 100000, BPF_F_NO_PREALLOC, struct prefix, struct value);
MAP(array, ARRAY, 100, 0, __u32, struct value);
MAP(numbers, HASH, 100, 0, __u32, __u64);
MAP(percpu, PERCPU_ARRAY, 10, 0, __u32, struct counter);
MAP(percpu_hash, PERCPU_HASH, 100, 0, __u32, struct counter);
MAP(percpu_small, PERCPU_ARRAY, 4, 0, __u32, __u16);
MAP(holes, HASH, 10, 0, struct holed, __u32);
MAP(shared, ARRAY, 3, BPF_F_MMAPABLE, __u32, struct value);
MAP(tiny, HASH, 8, 0, __u32, __u32);
MAP(sockets, SOCKMAP, 4, 0, __u32, __u64);
SEC("tc") int count(struct __sk_buff *skb)
{
	__u32 at = 3;
	struct counter *c = bpf_map_lookup_elem(&percpu, &at);
	struct value *v = bpf_map_lookup_elem(&shared, &(__u32){ 1 });
	if (c) { c->packets++; c->bytes += skb->len; }
	if (v) { v->a++; return v->b; }
	return 0;
}
"""


@pytest.fixture
def source(load: Load) -> Object:
    return load(SOURCE)


def random_rows(table: Table, count: int) -> tuple[elements.Array, elements.Array]:
    """Distinct keys with values, from whole random bytes; padding zero."""
    random = np.random.default_rng(7)
    keys, values = np.zeros(count, table.key), np.zeros(count, table.value)
    numbers = random.permutation(count * 3)[:count]
    keys["number"] = numbers
    keys["address"] = random.integers(0, 256, (count, 16))
    keys["port"] = random.integers(0, 65536, count)
    values["a"], values["b"] = numbers, numbers % 65536
    values["c"] = random.integers(0, 256, (count, 5))
    return keys, values


def as_dict(keys: elements.Array, values: elements.Array) -> dict[bytes, str]:
    assert len(keys) == len(values)
    found = {key.tobytes(): str(value) for key, value in zip(keys, values, strict=True)}
    assert len(found) == len(keys)
    return found


@pytest.mark.parametrize("name", ["hash", "lru"])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_what_is_written_is_read(source: Object, name: str, count: int) -> None:
    with Table.of(source, name) as table:
        keys, values = random_rows(table, count)
        table.write(keys, values)
        assert as_dict(*table.read_all()) == as_dict(keys, values)


def test_large_tables_go_in_several_batches(source: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "CHUNK", 1000)
    with Table.of(source, "hash") as table:
        keys, values = random_rows(table, 4567)
        table.write(keys, values)
        parts = list(table.batches(500))
        assert len(parts) >= 4567 / 500
        merged = as_dict(elements.join([k for k, _ in parts]), elements.join([v for _, v in parts]))
        assert merged == as_dict(keys, values)
        assert table.delete(keys[::2]) == len(keys[::2])
        assert as_dict(*table.read_all()) == as_dict(keys[1::2], values[1::2])


def test_tiny_batches_grow_to_the_fullest_bucket(source: Object) -> None:
    with Table.of(source, "hash") as table:
        keys, values = random_rows(table, 20000)
        table.write(keys, values)
        count = sum(len(k) for k, _ in table.batches(1))
        assert count == 20000


def test_batches_can_take_out_what_they_read(source: Object) -> None:
    with Table.of(source, "hash") as table:
        keys, values = random_rows(table, 3000)
        table.write(keys, values)
        parts = list(table.batches(256, remove=True))
        assert sum(len(k) for k, _ in parts) == 3000
        assert len(table.read_all()[0]) == 0


def test_prefixes_are_matched_and_listed(source: Object) -> None:
    with Table.of(source, "lpm") as table:
        keys, values = np.zeros(5000, table.key), np.zeros(5000, table.value)
        keys["length"] = 32
        keys["address"] = (np.arange(5000, dtype=">u4") + 0x0A000000).astype(">u4").view("u1").reshape(-1, 4)
        values["a"] = np.arange(5000)
        table.write(keys, values)
        table.put((8, [10, 0, 0, 0]), (99, 0, [0] * 5))
        assert table.get((32, [10, 0, 0, 7])) == values[7]
        assert table.get((32, [10, 200, 0, 0]))["a"] == 99  # type: ignore[index]
        assert table.get((32, [11, 0, 0, 0])) is None
        read = as_dict(*table.read_all())
        assert len(read) == 5001
        assert table.delete(keys) == 5000
        assert len(table.read_all()[0]) == 1
        assert sum(len(k) for k, _ in table.batches(remove=True)) == 1
        assert len(table.read_all()[0]) == 0


def test_prefix_too_long_is_refused_with_how_far_it_came(source: Object) -> None:
    with Table.of(source, "lpm") as table:
        keys, values = np.zeros(10, table.key), np.zeros(10, table.value)
        keys["length"] = 32
        keys["address"][:, 3] = np.arange(10)
        keys["length"][6] = 33
        with pytest.raises(
            BatchError, match=r"map lpm \(lpm_trie, 100000 entries\), element 7 of 10"
        ) as caught:
            table.write(keys, values)
        assert (caught.value.done, caught.value.total) == (6, 10)
        assert len(table.read_all()[0]) == 6


def test_a_full_map_says_so_and_keeps_what_fitted(source: Object) -> None:
    with Table.of(source, "tiny") as table:
        with pytest.raises(
            BatchFull, match=r"map tiny \(hash, 8 entries\), element 9 of 20: .*raise max_entries"
        ):
            table.write(np.arange(20), np.arange(20))
        assert len(table.read_all()[0]) == 8


def test_deleting_passes_over_what_is_not_there(source: Object) -> None:
    with Table.of(source, "numbers") as table:
        table.write(np.arange(10), np.arange(10))
        assert table.delete([100, 3, 101, 102, 5, 103]) == 2
        assert sorted(table.read_all()[0].tolist()) == [0, 1, 2, 4, 6, 7, 8, 9]
        assert table.clear() == 8
        assert table.delete([]) == 0


def test_single_elements(source: Object) -> None:
    with Table.of(source, "numbers") as table:
        assert table.get(1) is None
        table.put(1, 10)
        assert table.get(1) == 10
        with pytest.raises(BatchError, match="the key is there already"):
            table.put(1, 11, elements.NO_EXIST)
        with pytest.raises(BatchError, match="the key is not there"):
            table.put(2, 11, elements.EXIST)
        assert table.pop(1) == 10
        assert table.pop(1) is None
        assert table.discard(1) is False
        found, values = table.read([1, 2])
        assert not found.any()
        table.put(2, 5)
        found, values = table.read([1, 2])
        assert (found.tolist(), values.tolist()) == ([False, True], [0, 5])


def test_only_adding_holds_for_many_too(source: Object) -> None:
    with Table.of(source, "numbers") as table:
        table.put(2, 0)
        with pytest.raises(BatchError, match="element 3 of 4") as caught:
            table.write([0, 1, 2, 3], [1, 1, 1, 1], elements.NO_EXIST)
        assert caught.value.done == 2
        assert table.get(2) == 0


def test_pop_from_a_trie(source: Object) -> None:
    with Table.of(source, "lpm") as table:
        key, value = (32, [1, 2, 3, 4]), (1, 2, [3, 4, 5, 6, 7])
        table.put(key, value)
        assert table.pop(key)["b"] == 2  # type: ignore[index]
        assert table.pop(key) is None


def test_arrays_have_all_their_elements(source: Object) -> None:
    with Table.of(source, "array") as table:
        table.write([3, 99], np.array([(7, 8, [1] * 5), (9, 9, [2] * 5)], table.value))
        keys, values = table.read_all()
        assert keys.tolist() == list(range(100))
        assert values["a"][[3, 99]].tolist() == [7, 9]
        assert values["a"].sum() == 16


def test_values_per_cpu_add_up(source: Object) -> None:
    with Table.of(source, "percpu") as table:
        for _ in range(5):
            testrun.run(source.program_fd("count"), PACKET)
        keys, values = table.read_all()
        assert values.shape == (10, possible_cpus())
        keys, total = table.sums()
        assert total[3].tolist() == (5, 5 * len(PACKET))
        assert total["packets"].sum() == 5
        table.write(keys, np.zeros(10, table.value))
        assert table.sums()[1]["packets"].sum() == 0


@pytest.mark.parametrize("name", ["percpu", "percpu_hash"])
def test_values_per_cpu_are_written(source: Object, name: str) -> None:
    cpus = possible_cpus()
    with Table.of(source, name) as table:
        values = np.zeros((2, cpus), table.value)
        values["packets"] = np.arange(2 * cpus).reshape(2, cpus)
        table.write([1, 2], values)
        table.put(4, (1, 6))
        one = table.get(2)
        assert one is not None
        assert one["packets"].tolist() == list(range(cpus, 2 * cpus))
        assert table.get(4)["bytes"].tolist() == [6] * cpus  # type: ignore[index]
        found, read = table.read([1, 9])
        assert read["packets"][0].tolist() == list(range(cpus))
        assert found.tolist() == [True, name == "percpu"]


def test_small_values_per_cpu_stand_eight_bytes_apart(source: Object) -> None:
    with Table.of(source, "percpu_small") as table:
        table.write([0, 1], np.array([5, 65535], "u2"))
        assert table.read_all()[1][:2].tolist() == [[5] * possible_cpus(), [65535] * possible_cpus()]
        with pytest.raises(ValueError, match="is not per CPU"):
            Table.of(source, "array").sums()


def test_a_mapped_array_is_the_programs_memory(source: Object) -> None:
    mapped = MappedArray.of(source, "shared")
    assert mapped.array.shape == (3,)
    mapped.array[1]["b"] = 321
    mapped.array["a"][2] = 5
    assert testrun.run(source.program_fd("count"), PACKET).value == 321
    assert mapped.array["a"].tolist() == [0, 1, 5]
    with Table.of(source, "shared") as table:
        assert table.read_all()[1]["a"].tolist() == [0, 1, 5]
    with pytest.raises(ValueError, match="no array with BPF_F_MMAPABLE"):
        MappedArray.of(source, "array")


@pytest.mark.parametrize("name", ["hash", "lpm", "percpu_hash", "array"])
def test_maps_without_batches_behave_the_same(
    source: Object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's refusal is simulated; a map type that really refuses is tried below."""
    with Table.of(source, name) as table:
        count = 100
        keys, values = np.zeros(count, table.key), np.zeros(count, table.value)
        keys.view("u1").reshape(count, -1)[:, 0] = np.arange(count)
        if name == "lpm":
            keys["length"], keys["address"] = 32, np.arange(count)[:, None]
        values.view("u1").reshape(count, -1)[:, 0] = np.arange(count) + 1
        monkeypatch.setattr(elements, "_batch", lambda *_: (-bpf.ENOTSUPP, 0))
        table.write(keys, values)
        parts = list(table.batches(30))
        assert [len(k) for k, _ in parts] == [30, 30, 30, 10]
        single = as_dict(elements.join([k for k, _ in parts]), elements.join([v for _, v in parts]))
        monkeypatch.undo()
        assert single == as_dict(*table.read_all())
        monkeypatch.setattr(elements, "_batch", lambda *_: (-bpf.ENOTSUPP, 0))
        if name != "array":
            assert table.delete(keys[:50]) == 50
            assert table.delete(keys[:50]) == 0
            assert sum(len(k) for k, _ in table.batches(7, remove=True)) == 50
            assert table.read_all()[0].shape == (0,)


def test_a_map_type_without_batches(source: Object) -> None:
    fd = source.map_fd("sockets")
    assert not elements.knows_batches(fd, np.zeros(1, "u4"), np.zeros(1, "u8"))
    assert elements.knows_batches(source.map_fd("hash"), np.zeros(1, "V24"), np.zeros(1, "V12"))
    with Table.of(source, "sockets") as table:
        assert len(table.read_all()[0]) == 0


def test_keys_with_holes_are_refused(source: Object) -> None:
    with pytest.raises(ValueError, match="map holes: its key has a hole at byte 1"):
        Table.of(source, "holes")


def test_records_of_another_dtype_are_refused(source: Object) -> None:
    other = np.dtype([("b", "u4"), ("a", "u2"), ("c", "u1", (5,)), ("d", "u1")])
    with Table.of(source, "array") as table:
        with pytest.raises(TypeError, match="map array: values have fields"):
            table.write([1], np.zeros(1, other))
        with pytest.raises(TypeError, match="map array: records have fields"):
            table.put(1, np.zeros(1, other)[0])
        with pytest.raises(ValueError, match="2 keys but 1 values"):
            table.write([1, 2], np.zeros(1, table.value))
        with pytest.raises(ValueError, match="its values have 12 bytes"):
            Table(table.fd, np.dtype("u4"), np.dtype("u8"))


def test_byte_orders_are_converted(source: Object) -> None:
    with Table.of(source, "hash") as table:
        keys, values = random_rows(table, 100)
        native = np.concatenate([keys, keys[:0]])
        assert native.dtype != table.key, (
            "numpy keeps big-endian fields: elements.join is not needed any more"
        )
        table.write(native, values)
        assert as_dict(*table.read_all()) == as_dict(keys, values)


def test_tables_own_their_file_descriptor(source: Object) -> None:
    table = Table.of(source, "numbers")
    table.put(1, 1)
    source.close()
    assert table.get(1) == 1
    table.close()
    with pytest.raises(ValueError, match="map numbers: this table is closed"):
        table.get(1)


def test_a_missing_pin_names_its_path(pins: Path) -> None:
    with pytest.raises(bpf.NotFound, match=r"opening the pin .*absent"):
        Table.pinned(pins / "absent", np.dtype("u4"), np.dtype("u4"))
    with pytest.raises(FileNotFoundError):
        bpf.pinned(pins / "absent")


def test_maps_are_described_in_messages(source: Object) -> None:
    assert bpf.describe(source.map_fd("lpm")) == "map lpm (lpm_trie, 100000 entries)"
    assert bpf.describe(source.program_fd("count")).startswith("program count (id ")
    assert bpf.map_info(source.map_fd("lpm")).kind == MapType.LPM_TRIE
