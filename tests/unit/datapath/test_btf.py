"""C types as numpy dtypes: the compiler itself says where each member lies."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from axoneme.datapath.btf import Btf, BtfError
from axoneme.datapath.elf import Elf, ElfError

CLANG = shutil.which("clang-19") or shutil.which("clang")
pytestmark = pytest.mark.skipif(CLANG is None, reason="needs clang")

SOURCE = r"""
typedef unsigned char u8; typedef unsigned short u16;
typedef unsigned int u32; typedef unsigned long long u64;
typedef u16 __be16; typedef u32 __be32; typedef u64 __be64;
#define SEC(name) __attribute__((section(name), used))
#define offsetof(type, member) __builtin_offsetof(type, member)

enum color { RED, GREEN = 7, BLUE };
enum sign { MINUS = -3, PLUS = 3 };
enum wide : unsigned long long { HUGE = 1ull << 40, TOP = 0xffffffffffffffffull };
enum deep : long long { DEPTH = -(1ll << 40) };

struct inner { u8 kind; u32 number; };
struct outer {
	u8 first;
	struct inner one;
	struct inner many[3];
	__be16 port;
	__be32 wire[2];
	u64 big;
	signed char small;
	_Bool yes;
	enum color color;
	enum sign sign;
	void *pointer;
	u8 matrix[2][3];
	double ratio;
	volatile const u16 qualified;
};
struct anonymous {
	u8 tag;
	union { u32 word; u8 bytes[4]; struct { u16 low; u16 high; }; };
	struct { u8 after; };
};
union either { u64 whole; struct inner half; };
struct holder { u32 head; union either either; };
struct packed { u8 a; u32 b; } __attribute__((packed));
struct bits { u32 whole; u32 three : 3; u32 rest : 29; };
struct empty {};
typedef struct { u32 x; } alias;

#define A(type, member) offsetof(struct type, member)
const u64 places[] SEC(".rodata.places") = {
	A(outer, first), A(outer, one), A(outer, many), A(outer, port), A(outer, wire), A(outer, big),
	A(outer, small), A(outer, yes), A(outer, color), A(outer, sign), A(outer, pointer), A(outer, matrix),
	A(outer, ratio), A(outer, qualified), sizeof(struct outer),
	A(anonymous, tag), A(anonymous, word), A(anonymous, bytes), A(anonymous, low), A(anonymous, high),
	A(anonymous, after), sizeof(struct anonymous),
	A(packed, a), A(packed, b), sizeof(struct packed),
	A(inner, kind), A(inner, number), sizeof(struct inner),
};
const volatile u32 limit = 42;
const volatile u8 mac[6] = { 2, 0, 0, 0, 0, 1 };
const volatile __be16 port = 0x5000;
static volatile const u64 hidden = 9;
u32 counter;
struct inner state;

