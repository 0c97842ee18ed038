"""Records of one layout as records of another, by the names of their fields."""

from __future__ import annotations

import numpy as np

from axoneme.datapath.migration import convert

OLD = np.dtype(
    [
        ("state", "u1"),
        ("port", ">u2"),
        ("gone", "<u4"),
        ("large", "<u4"),
        ("mac", "u1", (6,)),
        ("leg", np.dtype([("packets", "<u4"), ("hook", "<u4")]), (2,)),
        ("was_struct", np.dtype([("a", "<u4")])),
    ]
)
NEW = np.dtype(
    {
        "names": ["leg", "added", "mac", "port", "state", "large", "was_struct"],
        "formats": [
            (np.dtype([("hook", "<u4"), ("bytes", "<u8"), ("packets", "<u8")]), (2,)),
            "<u4",
            ("u1", (8,)),
            "<u2",
            "<u4",
            "u1",
            "<u4",
        ],
        "offsets": [0, 48, 52, 60, 64, 68, 72],
        "itemsize": 80,
    }
)


def rows() -> np.ndarray:
    made = np.zeros(2, OLD)
    made["state"], made["port"], made["gone"], made["large"] = [1, 2], 443, 7, [5, 70000]
    made["mac"] = [1, 2, 3, 4, 5, 6]
    made["leg"]["packets"], made["leg"]["hook"] = [[10, 11], [20, 21]], 9
    return made


def test_fields_keep_their_values_wherever_they_stand() -> None:
    new = convert(rows(), NEW)
    assert new["state"].tolist() == [1, 2]
    assert new["port"].tolist() == [443, 443], "the value, not its bytes"
    assert new["leg"]["packets"].tolist() == [[10, 11], [20, 21]]
    assert new["leg"]["hook"].tolist() == [[9, 9], [9, 9]]


def test_what_is_new_is_zero_and_what_is_too_large_stops_at_the_limit() -> None:
    new = convert(rows(), NEW)
    assert not new["added"].any()
    assert not new["leg"]["bytes"].any()
    assert new["large"].tolist() == [5, 255]
    assert new["mac"].tolist() == [[1, 2, 3, 4, 5, 6, 0, 0]] * 2


def test_a_struct_that_became_a_number_means_nothing() -> None:
    old = rows()
    old["was_struct"]["a"] = 3
    assert not convert(old, NEW)["was_struct"].any()


def test_back_again_is_the_same_but_for_what_the_other_did_not_have() -> None:
    back = convert(convert(rows(), NEW), OLD)
    wanted = rows()
    wanted["gone"], wanted["large"] = 0, [5, 255]
    assert (back == wanted).all()


def test_one_layout_is_left_alone() -> None:
    made = rows()
    assert convert(made, OLD) is made
