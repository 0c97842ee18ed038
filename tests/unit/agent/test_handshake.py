"""Two ends prove to each other who they are, and nobody else gets through."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from axoneme.agent import handshake
from axoneme.agent.handshake import Answerer, Contexts, HandshakeError, Proof, Refused, prove
from axoneme.certificates import making
from axoneme.certificates.authority import Authority
from axoneme.certificates.files import write
from axoneme.certificates.state import AuthorityState

CLIENT, SERVER, OTHER = 1000, 2000, 3000
NODE1 = "node1.default.node.axoneme.io"


class Side:
    """A node's folder of certificates."""

    def __init__(self, folder: Path, node: str, trusted: Authority) -> None:
        self.folder, self.node = folder, node
        folder.mkdir()
        write(folder / "ca.crt", trusted.public().bundle.encode(), 0o644)
        self.contexts = Contexts(folder)

    def speak_for(self, identity: int, authority: Authority, says: int = 0, node: str = "") -> None:
        """``says``: another identity that the certificate is for."""
        key = making.new_key()
        chain, _ = authority.certify_identity(node or self.node, says or identity, key.public_key())
        write(self.folder / f"identity-{identity}.key", making.key_pem(key), 0o600)
        write(self.folder / f"identity-{identity}.crt", chain, 0o644)


