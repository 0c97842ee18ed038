"""`axo ca`: an authority in a directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from axoneme.certificates import making
from axoneme.certificates.authority import Authority

from .conftest import Axo


@pytest.fixture
def ca(axo: Axo, tmp_path: Path) -> Path:
    folder = tmp_path / "ca"
    made = axo("ca", "init", "--directory", str(folder), "--cluster", "east", "--days", "30")
    assert made.code == 0, made.err
    return folder


def test_an_authority_is_made_once(axo: Axo, ca: Path) -> None:
    again = axo("ca", "init", "--directory", str(ca))
    assert again.code == 1
    assert "there is an authority already: `axo ca rotate`" in again.err
    elsewhere = axo("ca", "show", "--directory", str(ca.parent / "elsewhere"))
    assert elsewhere.code == 1
    assert "there is no authority: `axo ca init` makes one" in elsewhere.err


def test_what_it_has_done_is_shown(axo: Axo, ca: Path, tmp_path: Path) -> None:
    out = tmp_path / "certs"
    assert axo("ca", "issue", "prom", "--dns", "prom.io", "--out", str(out), "--directory", str(ca)).code == 0
    assert {each.name: stat.S_IMODE(each.stat().st_mode) for each in out.iterdir()} == {
        "prom.crt": 0o644,
        "prom.key": 0o600,
        "ca.crt": 0o644,
    }
    Authority(ca).certify_node("node1", making.new_key().public_key(), [])
    shown = axo("ca", "show", "--directory", str(ca))
    assert shown.lines[0] == f"cluster east, trust domain spiffe.cilium, {ca}"
    assert [cells[:2] for cells in shown.cells[-2:]] == [["node1", "node"], ["prom", "by"]]


def test_rotation_keeps_the_old_authority_and_now_does_not(axo: Axo, ca: Path) -> None:
    assert "still trusted: 1" in axo("ca", "rotate", "--directory", str(ca)).out
    assert (ca / "ca.crt").read_text().count("BEGIN") == 2
    assert "still trusted: 0" in axo("ca", "rotate", "--now", "--directory", str(ca)).out
    assert (ca / "ca.crt").read_text().count("BEGIN") == 1


def test_who_is_not_known_cannot_be_forgotten(axo: Axo, ca: Path) -> None:
    found = axo("ca", "forget", "node9", "--directory", str(ca))
    assert (found.code, "node node9: it has no certificate" in found.err) == (1, True)
    Authority(ca).certify_node("node1", making.new_key().public_key(), [])
    assert axo("ca", "forget", "node1", "--directory", str(ca)).code == 0
