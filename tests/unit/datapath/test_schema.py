"""The schema of several objects."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from axoneme.datapath.btf import Btf
from axoneme.datapath.schema import Schema, SchemaError
from axoneme.datapath.sharing import layout_change

from .test_btf import compiled

pytestmark = pytest.mark.skipif(
    shutil.which("clang-19") is None and shutil.which("clang") is None, reason="needs clang"
)

Make = Callable[[str], Btf]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda members: Btf.of_object(
        compiled(
            tmp_path, f"union all {{ {members} }}; union all *all; int use(void) {{ return !all; }}", "-g"
        )
    )


def test_objects_complete_each_other(make: Make) -> None:
    first = make("struct one { int a; } one; enum color { RED } color;")
    second = make("struct one { int a; } one; struct two { char b; } two; struct bits { int c : 3; } bits;")
    schema = Schema([("a.o", first), ("b.o", second)])
    assert schema.struct("one").names == ("a",)
    assert schema.struct("two").itemsize == 1
    assert schema.enum("color") == {"RED": 0}
    with pytest.raises(KeyError, match="no struct 'bits' in the schema; it has all, one, two"):
        schema.struct("bits")
    with pytest.raises(KeyError, match="no enum 'colour' in the schema; it has color"):
        schema.enum("colour")


def test_the_objects_of_a_folder_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="holds no compiled objects"):
        Schema.load(tmp_path)
    compiled(tmp_path, "struct one { int a; }; struct one one;", "-g")
    assert Schema.load(tmp_path).struct("one").names == ("a",)


@pytest.mark.parametrize(
    "other", ["struct one { short a; } one;", "struct one { int b; } one;", "enum color { RED = 2 } color;"]
)
def test_objects_that_contradict_each_other_are_refused(make: Make, other: str) -> None:
    first = make("struct one { int a; } one; enum color { RED } color;")
    with pytest.raises(SchemaError, match=r"in a\.o but .* in b\.o: the objects were not built together"):
        Schema([("a.o", first), ("b.o", make(other))])


@pytest.mark.parametrize(
    ("held", "needed", "words"),
    [
        ([("a", "u4")], [("a", "u4")], None),
        ([("a", "u4")], [("a", "i4")], "value.a is uint32, needed int32"),
        ([("a", "u4")], [("b", "u4")], "value.a is not in it any more"),
        ([("a", "u4")], [("a", "u4"), ("b", "u4")], "value.b is missing"),
        ([("a", "u4"), ("b", "u4")], [("b", "u4"), ("a", "u4")], "value.b is at byte 4, needed at 0"),
        ([("a", [("b", "u2")])], [("a", [("b", "u4")])], "value.a.b is uint16, needed uint32"),
    ],
)
def test_layouts_are_compared_in_words(held: object, needed: object, words: str | None) -> None:
    assert layout_change(np.dtype(held), np.dtype(needed), "value") == words  # type: ignore[call-overload]
