"""The reader of messages against dnspython's, on messages that it makes, and on broken ones."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.proxy.dns import message
from axoneme.proxy.dns.message import Malformed

LABELS = st.binary(min_size=1, max_size=12) | st.text("abcXYZ019-_", min_size=1, max_size=8).map(str.encode)
NAMES = st.lists(LABELS, max_size=5).map(lambda labels: dns.name.Name([*labels, b""]))
ADDRESSES = st.ip_addresses()


def key(name: dns.name.Name) -> bytes:
    """As the reader has names."""
    return name.to_wire().lower()  # type: ignore[union-attr]


@given(NAMES, st.sampled_from(["A", "AAAA", "TXT", "ANY", "TYPE65280"]), st.booleans(), st.booleans())
def test_a_query_is_read_as_it_was_meant(name: dns.name.Name, kind: str, edns: bool, dnssec: bool) -> None:
    made = dns.message.make_query(name, kind, use_edns=0 if edns else -1, want_dnssec=edns and dnssec)
    query = message.read_query(made.to_wire())
    assert query.name == key(name)
    assert query.qtype == dns.rdatatype.from_text(kind)
    assert (query.edns, query.dnssec) == (edns, edns and dnssec)


@given(NAMES)
def test_the_text_of_a_name_has_dots_only_between_labels(name: dns.name.Name) -> None:
    text = message.text(key(name))
    assert dns.name.from_text(text + ".") == name
    plain = text.replace("\\\\", "").replace("\\.", "")
    assert plain.count(".") == max(0, len(name.labels) - 2)


@given(NAMES, st.booleans(), st.sampled_from([message.REFUSED, message.NXDOMAIN, message.SERVFAIL]))
def test_a_refusal_answers_the_question(name: dns.name.Name, edns: bool, rcode: int) -> None:
    made = dns.message.make_query(name, "A", use_edns=0 if edns else -1, want_dnssec=edns)
    said = dns.message.from_wire(message.refusal(message.read_query(made.to_wire()), rcode, prohibited=True))
    assert made.is_response(said)
    assert said.rcode() == rcode
    assert said.edns == (0 if edns else -1)
    assert said.ednsflags == made.ednsflags
    assert said.flags & dns.flags.RD and said.flags & dns.flags.RA and not said.flags & dns.flags.AA
    errors = [each for each in said.options if isinstance(each, dns.edns.EDEOption)]
    assert [each.code for each in errors] == ([dns.edns.EDECode.PROHIBITED] if edns else [])


def test_a_refusal_repeats_the_name_as_it_was_written() -> None:
    made = dns.message.make_query("wWw.ExAmple.COM", "A")
    said = message.refusal(message.read_query(made.to_wire()), message.REFUSED)
    assert b"\x03wWw\x07ExAmple\x03COM\x00" in said


@given(
    st.lists(NAMES, min_size=1, max_size=5, unique=True),
    st.lists(st.tuples(ADDRESSES, st.integers(0, 2**31 - 1)), max_size=8, unique_by=lambda each: each[0]),
    st.lists(st.integers(0, 2**31 - 1), min_size=5, max_size=5),
    st.randoms(),
)
def test_an_answer_has_the_addresses_at_the_end_of_its_aliases(names, addresses, ttls, random) -> None:  # type: ignore[no-untyped-def]
    made = dns.message.make_response(dns.message.make_query(names[0], "ANY"))
    sets = [
        dns.rrset.from_text(name, ttl, "IN", "CNAME", target.to_text())
        for name, target, ttl in zip(names, names[1:], ttls, strict=False)
    ]
    limit = min(ttls[: len(sets)], default=2**31)
    for address, ttl in addresses:
        kind = "A" if address.version == 4 else "AAAA"
        sets.append(dns.rrset.from_text(names[-1], ttl, "IN", kind, str(address)))
    random.shuffle(sets)
    made.answer = sets
    query = message.read_query(made.to_wire()[:2] + dns.message.make_query(names[0], "ANY").to_wire()[2:])
    wire = made.to_wire()
    assert message.belongs(wire, query)
    answer = message.read_answer(wire, query)
    found = {ipaddress.ip_address(address): ttl for address, ttl in answer.addresses.items()}
    assert found == {address: min(ttl, limit) for address, ttl in addresses}
    assert answer.cnames == tuple(key(each) for each in names[1:])
    assert set(answer.rrtypes) == {each.rdtype for each in sets}


def response(question: str, *records: str) -> tuple[message.Query, bytes]:
    asked = dns.message.make_query(question, "A")
    made = dns.message.make_response(asked)
    for each in records:
        name, ttl, kind, data = each.split(maxsplit=3)
        made.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return message.read_query(asked.to_wire()), made.to_wire()


def test_addresses_of_others_than_the_name_asked_for_are_not_its() -> None:
    query, wire = response(
        "a.test.", "a.test. 5 A 192.0.2.1", "b.test. 5 A 192.0.2.2", "b.test. 5 CNAME a.test."
    )
    assert message.read_answer(wire, query).addresses == {"192.0.2.1": 5}


def test_a_circle_of_aliases_comes_to_an_end() -> None:
    query, wire = response("a.test.", "a.test. 5 CNAME b.test.", "b.test. 5 CNAME a.test.")
    assert message.read_answer(wire, query).addresses == {}


def test_a_ttl_with_its_highest_bit_set_is_none() -> None:
    """RFC 2181, section 8."""
    query, wire = response("a.test.", "a.test. 5 A 192.0.2.1")
    assert message.read_answer(wire.replace(struct.pack("!I", 5), b"\xff\xff\xff\xff"), query).addresses == {
        "192.0.2.1": 0
    }


def test_an_answer_that_says_that_it_is_cut_has_what_is_there() -> None:
    query, wire = response("a.test.", "a.test. 5 A 192.0.2.1", "a.test. 5 CNAME b.test.")
    cut = wire[:-3]
    with pytest.raises(Malformed):
        message.read_answer(cut, query)
    said = cut[:2] + bytes((cut[2] | 0x02,)) + cut[3:]
    assert message.read_answer(said, query).addresses == {"192.0.2.1": 5}


def test_names_that_point_at_each_other_are_none() -> None:
    query, wire = response("a.test.", "a.test. 5 CNAME b.test.")
    at = query.question_end
    owner = at + 12  # the target's place
    for pointer in (owner, owner + 2, len(wire) + 9):
        broken = wire[: at + 10] + b"\0\2" + struct.pack("!H", 0xC000 | pointer)
        with pytest.raises(Malformed):
            message.read_answer(broken, query)


def test_an_answer_belongs_to_its_question_only() -> None:
    query, wire = response("a.test.", "a.test. 5 A 192.0.2.1")
    other, _ = response("b.test.")
    assert message.belongs(wire, query)
    assert message.belongs(wire.replace(b"\1a\4test", b"\1A\4tEst"), query)
    assert not message.belongs(wire, other)
    assert not message.belongs(query.wire, query)
    assert not message.belongs(b"", query)
    nothing = wire[:4] + bytes(8)
    assert not message.belongs(nothing, query)
    assert message.belongs(nothing[:3] + bytes((message.FORMERR,)) + nothing[4:], query)


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda wire: wire[:11], None),
        (lambda wire: wire[:2] + b"\x80" + wire[3:], None),
        (lambda wire: wire[:2] + b"\x28" + wire[3:], message.NOTIMP),  # an update
        (lambda wire: wire[:4] + b"\0\0" + wire[6:], message.FORMERR),
        (lambda wire: wire[:4] + b"\0\2" + wire[6:], message.FORMERR),
        (lambda wire: wire[:-1], message.FORMERR),
        (lambda wire: wire + b"\0", message.FORMERR),
        (lambda wire: wire[:12] + b"\x40" + wire[13:], message.FORMERR),
        (lambda wire: wire[:12] + b"\xc0\x0c" + wire[14:], message.FORMERR),
        (lambda wire: wire[:6] + b"\0\1" + wire[8:], message.FORMERR),
    ],
)
def test_what_is_no_query_is_not_taken_for_one(change, rcode) -> None:  # type: ignore[no-untyped-def]
    wire = dns.message.make_query("a.test.", "A").to_wire()
    with pytest.raises(Malformed) as caught:
        message.read_query(change(wire))
    assert caught.value.rcode == rcode
    if rcode is not None:
        said = dns.message.from_wire(message.complaint(wire, rcode), ignore_trailing=True)
        assert said.rcode() == rcode


def test_a_name_longer_than_any_is_refused() -> None:
    wire = dns.message.make_query(".", "A").to_wire()
    long = wire[:12] + b"\x3f" * 1 + b"a" * 63 + b"".join(b"\x3f" + b"a" * 63 for _ in range(3)) + wire[12:]
    with pytest.raises(Malformed, match="255"):
        message.read_query(long)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    query, wire = response("a.test.", "a.test. 5 A 192.0.2.1")
    for attempt in (lambda: message.read_query(data), lambda: message.read_answer(wire[:12] + data, query)):
        with contextlib.suppress(Malformed):
            attempt()
