"""Agents that ask, a signer that answers, and what stands in between: a store."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from axoneme.certificates import making
from axoneme.certificates.authority import Authority
from axoneme.certificates.files import CertificateError, Credentials, Files
from axoneme.certificates.keeper import Keeper
from axoneme.certificates.signer import Signer
from axoneme.certificates.state import ISSUED, Request, identity_subject, request_key
from axoneme.model.state import EndpointState, NodeState, encode, endpoint_key, node_key
from axoneme.model.state import encode as encode_state
from axoneme.sources.sqlite import SqliteStore


class Cluster:
    """A store with two nodes, of which `node1` has a pod of identity 1000."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / "store.db")
        self.authority = Authority(folder / "ca")
        self.problems: dict[str, dict[str, str]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        for name in ("node1", "node2"):
            await self.store.put(node_key(name), encode_state(NodeState(name)))
        pod = EndpointState(1, "node1", 1000, ["10.0.0.1"])
        await self.store.put(endpoint_key("node1", 1), encode_state(pod))
        self.authority.init("default")

    def run_signer(self) -> None:
        self.tasks.append(asyncio.ensure_future(Signer(self.store, self.authority).run()))

    def run_keeper(self, node: str) -> Keeper:
        problems = self.problems.setdefault(node, {})
        keeper = Keeper(node, self.folder / node, self.store, problems)
        self.tasks.append(asyncio.ensure_future(keeper.run()))
        return keeper

    def files(self, node: str) -> Files:
        return Files.of_node(self.folder / node)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.store.close()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    made = Cluster(folder)
    await made.begin()
    try:
        yield made
    finally:
        await made.end()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def test_nodes_get_certificates_and_a_new_authority_makes_new_ones(tmp_path: Path) -> None:
    async def play() -> None:
        async with cluster(tmp_path) as nodes:
            nodes.run_keeper("node1")
            nodes.run_signer()
            files = nodes.files("node1")
            async with aclosing(files.watch()) as news:
                found = [await anext(news)]
                while isinstance(found[-1], CertificateError):
                    found.append(await anext(news))
                nodes.authority.rotate()
                while found[-1].certificate.count(b"BEGIN") < 2:  # with the cross certificate
                    found.append(await anext(news))
                    assert isinstance(found[-1], Credentials), found[-1]
            before, after = next(each for each in found if isinstance(each, Credentials)), found[-1]
            assert before.key == after.key
            assert after.authority.count(b"BEGIN") == 2

    asyncio.run(play())


def test_a_node_may_speak_for_the_identities_of_its_pods(tmp_path: Path) -> None:
    async def play() -> None:
        async with cluster(tmp_path) as nodes:
            nodes.run_signer()
            one, two = nodes.run_keeper("node1"), nodes.run_keeper("node2")
            for keeper in (one, two):
                keeper.need({1000})
            await until(lambda: one.held(1000))
            answers = f"{ISSUED}node2/{identity_subject(1000)}"
            async with asyncio.timeout(60):
                while (entry := await nodes.store.get(answers)) is None:
                    await asyncio.sleep(0.01)
            assert b"it has no pod of identity 1000, so it may not speak for it" in entry.value
            assert two.held(1000) is None
            # Who has no key of the node cannot ask in its name.
            key = request_key("node1", identity_subject(1001))
            mine = await nodes.store.get(request_key("node2", identity_subject(1000)))
            assert mine is not None
            await nodes.store.put(key, mine.value)
            async with asyncio.timeout(60):
                while b"not made with the key that the node is known by" not in (
                    entry.value
                    if (entry := await nodes.store.get(key.replace("requests", "issued")))
                    else b""
                ):
                    await asyncio.sleep(0.01)
            one.need(())
            await until(lambda: not list(one.folder.glob("identity-*")))
            async with asyncio.timeout(60):
                while await nodes.store.get(f"{ISSUED}node1/{identity_subject(1000)}"):
                    await asyncio.sleep(0.01)

    asyncio.run(play())


def test_who_is_no_node_and_what_is_no_request_are_refused(tmp_path: Path) -> None:
    async def play() -> None:
        async with cluster(tmp_path) as nodes:
            nodes.run_signer()
            stranger = nodes.run_keeper("stranger")
            answers = {
                "stranger/node": b"it is none of this cluster",
                "node1/node": b"not a request for a certificate",
                "node1/identity-x": b"certificates are for a node, or for",
            }
            for place in ("node1/node", "node1/identity-x"):
                node, subject = place.split("/")
                csr = Request("nonsense")
                if subject != "node":
                    await until((stranger.folder / "node.request").exists)
                    await nodes.store.put(
                        request_key(node, subject), (stranger.folder / "node.request").read_bytes()
                    )
                else:
                    await nodes.store.put(request_key(node, subject), encode(csr))
            for place, said in answers.items():
                async with asyncio.timeout(60):
                    while said not in (
                        entry.value if (entry := await nodes.store.get(f"{ISSUED}{place}")) else b""
                    ):
                        await asyncio.sleep(0.01)
            assert not nodes.files("stranger").certificate.exists()

    asyncio.run(play())


def test_requests_of_kinds_that_nobody_knows_are_refused_and_others_are_answered(tmp_path: Path) -> None:
    good = x509.load_pem_x509_csr(making.request_for(making.new_key(), "node2"))
    der = good.public_bytes(Encoding.DER)
    strange = {
        "curve": der.replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030177")),
        "kind of key": der.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0277")),
        "version": der.replace(bytes.fromhex("020100"), bytes.fromhex("020105"), 1),
    }

    async def play() -> None:
        async with cluster(tmp_path) as nodes:
            nodes.run_signer()
            for content in strange.values():
                assert content != der
                text = base64.encodebytes(content).decode()
                csr = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
                await nodes.store.put(request_key("node2", "node"), encode(Request(csr)))
                async with asyncio.timeout(20):
                    while Request(csr).digest.encode() not in (
                        entry.value if (entry := await nodes.store.get(f"{ISSUED}node2/node")) else b""
                    ):
                        await asyncio.sleep(0.01)
            nodes.run_keeper("node1")
            await until(nodes.files("node1").certificate.exists)

    asyncio.run(play())