union all {
	struct outer a; struct anonymous b; union either c; struct holder d; struct packed e; struct bits f;
	enum color g; enum sign h; enum wide i; enum deep j; struct empty k; alias l;
};
const union all *all SEC(".rodata");
struct { int (*type)[2]; int (*max_entries)[8]; u32 *key; struct inner *value; } table SEC(".maps");
struct { int (*type)[27]; int (*max_entries)[4096]; } ring SEC(".maps");
u64 use(void) { return limit + hidden + mac[1] + port; }
"""


def compiled(folder: Path, source: str, *flags: str) -> bytes:
    assert CLANG is not None
    (folder / "types.c").write_text(source)
    command = [CLANG, "-target", "bpf", "-mcpu=v3", "-O2", *flags, "-c", "types.c", "-o", "types.o"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "types.o").read_bytes()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(tmp_path_factory.mktemp("btf"), SOURCE, "-g")


@pytest.fixture(scope="module")
def btf(image: bytes) -> Btf:
    return Btf.of_object(image, "types.o")


def offsets(dtype: np.dtype[np.void]) -> list[int]:
    assert dtype.fields is not None
    assert dtype.names is not None
    return [dtype.fields[name][1] for name in dtype.names] + [dtype.itemsize]


def test_offsets_and_sizes_are_the_compilers(image: bytes, btf: Btf) -> None:
    section = Elf(image).section(".rodata.places")
    assert section is not None
    expected = np.frombuffer(section, np.uint64).tolist()
    found = [
        place for name in ("outer", "anonymous", "packed", "inner") for place in offsets(btf.struct(name))
    ]
    assert found == expected


def test_members_have_the_types_that_c_gave_them(btf: Btf) -> None:
    outer = btf.struct("outer")
    inner = btf.struct("inner")
    assert [outer[name] for name in outer.names or ()] == [
        np.dtype("u1"),
        inner,
        np.dtype((inner, (3,))),
        np.dtype(">u2"),
        np.dtype((">u4", (2,))),
        np.dtype("u8"),
        np.dtype("i1"),
        np.dtype("u1"),
        np.dtype("u4"),
        np.dtype("i4"),
        np.dtype("u8"),
        np.dtype(("u1", (2, 3))),
        np.dtype("f8"),
        np.dtype("u2"),
    ]


def test_network_order_members_take_plain_numbers(btf: Btf) -> None:
    row = np.zeros(1, btf.struct("outer"))
    row["port"] = 80
    assert row["port"][0] == 80
    place = btf.struct("outer").fields["port"][1]  # type: ignore[index]
    assert row.tobytes()[place : place + 2] == b"\0\x50"


def test_members_of_anonymous_unions_and_structs_stand_in_their_parent(btf: Btf) -> None:
    row = np.zeros(1, btf.struct("anonymous"))
    assert row.dtype.names == ("tag", "word", "bytes", "low", "high", "after")
    row["word"] = 0x01020304
    assert row["bytes"][0].tolist() == [4, 3, 2, 1]
    assert (row["low"][0], row["high"][0]) == (0x0304, 0x0102)


def test_a_named_union_nests_and_its_members_overlap(btf: Btf) -> None:
    row = np.zeros(1, btf.struct("holder"))
    row["either"]["half"]["number"] = 5
    assert row["either"]["whole"][0] == 5 << 32


def test_a_struct_without_a_name_is_found_by_its_typedef(btf: Btf) -> None:
    assert btf.struct("alias").names == ("x",)


def test_an_empty_struct_has_no_bytes(btf: Btf) -> None:
    assert btf.struct("empty").itemsize == 0


def test_bitfields_are_refused_by_name(btf: Btf) -> None:
    with pytest.raises(BtfError, match="'three' of struct bits is a bitfield of 3 bits"):
        btf.struct("bits")


def test_an_unknown_struct_is_a_key_error(btf: Btf) -> None:
    with pytest.raises(KeyError, match="no struct 'absent'"):
        btf.struct("absent")


def test_enums_have_signs_and_64_bits(btf: Btf) -> None:
    assert btf.enums["color"] == {"RED": 0, "GREEN": 7, "BLUE": 8}
    assert btf.enums["sign"] == {"MINUS": -3, "PLUS": 3}
    assert btf.enums["wide"] == {"HUGE": 1 << 40, "TOP": (1 << 64) - 1}
    assert btf.enums["deep"] == {"DEPTH": -(1 << 40)}


def test_an_enum_that_the_compiler_cut_is_refused(tmp_path: Path) -> None:
    source = SOURCE.replace("enum wide : unsigned long long", "enum wide : u64")
    with pytest.raises(BtfError, match="of the 64 bits of enum wide the compiler kept 32"):
        _ = Btf.of_object(compiled(tmp_path, source, "-g")).enums


def test_variables_lie_where_the_linker_put_them(image: bytes, btf: Btf) -> None:
    section = Elf(image).section(".rodata")
    assert section is not None

    def value(name: str) -> object:
        variable = btf.variables[name]
        assert variable.section == ".rodata"
        return np.frombuffer(section, variable.dtype, 1, variable.offset)[0].tolist()

    assert value("limit") == 42
    assert value("mac") == [2, 0, 0, 0, 0, 1]
    assert value("hidden") == 9
    assert value("port") == 0x0050  # 0x5000 as this machine stores it is port 80 on the wire
    assert (btf.variables["counter"].section, btf.variables["counter"].size) == (".bss", 4)
    assert btf.variables["state"].dtype == btf.struct("inner")


def test_maps_have_types(btf: Btf) -> None:
    assert btf.maps["table"].key == np.dtype("u4")
    assert btf.maps["table"].value == btf.struct("inner")
    assert btf.maps["ring"].key is None


def test_an_object_without_debug_information_says_so(tmp_path: Path) -> None:
    with pytest.raises(BtfError, match=r"no section \.BTF; compile it with -g"):
        Btf.of_object(compiled(tmp_path, SOURCE), "bare.o")


def test_other_files_are_refused(image: bytes) -> None:
    with pytest.raises(ElfError, match="not an ELF file"):
        Elf(b"#!/bin/sh")
    with pytest.raises(ElfError, match="compiled for machine 62"):
        Elf(image[:18] + b"\x3e\0" + image[20:])
    with pytest.raises(ElfError, match="cut off"):
        Elf(image[: len(image) // 2])


@pytest.mark.parametrize("keep", [4, 30, 200])
def test_damaged_types_are_refused(image: bytes, keep: int) -> None:
    section = Elf(image).section(".BTF")
    assert section is not None
    with pytest.raises(BtfError):
        Btf(section[:keep])
    with pytest.raises(BtfError, match="byte order or version"):
        Btf(b"\xeb\x9f" + section[2:])