class Stage:
    """`client` on node1 speaks for CLIENT, `server` on node2 for SERVER."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = self.another("ca")
        self.client = Side(folder / "node1", "node1", self.authority)
        self.server = Side(folder / "node2", "node2", self.authority)
        self.client.speak_for(CLIENT, self.authority)
        self.server.speak_for(SERVER, self.authority)
        self.heard: list[tuple[int, Proof]] = []

    def another(self, name: str, now: Callable[[], float] | None = None) -> Authority:
        made = Authority(self.folder / name, *([now] if now else []))
        made.init("default")
        return made

    def play(self, peer: int = SERVER, node: str = "node2", address: str = "127.0.0.1") -> Proof:
        async def both() -> Proof:
            public: AuthorityState = self.authority.public()
            answerer = Answerer(
                self.server.contexts,
                lambda: public,
                lambda identity: identity in (SERVER, OTHER),
                lambda identity, proof: self.heard.append((identity, proof)),
            )
            with socket.create_server(("127.0.0.1", 0)) as free:
                port: int = free.getsockname()[1]
            serving = asyncio.ensure_future(answerer.serve(port))
            try:
                while True:
                    try:
                        found = await prove(self.client.contexts, public, CLIENT, peer, node, address, port)
                    except HandshakeError as error:
                        if isinstance(error.__cause__, ConnectionRefusedError):  # it does not listen yet
                            await asyncio.sleep(0.01)
                            continue
                        raise
                    while not self.heard:
                        await asyncio.sleep(0.01)
                    return found
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

        return asyncio.run(both())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_both_ends_learn_who_the_other_is(stage: Stage) -> None:
    found = stage.play()
    assert (found.identity, found.node) == (SERVER, "node2.default.node.axoneme.io")
    ((spoken_for, proof),) = stage.heard
    assert (spoken_for, proof.identity, proof.node) == (SERVER, CLIENT, NODE1)


def test_a_rogue_server_is_not_believed(stage: Stage) -> None:
    stage.server.speak_for(SERVER, stage.another("rogue"))
    with pytest.raises(Refused, match="certificate"):
        stage.play()
    assert not stage.heard


def test_a_rogue_client_is_not_believed(stage: Stage) -> None:
    stage.client.speak_for(CLIENT, stage.another("rogue"))
    with pytest.raises(HandshakeError):
        stage.play()
    assert not stage.heard


def test_certificates_that_have_ended_prove_nothing(stage: Stage) -> None:
    def long_ago() -> float:
        return 1_700_000_000.0

    old = Authority(stage.authority.folder, long_ago)
    stage.server.speak_for(SERVER, old)
    with pytest.raises(Refused, match="expired"):
        stage.play()
    stage.server.speak_for(SERVER, stage.authority)
    stage.server.contexts.forget()
    stage.client.speak_for(CLIENT, old)
    stage.client.contexts.forget()
    with pytest.raises(HandshakeError):
        stage.play()
    assert not stage.heard


def test_who_speaks_for_another_identity_is_refused(stage: Stage) -> None:
    stage.server.speak_for(SERVER, stage.authority, says=OTHER)
    with pytest.raises(Refused, match=f"the certificate is for identity {OTHER}"):
        stage.play()


def test_another_node_with_a_pod_of_the_identity_cannot_answer_for_this_one(stage: Stage) -> None:
    stage.server.speak_for(SERVER, stage.authority, node="node9")
    with pytest.raises(Refused, match="that of another node, node9"):
        stage.play()


def test_a_nodes_own_certificate_speaks_for_no_identity(stage: Stage) -> None:
    key = making.new_key()
    chain, _ = stage.authority.certify_node("node2", key.public_key(), [])
    write(stage.server.folder / f"identity-{SERVER}.key", making.key_pem(key), 0o600)
    write(stage.server.folder / f"identity-{SERVER}.crt", chain, 0o644)
    with pytest.raises(Refused, match="speaks for no identity"):
        stage.play()


def test_an_identity_that_the_other_node_has_not_is_no_answer(stage: Stage) -> None:
    with pytest.raises(HandshakeError) as found:
        stage.play(peer=4000)
    assert not isinstance(found.value, Refused)


def test_who_says_nothing_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PATIENCE", 0.2)

    async def deaf() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            public = stage.authority.public()
            with pytest.raises(HandshakeError, match="no answer"):
                await prove(stage.client.contexts, public, CLIENT, SERVER, "node2", "127.0.0.1", port)

    asyncio.run(deaf())


def test_who_holds_connections_open_holds_a_few_and_keeps_nobody_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "PATIENCE", 60.0)
    many, few = 200, handshake._OF_ONE

    async def flooded() -> None:
        public = stage.authority.public()
        heard = asyncio.Event()
        answerer = Answerer(stage.server.contexts, lambda: public, bool, lambda *_: heard.set())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serving = asyncio.ensure_future(answerer.serve(port))
        async with asyncio.timeout(30):
            held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
            while len(held) < many:
                try:
                    one = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
                    held.append(one)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
            gone = [asyncio.ensure_future(reader.read(1)) for reader, _ in held]
            while sum(each.done() for each in gone) < many - few:
                await asyncio.sleep(0.01)
            assert not all(each.done() for each in gone)
            await prove(stage.client.contexts, public, CLIENT, SERVER, "node2", "127.0.0.1", port)
            await heard.wait()
        for _, writer in held:
            writer.transport.abort()
        for each in (serving, *gone):
            each.cancel()
        await asyncio.gather(serving, *gone, return_exceptions=True)

    asyncio.run(flooded())


def test_a_trust_domain_that_is_no_servers_name_is_a_failure_and_not_the_end(stage: Stage) -> None:
    async def play() -> None:
        public = msgspec.structs.replace(stage.authority.public(), trust_domain="a" * 64)
        with socket.create_server(("127.0.0.1", 0)) as free, pytest.raises(HandshakeError, match="label"):
            port = free.getsockname()[1]
            await prove(stage.client.contexts, public, CLIENT, SERVER, "node2", "127.0.0.1", port)

    asyncio.run(play())


def test_what_goes_wrong_with_one_keeps_no_other_from_an_answer(stage: Stage) -> None:
    async def play() -> None:
        public = stage.authority.public()
        heard: list[Proof] = []

        def hear(_: int, proof: Proof) -> None:
            heard.append(proof)
            if len(heard) == 1:
                raise KeyError("something that nobody thought of")

        answerer = Answerer(stage.server.contexts, lambda: public, bool, hear)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serving = asyncio.ensure_future(answerer.serve(port))
        async with asyncio.timeout(30):
            while len(heard) < 2:
                try:
                    await prove(stage.client.contexts, public, CLIENT, SERVER, "node2", "127.0.0.1", port)
                except HandshakeError as error:
                    assert isinstance(error.__cause__, ConnectionRefusedError) and not heard, error
                await asyncio.sleep(0.01)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(play())


def test_who_proves_nothing_may_not_try_again_and_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "_PAUSE", 60.0)

    async def play() -> None:
        public = stage.authority.public()
        answerer = Answerer(stage.server.contexts, lambda: public, bool, lambda *_: None)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serving = asyncio.ensure_future(answerer.serve(port))
        nobody = ssl.create_default_context(cafile=str(stage.server.folder / "ca.crt"))
        nobody.check_hostname = False
        shaken = hung_up = 0
        async with asyncio.timeout(30):
            while not hung_up:
                try:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", port, ssl=nobody, server_hostname=handshake.server_name(SERVER, public)
                    )
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
                except (ConnectionError, ssl.SSLError):
                    hung_up += 1
                else:
                    shaken += 1
                    writer.transport.abort()
        assert shaken == handshake._OF_ONE
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(play())
