"""Opening, configuring and loading objects."""

import sys
from pathlib import Path

import pytest

from axoneme.datapath import bpf, testrun
from axoneme.datapath.libbpf import LoadError, Object
from axoneme.datapath.maps import Table
from axoneme.datapath.sharing import differences

from .conftest import Compile, Load

PACKET = bytes(12) + b"\x08\x00" + bytes(60)

CONSTANTS = """
struct pair { __u16 low; __u16 high; };
const volatile __u32 answer = 42;
const volatile __u8 mac[6] = { 1, 2, 3, 4, 5, 6 };
const volatile __be16 port = 0;
const volatile struct pair pair = { 1, 2 };
static volatile const __u8 small = 3;
__u32 first = 7;
__u32 zero;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 16);
	__type(key, __u32); __type(value, __u64); } out SEC(".maps");
static __always_inline void put(__u32 at, __u64 value) { bpf_map_update_elem(&out, &at, &value, 0); }
SEC("tc") int show(struct __sk_buff *skb)
{
	put(0, answer); put(1, mac[0]); put(2, mac[5]); put(3, port); put(4, pair.low); put(5, pair.high);
	put(6, small); put(7, first); put(8, zero);
	return 0;
}
"""

SHARED = """
struct value { __u32 a; __u32 b; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64);
	__type(key, __u32); __type(value, struct value); } table SEC(".maps");
SEC("tc") int one(struct __sk_buff *skb) { __u32 k = 1; return bpf_map_lookup_elem(&table, &k) ? 1 : 0; }
SEC("tc") int two(struct __sk_buff *skb) { return 2; }
"""


def outputs(loaded: Object) -> list[int]:
    assert testrun.run(loaded.program_fd("show"), PACKET).value == 0
    with Table.of(loaded, "out") as table:
        return [int(value) for value in table.read_all()[1][:9]]


def test_variables_keep_their_first_values(load: Load) -> None:
    assert outputs(load(CONSTANTS)) == [42, 1, 6, 0, 1, 2, 3, 7, 0]


def test_variables_take_values_before_load(compile_program: Compile) -> None:
    with Object.open(compile_program(CONSTANTS)) as opened:
        opened.set_constants(answer=1 << 31, mac=b"\xaa\0\0\0\0\xbb", port=0x1234, pair=(8, 9), small=255)
        opened.set_constants(first=70, zero=80)
        opened.load()
        wire = int.from_bytes(b"\x12\x34", sys.byteorder)
        assert outputs(opened) == [1 << 31, 0xAA, 0xBB, wire, 8, 9, 255, 70, 80]


@pytest.mark.parametrize(
    ("name", "value"), [("answer", 1 << 32), ("answer", -1), ("mac", b"\1\2\3\4"), ("pair", (1, 2, 3))]
)
def test_a_value_that_does_not_fit_is_refused(compile_program: Compile, name: str, value: object) -> None:
    with (
        Object.open(compile_program(CONSTANTS)) as opened,
        pytest.raises(ValueError, match=f"does not fit into variable {name}"),
    ):
        opened.set_constants(**{name: value})  # type: ignore[arg-type]


def test_unknown_names_are_refused_with_the_known_ones(compile_program: Compile) -> None:
    with Object.open(compile_program(CONSTANTS)) as opened:
        with pytest.raises(KeyError, match="no variable 'antwort'; it has answer, first, mac"):
            opened.set_constants(antwort=1)
        with pytest.raises(KeyError, match="no map 'in'; it has out"):
            opened.set_max_entries("in", 1)
        with pytest.raises(KeyError, match="no program 'hide'; it has show"):
            opened.select(["hide"])


def test_configuring_after_load_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="loaded already"):
        load(CONSTANTS).set_constants(answer=1)


def test_names_of_maps_and_programs(load: Load) -> None:
    loaded = load(SHARED)
    assert loaded.map_names == ["table"]
    assert loaded.program_names == ["one", "two"]
    assert bpf.program_info(loaded.program_fd("two")).name == "two"
    assert bpf.map_info(loaded.map_fd("table")).value_size == 8


def test_only_selected_programs_are_loaded(compile_program: Compile) -> None:
    with Object.open(compile_program(SHARED)) as opened:
        opened.select(["two"])
        opened.load()
        assert testrun.run(opened.program_fd("two"), PACKET).value == 2
        with pytest.raises(ValueError, match=r"program one .* is not loaded"):
            opened.program_fd("one")


def test_max_entries_are_set_before_load(compile_program: Compile) -> None:
    with Object.open(compile_program(SHARED)) as opened:
        opened.set_max_entries("table", 1000)
        opened.load()
        assert bpf.map_info(opened.map_fd("table")).max_entries == 1000


def test_objects_share_a_map(compile_program: Compile) -> None:
    path = compile_program(SHARED)
    with Object.open(path) as first, Object.open(path) as second:
        first.load()
        second.use("table", first.map_fd("table"))
        second.load()
        with Table.of(first, "table") as table:
            table.put(1, (10, 20))
        assert testrun.run(second.program_fd("one"), PACKET).value == 1
        assert bpf.map_info(first.map_fd("table")).id == bpf.map_info(second.map_fd("table")).id


def test_a_pinned_map_survives_its_object(compile_program: Compile, pins: Path) -> None:
    with Object.open(compile_program(SHARED)) as first:
        first.load()
        bpf.pin(first.map_fd("table"), pins / "table")
        types = first.map_types("table")
        with Table.of(first, "table") as table:
            table.put(5, (1, 2))
    assert types.key is not None
    assert types.value is not None
    with Table.pinned(pins / "table", types.key, types.value) as table:
        assert table.get(5).tolist() == (1, 2)  # type: ignore[union-attr]


def test_a_map_of_another_shape_is_told_from_the_declared_one(compile_program: Compile) -> None:
    moved = compile_program(SHARED.replace("__u32 a; __u32 b;", "__u16 a; __u16 c; __u32 b;"))
    with Object.open(compile_program(SHARED)) as first, Object.open(moved) as second:
        declared = first.declaration("table")
        first.load()
        fd = first.map_fd("table")
        assert differences(declared, fd, {}) == []
        assert differences(declared.sized(65), fd, {}) == ["max_entries is 64, needed 65"]
        (change,) = differences(second.declaration("table"), fd, {})
        assert change.startswith("value.a is uint32, needed uint16")


def test_the_verifiers_words_are_in_the_error(
    compile_program: Compile, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = 'SEC("tc") int bad(struct __sk_buff *skb) { return *(int *)(long)skb->mark; }'
    with Object.open(compile_program(bad)) as opened, pytest.raises(LoadError) as caught:
        opened.load()
    assert "program bad: the verifier refuses it" in str(caught.value)
    assert "invalid mem access 'scalar'" in str(caught.value)
    assert "R1=ctx()" in caught.value.diagnosis.log
    assert capfd.readouterr() == ("", "")


def test_a_helper_that_the_program_type_lacks_is_named(compile_program: Compile) -> None:
    bad = 'SEC("socket") int bad(struct __sk_buff *skb) { return bpf_redirect(1, 0); }'
    with (
        Object.open(compile_program(bad)) as opened,
        pytest.raises(LoadError, match="lacks helper bpf_redirect"),
    ):
        opened.load()


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.o"
    path.write_text("hello")
    with pytest.raises(LoadError, match="opening object text"):
        Object.open(path)


def test_a_closed_object_says_so(compile_program: Compile) -> None:
    opened = Object.open(compile_program(SHARED))
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="is closed"):
        opened.program_fd("one")
    with pytest.raises(ValueError, match="is closed"):
        opened.load()
