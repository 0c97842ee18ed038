"""What stands in the table of proofs, and what becomes of it; the kernel and other nodes are made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from axoneme.agent import authentication
from axoneme.agent.authentication import Authentication, Pair
from axoneme.agent.handshake import HandshakeError, Proof
from axoneme.certificates.state import AuthorityState, Issued
from axoneme.datapath.schema import Schema

from .fakes import FakeTable

HERE, THERE, PEERS = 1000, 2000, 3000
NODE = bytes(15) + b"\x02"


class World:
    """A node with pods of `HERE`, whose policy asks for proofs; ``answers``: whether the other node does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        schema = Schema.load()
        kinds = schema.struct("authentication_key"), schema.struct("authentication")
        self.authenticated = FakeTable(*kinds)
        self.raised: set[int] = set()
        # Of Control, and of its engine.
        self.engine = self
        self.authenticates = True
        # Of Keeper.
        self.folder = folder
        self.authority = AuthorityState("default", "spiffe.cilium", bundle("old"), "old")
        self.certificate = Issued("", "chain", time.time(), time.time() + 3600)
        self.looked = 0
        self.answers = True
        self.asked: list[int] = []
        self.problems: dict[str, str] = {}
        (folder / "ca.crt").write_text(self.authority.bundle)
        monkeypatch.setattr(authentication, "prove", self.prove)
        monkeypatch.setattr(authentication.Authentication, "_listen", nothing)
        whole: Any = self
        self.tried = Authentication("node1", whole, lambda: whole, whole, lambda: [HERE], 4250, self.problems)

    def trust(self, *names: str) -> None:
        self.authority = AuthorityState("default", "spiffe.cilium", bundle(*names), names[0])
        self.tried.certificates_changed()

    async def prove(self, _contexts: Any, _authority: Any, _subject: int, peer: int, *_: Any) -> Proof:
        self.asked.append(peer)
        if not self.answers:
            raise HandshakeError("no answer")
        return Proof(peer, "node2.default.node.axoneme.io", time.time() + 3600)

    def miss(self, peer: int) -> None:
        """As the datapath does it."""
        key, value = np.zeros(1, self.authenticated.key), np.zeros(1, self.authenticated.value)
        key["subject"], key["peer"], key["node"] = HERE, peer, np.frombuffer(NODE, np.uint8)
        self.authenticated.write(key, value)

    def proved(self) -> set[int]:
        keys, values = self.authenticated.read_all()
        return {int(key["peer"]) for key in keys[values["until"] > 0]} if len(keys) else set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.01)

    def play(self, story: Callable[[], Any]) -> None:
        async def played() -> None:
            running = asyncio.ensure_future(self.tried.run())
            try:
                await story()
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

        asyncio.run(played())

    # ---- what stands for others ----

    def raise_subjects(self, identities: Iterable[int]) -> None:
        self.raised |= set(identities)

    def asks_proof(self, _subject: int, _peer: int) -> bool:
        return True

    def is_on(self, _identity: int, address: bytes) -> bool:
        return address == NODE

    def node_at(self, _address: bytes) -> str:
        return "node2"

    def nodes(self) -> list[tuple[str, bytes]]:
        return [("node2", NODE)]

    def need(self, _identities: Iterable[int]) -> None:
        pass

    def held(self, _identity: int) -> Issued:
        self.looked += 1
        return self.certificate


def bundle(*names: str) -> str:
    return "".join(f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n" for name in names)


async def nothing(_: Authentication) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_what_the_datapath_misses_is_proved(world: World) -> None:
    async def story() -> None:
        world.miss(THERE)
        await world.until(lambda: world.proved() == {THERE})

    world.play(story)


def test_who_does_not_answer_keeps_what_was_proved_while_all_are_trusted_who_were(world: World) -> None:
    async def story() -> None:
        world.miss(THERE)
        await world.until(world.proved)
        world.answers = False
        world.trust("new", "old")  # axo ca rotate
        world.tried._rests.clear()
        asked = len(world.asked)
        await world.until(lambda: len(world.asked) > asked and not world.tried._working)
        assert world.proved() == {THERE} and not world.raised

    world.play(story)


def test_who_does_not_answer_proves_nothing_by_an_authority_that_is_trusted_no_longer(world: World) -> None:
    async def story() -> None:
        world.miss(THERE)
        await world.until(world.proved)
        world.answers = False
        world.tried._rests.clear()
        world.trust("new")  # axo ca rotate --now
        await world.until(lambda: not world.proved())
        assert world.raised == {HERE}

    world.play(story)


def test_also_when_that_has_happened_while_there_was_no_agent(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(0)
        world.trust("new")
        await world.until(lambda: not world.proved())

    world.miss(THERE)
    key, value = world.authenticated.read_all()
    value = value.copy()
    value["until"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    world.authenticated.write(key, value)
    world.answers = False
    world.play(story)


def test_many_proofs_cost_nothing_from_look_to_look(world: World) -> None:
    """Certificates' files are looked at by identity and second, not by pair and look."""

    async def story() -> None:
        for peer in range(PEERS, PEERS + 500):
            world.miss(peer)
        await world.until(lambda: len(world.proved()) == 500)
        looked, rounds = world.looked, 0
        before = world.tried._pairs
        while rounds < 2:  # two whole looks
            await asyncio.sleep(0.01)
            if world.tried._pairs is not before:
                before, rounds = world.tried._pairs, rounds + 1
        assert world.looked - looked <= 3
        assert all(isinstance(pair, Pair) for pair in before)

    world.play(story)
