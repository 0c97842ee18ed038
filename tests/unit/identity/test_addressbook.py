from __future__ import annotations

from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.identity.addressbook import AddressBook, Flag, Record, Source
from axoneme.identity.arrays import entry_arrays, key_array, read_arrays
from axoneme.identity.prefixes import (
    Prefix,
    address_bytes,
    is_address,
    network_of,
    parse_address,
    parse_prefix,
    prefix_of,
    prefix_text,
)

KEY = np.dtype([("prefix_length", "<u4"), ("address", "u1", (16,))])
VALUE = np.dtype([("identity", "<u4"), ("flags", "<u4"), ("node", "u1", (16,))])
NODE = address_bytes("172.31.0.2")
NETWORKS = [
    ip_network(text)
    for text in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/64")
]
PREFIXES = list(map(prefix_of, NETWORKS))


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_prefix_is_its_network(address: object, bits: int) -> None:
    network = ip_network((address, min(bits, 32) if "." in str(address) else bits), strict=False)
    prefix = prefix_of(network)
    if network.version == 6 and network.network_address.ipv4_mapped:  # type: ignore[union-attr]
        return  # the tables have one place for both
    assert (network_of(prefix), prefix_text(prefix)) == (network, str(network))
    assert parse_prefix(str(network)) == prefix
    assert is_address(prefix) == (network.prefixlen == network.max_prefixlen)


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.1/33", "010.0.0.1", "1:", "a", "10.0.0.1\0", "\udc80", "٣.1.1.1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|IPv4|IPv6"):
        parse_prefix(text)
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


def test_a_table_of_records_and_back() -> None:
    table = {
        PREFIXES[1]: Record(2),
        PREFIXES[3]: Record(1234, NODE),
        PREFIXES[5]: Record(6, NODE, Flag.NODE | Flag.ROUTED),
    }
    keys, values = entry_arrays(table, KEY, VALUE)
    assert keys["prefix_length"].tolist() == [96 + 8, 128, 64]
    assert read_arrays(keys, values) == table
    assert np.array_equal(key_array(list(table), KEY), keys)
    assert read_arrays(np.zeros(0, KEY), np.zeros(0, VALUE)) == {}
    assert len(entry_arrays({}, KEY, VALUE)[0]) == 0


def test_who_knows_more_is_believed_and_the_others_are_not_forgotten() -> None:
    book = AddressBook()
    prefix = PREFIXES[3]
    book.say(Source.POLICY, "10.1.2.3/32", (prefix,), Record(1 << 24))
    book.say(Source.POD, "b", (prefix,), Record(300, NODE))
    book.say(Source.POD, "a", (prefix,), Record(400, NODE))
    assert book.changes() == ({prefix: Record(400, NODE)}, set())
    book.silence(Source.POD, "a")
    assert book.changes() == ({prefix: Record(300, NODE)}, set())
    book.say(Source.POD, "b", (), Record(300, NODE))
    assert book.changes() == ({prefix: Record(1 << 24)}, set())
    book.silence(Source.POLICY, "10.1.2.3/32")
    book.silence(Source.POLICY, "10.1.2.3/32")
    assert book.changes() == ({}, {prefix})
    assert len(book) == 0


def test_the_longest_prefix_is_found() -> None:
    book = AddressBook()
    for number, prefix in enumerate(PREFIXES):
        book.say(Source.POLICY, str(number), (prefix,), Record(number))

    def found(text: str) -> int | None:
        record = book.lookup(address_bytes(text))
        return record.identity if record else None

    asked = ("10.1.2.3", "10.1.2.4", "10.9.9.9", "9.9.9.9", "fd00::1", "fe80::1")
    assert list(map(found, asked)) == [3, 2, 1, 0, 5, 4]
    assert AddressBook().lookup(address_bytes("::1")) is None


def test_what_the_kernel_holds_is_put_right() -> None:
    book = AddressBook()
    book.say(Source.POD, "a", (PREFIXES[3],), Record(300, NODE))
    book.say(Source.NODE, "n", (PREFIXES[2],), Record(6, NODE, Flag.NODE))
    book.changes()
    held = {PREFIXES[3]: Record(301, NODE), PREFIXES[2]: Record(6, NODE, Flag.NODE), PREFIXES[1]: Record(2)}
    book.adopt(held)
    assert book.changes() == ({PREFIXES[3]: Record(300, NODE)}, {PREFIXES[1]})
    assert book.changes() == ({}, set())


SUBJECTS = st.tuples(st.sampled_from(Source), st.sampled_from("ab"))
SAID = st.tuples(SUBJECTS, st.lists(st.sampled_from(PREFIXES), max_size=3), st.integers(1, 3), st.booleans())
Said = tuple[tuple[Source, str], list[Prefix], int, bool]


@given(st.lists(SAID, max_size=30))
def test_the_table_is_a_function_of_what_was_said_last(
    said: list[tuple[tuple[Source, str], list[Prefix], int, bool]],
) -> None:
    book, kernel, last = (
        AddressBook(),
        dict[Prefix, Record](),
        dict[tuple[Source, str], tuple[list[Prefix], int]](),
    )
    for (source, subject), prefixes, identity, look in said:
        book.say(source, subject, tuple(prefixes), Record(identity))
        last[source, subject] = (prefixes, identity)
        if look:
            puts, deletes = book.changes()
            assert not deletes - kernel.keys() and all(kernel.get(p) != r for p, r in puts.items())
            kernel = {p: r for p, r in {**kernel, **puts}.items() if p not in deletes}
    puts, deletes = book.changes()
    kernel = {p: r for p, r in {**kernel, **puts}.items() if p not in deletes}
    expected: dict[Prefix, Record] = {}
    for _, (prefixes, identity) in sorted(last.items(), key=lambda item: item[0], reverse=True):
        expected |= dict.fromkeys(prefixes, Record(identity))
    assert kernel == expected == dict(book.items())
    assert all(ip_address(prefix[:16]) for prefix in kernel)
