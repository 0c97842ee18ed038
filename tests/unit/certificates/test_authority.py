"""The authority: what it signs is believed, before and after it has got a new key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from axoneme.certificates import examine, making
from axoneme.certificates.asking import prepare
from axoneme.certificates.authority import DAY, Authority, read_root
from axoneme.certificates.files import CertificateError, Files, write
from axoneme.certificates.names import hubble_name, parse_spiffe_id, spiffe_id
from axoneme.certificates.state import Request
from axoneme.model.state import decode

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Node:
    """A node's files, and the authority's answers to its request."""

    def __init__(self, authority: Authority, folder: Path, name: str = "node1") -> None:
        self.authority, self.folder, self.name = authority, folder, name
        prepare(folder, name, ())
        request = decode((folder / "node.request").read_bytes(), Request, "node")
        self.key = making.requested(request.csr.encode())
        self.files = Files.in_directory(folder)

    def certify(self) -> None:
        chain, _ = self.authority.certify_node(self.name, self.key, ["172.31.0.1"])
        write(self.files.certificate, chain, 0o644)

    def hear(self) -> None:
        write(self.files.authority, self.authority.public().bundle.encode(), 0o644)

    def problems(self, now: float, name: str = "node1.default.hubble-grpc.cilium.io") -> list[str]:
        return list(map(str, examine.problems(self.files, name, now)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    made = Authority(tmp_path / "ca", clock)
    made.init("default")
    return made


@pytest.fixture
def node(authority: Authority, tmp_path: Path) -> Node:
    made = Node(authority, tmp_path / "state")
    made.certify()
    made.hear()
    return made


def test_a_nodes_certificate_is_good_until_it_ends(node: Node) -> None:
    assert node.problems(NOW + 89 * DAY) == []
    (problem,) = node.problems(NOW + 91 * DAY)
    assert "node.crt: notAfter: it has ended on 2027-04-15" in problem


@pytest.mark.parametrize("file", ["authority.json", "issued.json"])
def test_only_its_holder_can_read_an_authority(node: Node, file: str) -> None:
    folder = node.authority.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / file).stat().st_mode) == 0o600
    assert stat.S_IMODE((node.folder / "node.key").stat().st_mode) == 0o600
    assert node.authority.problems() == []
    (node.folder / "node.key").chmod(0o644)
    assert node.problems(NOW) == [
        f"{node.files.key}: mode: anybody on this machine can read the key: chmod 0600 {node.files.key}"
    ]
    (folder / "authority.json").chmod(0o644)
    assert "chmod go=" in node.authority.problems()[0]


def test_new_certificates_are_good_for_who_knows_the_old_authority_and_old_ones_for_who_knows_the_new(
    node: Node, tmp_path: Path, clock: Clock
) -> None:
    other = Node(node.authority, tmp_path / "other", "node2")
    other.certify()
    other.hear()
    for _ in range(2):  # rotated twice before anybody heard of it
        clock.now += 60
        node.authority.rotate()
    node.certify()
    assert node.problems(clock.now) == []  # by the old ca.crt
    other.hear()
    assert other.problems(clock.now, "") == []  # the old certificate by the new ca.crt
    assert len(node.authority.roots()) == 3


def test_an_old_authority_is_trusted_until_all_that_it_has_signed_has_ended(node: Node, clock: Clock) -> None:
    node.authority.rotate()
    clock.now += 89 * DAY
    assert node.authority.public().bundle.count("BEGIN") == 2
    clock.now += 2 * DAY
    assert node.authority.public().bundle.count("BEGIN") == 1
    node.certify()
    node.hear()
    assert node.problems(clock.now) == []


def test_what_was_made_by_hand_to_hold_longer_is_good_to_its_end(node: Node, clock: Clock) -> None:
    node.authority.issue("prometheus", [], [], days=365)
    node.authority.rotate()
    clock.now += 364 * DAY
    assert node.authority.public().bundle.count("BEGIN") == 2
    clock.now += 2 * DAY
    assert node.authority.public().bundle.count("BEGIN") == 1


def test_what_a_stolen_key_has_signed_is_good_no_longer(node: Node) -> None:
    node.authority.rotate(at_once=True)
    node.hear()
    (problem,) = node.problems(NOW)
    assert "node.crt: issuer:" in problem
    assert "is not among the authorities of" in problem
    node.certify()
    assert node.problems(NOW) == []


def test_a_node_is_known_by_its_key_until_it_is_forgotten(node: Node, tmp_path: Path) -> None:
    impostor = Node(node.authority, tmp_path / "impostor", "node1")
    with pytest.raises(CertificateError, match="it asks with another key than it is known by"):
        impostor.certify()
    node.certify()  # the true one can still
    assert node.authority.forget("node1")
    assert not node.authority.forget("node1")
    impostor.certify()
    with pytest.raises(CertificateError):
        node.certify()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("*", "no DNS name"),
        ("*.default", "no DNS name"),
        ("a..b/c", "no DNS name"),
        ("node1.default.hubble-grpc.cilium.io", "names below hubble-grpc.cilium.io"),
        ("node1.default.Node.axoneme.io", "names below"),
        ("node.a", "called as node node-a is"),
        ("NODE-a", "called as node node-a is"),
    ],
)
def test_no_name_of_a_node_stands_for_another(authority: Authority, name: str, said: str) -> None:
    key = making.new_key().public_key()
    authority.certify_node("node-a", key, [])
    authority.certify_node("node-a", key, [])
    with pytest.raises(CertificateError, match=said):
        authority.certify_node(name, making.new_key().public_key(), [])
    assert list(authority.journal().nodes) == ["node-a"]


def test_wrong_names_and_keys_are_named(node: Node, tmp_path: Path) -> None:
    (problem,) = node.problems(NOW, hubble_name("node9", "default"))
    assert "subjectAltName: node1, node1.default.hubble-grpc.cilium.io" in problem
    assert "instead of node9.default.hubble-grpc.cilium.io" in problem
    other = Node(node.authority, tmp_path / "other", "node2")
    (node.folder / "node.key").write_bytes((other.folder / "node.key").read_bytes())
    (problem,) = node.problems(NOW)
    assert "node.key: it is not the key of" in problem
    (node.folder / "node.crt").unlink()
    (problem,) = node.problems(NOW)
    assert "node.crt: No such file or directory: `axo ca init`" in problem


def test_certificates_by_hand(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("prom", ["prom.example.com"], ["192.0.2.1"], 30)
    files = Files(tmp_path / "prom.crt", tmp_path / "prom.key", authority.folder / "ca.crt")
    write(files.certificate, chain, 0o644)
    write(files.key, key, 0o600)
    assert list(examine.problems(files, "prom.example.com", NOW)) == []
    assert [each.name for each in authority.journal().others] == ["prom"]
    for name, dns, address, said in (
        ("../prom", [], [], "for files. names"),
        ("prom", ["a b"], [], "'a b' is no DNS name"),
        ("prom", [], ["prom.example.com"], "goes with --dns"),
    ):
        with pytest.raises(CertificateError, match=said):
            authority.issue(name, dns, address, 30)


def test_a_root_of_ones_own(authority: Authority, tmp_path: Path, clock: Clock) -> None:
    key = making.new_key()
    root = making.new_root("ours", key, NOW, NOW + 100 * DAY)
    (tmp_path / "root.crt").write_bytes(making.pem([root]))
    (tmp_path / "root.key").write_bytes(making.key_pem(key))
    other = Authority(tmp_path / "other", clock)
    other.init("default", root=read_root(tmp_path / "root.crt", tmp_path / "root.key"))
    assert other.public().current == making.fingerprint(root)
    with pytest.raises(CertificateError, match="axo ca rotate"):
        other.init("default")
    (tmp_path / "root.key").write_bytes(making.key_pem(making.new_key()))
    with pytest.raises(CertificateError, match="it is not the key of"):
        read_root(tmp_path / "root.crt", tmp_path / "root.key")
    chain, leaf_key = authority.issue("leaf", [], [], 1)
    (tmp_path / "root.crt").write_bytes(chain)
    (tmp_path / "root.key").write_bytes(leaf_key)
    with pytest.raises(CertificateError, match="basicConstraints"):
        read_root(tmp_path / "root.crt", tmp_path / "root.key")


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://a/identity/0",
        "spiffe://a/identity/1/",
        "spiffe://A/identity/1",
        "spiffe://a/ns/x",
        "https://a",
    ],
)
def test_what_is_no_identitys_name(text: str) -> None:
    with pytest.raises(ValueError, match="identity/NUMBER"):
        parse_spiffe_id(text)


def test_names() -> None:
    assert hubble_name("node.a.io", "east.1") == "node-a-io.east-1.hubble-grpc.cilium.io"
    assert parse_spiffe_id(spiffe_id("spiffe.cilium", 4711)) == ("spiffe.cilium", 4711)
