"""Where the desired state stands: a file that both people and the API change, and a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

import axoneme
from axoneme.balancer.config import load
from axoneme.balancer.sources import Edit, FileSource, Source, StoreSource, Unwritable
from axoneme.model.balancer import Backend, Desired, Frontend, Service
from axoneme.model.paths import ManifestError
from axoneme.sources.etcd import EtcdStore
from axoneme.sources.sqlite import SqliteStore

FILE = """\
machine: {uplinks: [eth0]}   # the only one
services:
- name: web   # the shop
  frontends: [{address: 203.0.113.10, port: 80}]
  backends: [{address: 10.0.0.1, name: a}]
"""


class Heard:
    """What a source has told, and the wait for more."""

    def __init__(self) -> None:
        self.told: list[Desired] = []
        self._news = asyncio.Event()

    def __call__(self, desired: Desired) -> None:
        self.told.append(desired)
        self._news.set()

    async def until(self, count: int) -> Desired:
        async with asyncio.timeout(20):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()
        return self.told[-1]


@asynccontextmanager
async def running(source: Source) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.ensure_future(source.run(heard))
    try:
        yield heard
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def with_service(name: str, port: int = 81) -> Service:
    return Service(name, (Frontend("203.0.113.10", port=port),))


def adding(service: Service) -> Edit:
    return lambda desired: msgspec.structs.replace(desired, services=(*desired.services, service))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "lb.yaml"
    made.write_text(FILE)
    return made


async def test_a_change_is_in_the_file_before_it_is_answered_and_comments_stay(path: Path) -> None:
    path.chmod(0o640)
    source = FileSource(path, *load(path))
    async with running(source) as heard:
        await heard.until(1)
        await source.change(adding(with_service("other")))
        assert (await heard.until(2)).service("other") == with_service("other")
    text = path.read_text()
    assert text.startswith(FILE)
    assert load(path)[1].service("other") == with_service("other")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir()] == ["lb.yaml"]


async def test_an_edit_of_the_file_is_taken_and_a_bad_one_changes_nothing(path: Path) -> None:
    source = FileSource(path, *load(path))
    async with running(source) as heard:
        before = await heard.until(1)
        path.write_text(FILE.replace("name: a", "nmae: a"))
        async with asyncio.timeout(20):
            while not source.problems:
                await asyncio.sleep(0.01)
        (said,) = source.problems.values()
        assert "services[0].backends[0].nmae" in said
        with pytest.raises(Unwritable, match="until the file is mended"):
            await source.change(adding(with_service("other")))
        assert heard.told == [before]
        path.write_text(FILE.replace("name: a", "name: b"))
        after = await heard.until(2)
        assert not source.problems
        web = after.service("web")
        assert web is not None
        assert [backend.name for backend in web.backends] == ["b"]


async def test_a_change_builds_on_an_edit_that_has_not_been_seen_yet(path: Path) -> None:
    source = FileSource(path, *load(path))
    path.write_text(FILE.replace("name: a", "name: b"))
    await source.change(adding(with_service("other")))
    assert path.read_text().startswith(FILE.replace("name: a", "name: b"))


async def test_what_cannot_be_is_refused_and_not_written(path: Path) -> None:
    source = FileSource(path, *load(path))
    with pytest.raises(ManifestError, match="service web has 80/TCP"):
        await source.change(adding(with_service("other", 80)))
    assert path.read_text() == FILE


async def test_a_file_with_references_is_left_to_people(path: Path) -> None:
    text = FILE.replace("[{address: 10.0.0.1, name: a}]", "&them [{address: 10.0.0.1, name: a}]") + (
        "- {name: two, frontends: [{address: 203.0.113.11, port: 80}], backends: *them}\n"
    )
    path.write_text(text)
    source = FileSource(path, *load(path))

    def drain(desired: Desired) -> Desired:
        web, two = desired.services
        drained = (Backend("10.0.0.1", name="a", drain=True),)
        return Desired(services=(msgspec.structs.replace(web, backends=drained), two))

    with pytest.raises(Unwritable, match="change it by hand"):
        await source.change(drain)
    assert path.read_text() == text


async def test_machines_that_share_a_store_share_what_is_wanted(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "store.db") for _ in range(2)]
    first, second = (
        StoreSource(store, "balancer/", tmp_path / f"last-{number}.json")
        for number, store in enumerate(stores)
    )
    try:
        async with running(first) as heard, running(second) as other:
            assert await heard.until(1) == await other.until(1) == Desired()
            await asyncio.gather(
                *(
                    source.change(adding(with_service(name, port)))
                    for source, name, port in (
                        (first, "a", 80),
                        (second, "b", 81),
                        (first, "c", 82),
                    )
                )
            )
            async with asyncio.timeout(20):
                while len((await other.until(1)).services) < 3 or heard.told[-1] != other.told[-1]:
                    await asyncio.sleep(0.01)
            with pytest.raises(ManifestError, match="service a has 80/TCP"):
                await second.change(adding(with_service("d", 80)))
            await stores[0].put("balancer/services/a", b"{}")
            async with asyncio.timeout(20):
                while not second.problems:
                    await asyncio.sleep(0.01)
            assert "this field is required" in second.problems["balancer/services/a"]
            assert len(other.told[-1].services) == 3
    finally:
        for store in stores:
            await store.close()
    # The store is away: what was in force last is taken up.
    later = EtcdStore(["http://127.0.0.1:1"])
    async with running(StoreSource(later, "balancer/", tmp_path / "last-1.json")) as heard:
        assert len((await heard.until(1)).services) == 3
    await later.close()


def test_the_example_can_be_run() -> None:
    _, desired = load(Path(axoneme.__file__).parent / "examples/balancer/lb.yaml")
    assert [service.name for service in desired.services] == ["web", "dns", "admin"]
