"""Addresses as Hubble's programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from axoneme.hubble.address import Address, AddressError


@pytest.mark.parametrize(
    ("text", "address", "local"),
    [
        ("unix:///run/axoneme/hubble.sock", Address(path=Path("/run/axoneme/hubble.sock")), True),
        ("unix:hubble.sock", Address(path=Path("hubble.sock")), True),
        ("localhost:4245", Address("localhost", 4245), True),
        ("[::1]:4244", Address("::1", 4244), True),
        ("tcp://127.0.0.1:4244", Address("127.0.0.1", 4244), True),
        ("tls://relay.example:443", Address("relay.example", 443, tls=True), False),
        ("10.0.0.1:4244", Address("10.0.0.1", 4244), False),
        (":4244", Address("", 4244), False),
    ],
)
def test_what_is_an_address(text: str, address: Address, local: bool) -> None:
    assert Address.parse(text) == address
    assert address.local is local
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "unix:", "localhost", "host:70000", "http://host:80", "::1:4244"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(AddressError, match="give unix:///PATH"):
        Address.parse(text)
