"""Answers wait until their addresses are known; with an agent, without one, and with one that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from axoneme.model.l7 import NameMatch
from axoneme.proxy.dns.journal import Journal
from axoneme.proxy.dns.learning import Learner
from axoneme.proxy.dns.memory import Memory
from axoneme.proxy.names import Learn, Names, read_journal
from axoneme.rpc.errors import UNAVAILABLE, RpcError

NAMES = Names((NameMatch("a.test"), NameMatch("*.test", pattern=True)))
A, OTHER = b"\1a\4test\0", b"\1a\5other\0"


class Agent:
    """Takes one batch after the other when `gate` is open; raises `error` if there is one."""

    def __init__(self) -> None:
        self.told: list[Learn] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def learn(self, batch: Learn) -> None:
        await self.gate.wait()
        if self.error:
            raise self.error
        self.told.append(batch)

    def addresses(self) -> list[set[str]]:
        return [{a for answer in batch.answers for a in answer.addresses} for batch in self.told]


class Kernel:
    def __init__(self) -> None:
        self.assigned: list[tuple[list[str], frozenset[int]]] = []

    def use(self, names: Names) -> None: ...

    def assign(self, addresses: Iterable[str], selectors: frozenset[int]) -> int:
        self.assigned.append((list(addresses), selectors))
        return 1


class Trial:
    def __init__(self, folder: Path, hold: float) -> None:
        self.agent, self.kernel, self.memory = Agent(), Kernel(), Memory()
        self.path = folder / "learnt.jsonl"
        self.learner = Learner(self.agent, self.kernel, Journal(self.path), self.memory, hold)
        self.learner.use(NAMES)
        self.released: asyncio.Queue[str] = asyncio.Queue()

    def learn(self, *addresses: str, name: bytes = A, client: str = "10.0.0.1", ttl: int = 600) -> None:
        self.learner.learn(
            client, name, dict.fromkeys(addresses, ttl), lambda: self.released.put_nowait(addresses[0])
        )


@asynccontextmanager
async def trial(folder: Path, hold: float = 30.0) -> AsyncIterator[Trial]:
    made = Trial(folder, hold)
    async with asyncio.timeout(20):
        running = asyncio.create_task(made.learner.run())
        try:
            yield made
        finally:
            running.cancel()


async def test_an_answer_waits_for_the_agent_and_those_that_wait_go_together(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.agent.gate.clear()
        t.learn("192.0.2.1")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in range(2, 10):
            t.learn(f"192.0.2.{number}", name=b"\1b\4test\0", client=f"10.0.0.{number}")
        assert t.released.empty()
        t.agent.gate.set()
        assert [await t.released.get() for _ in range(9)] == [f"192.0.2.{n}" for n in range(1, 10)]
        assert len(t.agent.told) <= 2
        assert not t.kernel.assigned
        assert len(list(read_journal(t.path))) == 9


async def test_names_that_nobody_selects_do_not_wait(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.agent.gate.clear()
        t.learn("192.0.2.1", name=OTHER)
        assert t.released.get_nowait() == "192.0.2.1"
        assert not list(read_journal(t.path))


async def test_what_the_kernel_has_does_not_wait_again_and_other_clients_do(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.learn("192.0.2.1")
        await t.released.get()
        t.agent.gate.clear()
        t.learn("192.0.2.1", ttl=500)
        assert t.released.get_nowait() == "192.0.2.1"
        t.learn("192.0.2.1", client="10.0.0.2")
        assert t.released.empty()
        t.agent.gate.set()
        await t.released.get()


async def test_an_answer_that_lasts_longer_is_told_without_waiting(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.learn("192.0.2.1", ttl=60)
        await t.released.get()
        t.learn("192.0.2.1", ttl=600)
        assert t.released.get_nowait() == "192.0.2.1"
        t.learn("192.0.2.7", client="10.0.0.2")
        await t.released.get()
        told = [each for batch in t.agent.told for each in batch.answers if each.client == "10.0.0.1"]
        assert [each.addresses for each in told] == [{"192.0.2.1": 60}, {"192.0.2.1": 600}]


async def test_without_an_agent_the_kernel_is_told_and_the_next_agent_hears_of_all(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.agent.error = RpcError(UNAVAILABLE, "away")
        for number in range(1, 4):
            t.learn(f"192.0.2.{number}")
            assert await t.released.get() == f"192.0.2.{number}"
        assert t.kernel.assigned == [([f"192.0.2.{n}"], frozenset((0, 1))) for n in range(1, 4)]
        t.agent.error = None
        while not t.agent.told:  # tried again by itself
            await asyncio.sleep(0.01)
        assert t.agent.addresses() == [{"192.0.2.1", "192.0.2.2", "192.0.2.3"}]


async def test_an_agent_that_goes_leaves_nothing_sure(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.learn("192.0.2.1")
        await t.released.get()
        t.agent.error = ConnectionRefusedError()
        t.learn("192.0.2.2")
        await t.released.get()
        t.learn("192.0.2.1", ttl=500)
        assert await t.released.get() == "192.0.2.1"
        assert ["192.0.2.1"] in [addresses for addresses, _ in t.kernel.assigned]


async def test_an_agent_that_hangs_holds_answers_no_longer_than_the_limit(tmp_path: Path) -> None:
    async with trial(tmp_path, hold=0.02) as t:
        t.agent.gate.clear()
        t.learn("192.0.2.1")
        t.learn("192.0.2.2", name=b"\1b\4test\0")
        assert {await t.released.get(), await t.released.get()} == {"192.0.2.1", "192.0.2.2"}
        assert sorted(t.kernel.assigned) == [
            (["192.0.2.1"], frozenset((0, 1))),
            (["192.0.2.2"], frozenset((1,))),
        ]
        t.agent.gate.set()
        while set().union(*t.agent.addresses()) != {"192.0.2.1", "192.0.2.2"}:
            await asyncio.sleep(0.01)
        assert t.released.empty()  # once is enough


async def test_an_agent_that_refuses_holds_nothing(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.agent.error = RpcError(-32602, "no")
        t.learn("192.0.2.1")
        await t.released.get()
        t.agent.error = None
        t.learn("192.0.2.2")
        await t.released.get()
        assert t.agent.addresses() == [{"192.0.2.1", "192.0.2.2"}]


async def test_what_an_earlier_process_has_learnt_is_told_and_not_written_again(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.learn("192.0.2.1")
        await t.released.get()
    before = t.path.read_bytes()
    async with asyncio.timeout(20):
        memory, agent = Memory(), Agent()
        memory.load(read_journal(t.path))
        learner = Learner(agent, Kernel(), Journal(t.path), memory, 30.0)
        learner.use(NAMES)
        running = asyncio.create_task(learner.run())
        while not agent.told:
            await asyncio.sleep(0.01)
        running.cancel()
    assert agent.addresses() == [{"192.0.2.1"}]
    assert t.path.read_bytes().strip() == before.strip()


async def test_names_that_come_to_be_of_interest_are_told_with_what_was_heard(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.learn("192.0.2.1", name=OTHER)
        await t.released.get()
        t.learner.use(Names((*NAMES.selectors, NameMatch("a.other"))))
        while not t.agent.told:
            await asyncio.sleep(0.01)
        assert t.agent.addresses() == [{"192.0.2.1"}]
        assert [each.name for each in read_journal(t.path)] == ["a.other"]
