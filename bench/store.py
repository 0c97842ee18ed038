"""How fast the shared state is: ``python bench/store.py [sqlite [DIRECTORY] | etcd URL]``.

Prints calls a second and their latency for one process, the time from a put in one process to the
watcher in another, the longest that the event loop stood still, and what two writers at once get done.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from multiprocessing.connection import Connection
from pathlib import Path

from axoneme.sources.store import Store

VALUE = b"x" * 500


def opener(arguments: list[str]) -> Callable[[], Store]:
    match arguments:
        case ["etcd", url]:
            from axoneme.sources.etcd import EtcdStore

            namespace = f"bench-{time.time_ns()}/"
            return lambda: EtcdStore([url], namespace=namespace)
        case ["sqlite", *where]:
            from axoneme.sources.sqlite import SqliteStore

            path = Path(tempfile.mkdtemp(dir=where[0] if where else None)) / "store.db"
            return lambda: SqliteStore(path)
    raise SystemExit(__doc__)


def report(what: str, seconds: list[float]) -> None:
    seconds = sorted(seconds)
    at = [seconds[min(int(len(seconds) * share), len(seconds) - 1)] * 1e6 for share in (0.5, 0.99, 0.999)]
    print(
        f"{what:34} {len(seconds) / sum(seconds):9,.0f}/s   p50 {at[0]:7.0f} µs   p99 {at[1]:7.0f} µs"
        f"   p99.9 {at[2]:7.0f} µs   max {seconds[-1] * 1e6:7.0f} µs"
    )


async def timed(times: int, call: Callable[[int], Awaitable[object]]) -> list[float]:
    taken = []
    for number in range(times):
        start = time.perf_counter()
        await call(number)
        taken.append(time.perf_counter() - start)
    return taken


async def stalls(work: Awaitable[object]) -> float:
    """The longest that the loop did not come round while ``work`` ran."""
    longest, done = 0.0, False

    async def beat() -> None:
        nonlocal longest
        while not done:
            start = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - start)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    await work
    done = True
    await beating
    return longest


async def single(store: Store, times: int) -> None:
    report("put", await timed(times, lambda n: store.put(f"state/n/{n % 5000}", VALUE)))
    report("get", await timed(times, lambda n: store.get(f"state/n/{n % 5000}")))
    start = time.perf_counter()
    entries = (await store.list("state/n/")).entries
    print(f"list of {len(entries)} entries: {(time.perf_counter() - start) * 1e3:.1f} ms")
    puts = await stalls(timed(times, lambda n: store.put(f"state/n/{n % 5000}", VALUE)))
    lists = await stalls(store.list("state/n/"))
    print(f"the loop stood still for at most {puts * 1e3:.2f} ms during puts, {lists * 1e3:.2f} ms in a list")


def write(open_store: Callable[[], Store], pipe: Connection, times: int, pause: float) -> None:
    async def run() -> None:
        store = open_store()
        pipe.recv()
        start = time.perf_counter()
        for _ in range(times):
            await store.put("bench/stamp", str(time.monotonic_ns()).encode())
            if pause:
                await asyncio.sleep(pause)
        pipe.send(time.perf_counter() - start)
        await store.close()

    asyncio.run(run())


async def across(store: Store, open_store: Callable[[], Store], times: int, pause: float, name: str) -> None:
    after = (await store.list("bench/")).revision
    ours, theirs = multiprocessing.Pipe()
    writer = multiprocessing.get_context("fork").Process(
        target=write, args=(open_store, theirs, times, pause)
    )
    writer.start()
    taken: list[float] = []
    async with aclosing(store.watch("bench/", after)) as batches:
        first = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.2)  # let the watch begin to wait
        ours.send(None)
        batch = await first
        while True:
            now = time.monotonic_ns()
            taken += [(now - int(change.value or b"0")) / 1e9 for change in batch]
            if len(taken) == times:
                break
            batch = await anext(batches)
    report(name, taken)
    print(f"    {times / ours.recv():,.0f} puts a second were written")
    writer.join()


async def two_writers(open_store: Callable[[], Store], times: int) -> None:
    pipes = []
    for _ in range(2):
        ours, theirs = multiprocessing.Pipe()
        multiprocessing.get_context("fork").Process(target=write, args=(open_store, theirs, times, 0)).start()
        pipes.append(ours)
    start = time.perf_counter()
    for pipe in pipes:
        pipe.send(None)
    for pipe in pipes:
        await asyncio.to_thread(pipe.recv)
    print(f"two processes writing at once: {2 * times / (time.perf_counter() - start):,.0f} puts/s together")


async def main() -> None:
    arguments = sys.argv[1:] or ["sqlite"]
    open_store = opener(arguments)
    times = 20_000 if arguments[0] == "sqlite" else 3_000
    store = open_store()
    await across(store, open_store, 500, 0.004, "put to watcher elsewhere, paced")
    await across(store, open_store, times, 0, "put to watcher elsewhere, flood")
    await two_writers(open_store, times)
    await single(store, times)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
